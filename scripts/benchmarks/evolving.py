"""`shoal bench es`: evolution strategies: their speed, what is spent beside environments, what travels, and their root.

Three measurements. *Workers*: one process plays blocks of pairs on HalfCheetah-v5 whose steps are clocked; the rest of
its time is our own. *Training*: PGPE on all workers, beside EvoTorch with the same net, population and number of
actors, in turn, each in a process of its own. *Replay*: what a generation costs the root when 64 to 8,192 virtual
senders report to it (`replaying.py`), flat and with a tree.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shoal.rllib.evolution.asks import Ask
from shoal.rllib.evolution.candidate_player import CandidatePlayer, Generation, PlaySettings
from shoal.rllib.evolution.evolution_worker import EvolutionWorker, NoiseSource
from shoal.rllib.evolution.noise import PhiloxNoise
from shoal.rllib.evolution.parameter_vector import ParameterVector
from shoal.rllib.evolution.reports import Report
from shoal.rllib.policies.normalization import ObservationMoments
from shoal.rllib.policies.policy_spec import NetworkSettings
from shoal.rllib.threads import limit_matrix_threads
from shoal.scripts.benchmarks import children, report
from shoal.scripts.benchmarks.clocked import Clocked
from shoal.scripts.benchmarks.comparison import Verdict
from shoal.scripts.benchmarks.replaying import PAIRS, PARAMETERS, SENDERS, Cost, replay
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import printing, say

_CLOCKED = "shoal.scripts.benchmarks.clocked:Clocked"
_TRAINING, _PEER = "evolution_training.py", "evolution_evotorch.py"
#: What issue 7 promises: share of time beside environments, bytes a pair, times the peer's speed, times a flat root.
GOAL_SHARE, GOAL_BYTES, GOAL_TIMES, GOAL_ROOT = 0.10, 64, 2.0, 8.0
_ORDER = {"env": "HalfCheetah-v5", "population_size": 32, "hidden_sizes": [64, 64], "block_size": 8}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench es` can be told."""

    vs: Literal["nothing", "evotorch"] = "nothing"
    """Train the same with an installed EvoTorch, in turn with ours."""

    evotorch_python: str = ""
    """Interpreter that has EvoTorch, which need not share our environment; this one by default."""

    only: Literal["all", "workers", "training", "replay"] = "all"
    """Which of the measurements."""

    workers: int = 2
    """Workers of a training, and the peer's actors."""

    fan_out: int = 8
    """Of the replay's tree; as many processes, at least 2."""

    generations: int = 2
    """Generations of a training in a round."""

    rounds: int = 3
    """Rounds of each measurement; the median counts."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure evolution strategies.")
    if min(options.workers, options.rounds, options.generations) < 1 or options.fan_out < 2:
        raise UsageError("--workers, --rounds and --generations must be at least 1, --fan-out at least 2")
    if options.evotorch_python and options.vs != "evotorch":
        raise UsageError("--evotorch-python says which EvoTorch to compare with: give --vs evotorch, too")
    engines = [children.Engine("shoal")]
    versions = [f"shoal {engines[0].version()}"]
    if options.vs == "evotorch":
        engines.append(children.Engine("evotorch", options.evotorch_python or sys.executable))
        advice = "pip install evotorch, or name an interpreter that has it with --evotorch-python"
        versions.append(f"evotorch {report.version_of(engines[1], advice)}")
    conditions = report.conditions(versions, report.counted(options.rounds, "round"))
    cells: list[list[str]] = [["evolution strategies", *(engine.module for engine in engines)]]
    verdicts: list[Verdict] = []
    try:
        if options.only in ("all", "workers"):
            _tell_workers(options, cells, verdicts)
        if options.only in ("all", "training"):
            _tell_training(options, engines, cells, verdicts)
    except children.ChildError as error:
        say(f"{prog}: {error}")
        return FAILED
    costs = replay(SENDERS, options.fan_out, options.rounds) if options.only in ("all", "replay") else []
    with printing():
        if verdicts:
            print(report.laid_out(cells, conditions, [str(each) for each in verdicts], markdown=options.markdown))
        if costs:
            lines = [str(each) for each in root_verdicts(costs)]
            print(report.laid_out(root_table(costs), conditions, lines, markdown=options.markdown))
    return DONE


@dataclass(frozen=True)
class Played:
    """What one process that plays pairs spends."""

    steps_per_second: float
    share_outside: float  #: of the time, beside steps of environments
    bytes_per_pair: float  #: of reports, besides moments of observations


def play(block_size: int, hidden_sizes: Sequence[int], rounds: int) -> Played:
    """Play blocks in this process; the median block counts."""
    limit_matrix_threads(1)
    network = NetworkSettings(network="mlp", hidden_sizes=tuple(hidden_sizes), shared_value_net=True)
    lanes = 2 * block_size
    settings = PlaySettings(_CLOCKED, seed=0, block_size=block_size, lanes=lanes, counts_observations=True)
    spec = EvolutionWorker(settings=settings, noise=NoiseSource(0), worker_index=0).policy_spec(network)
    size = ParameterVector(spec).size
    player = CandidatePlayer(settings, spec, PhiloxNoise(seed=0, size=size), 0)
    moments = ObservationMoments(spec.observations.normalizable_shapes)
    num_pairs = block_size * (rounds + 1)
    asked = Ask(0, num_pairs, np.zeros(size, np.float32), 0.05)
    generation = Generation(asked, num_pairs, spec, moments.normalizers(), 0)
    found: list[Played] = []
    for block in range(rounds + 1):
        Clocked.clock.seconds, Clocked.clock.steps = 0.0, 0
        began = time.perf_counter()
        told = player.play(generation, block)
        took = time.perf_counter() - began
        content = told.to_bytes()
        travelled = (len(content) - Report.from_bytes(content).moments.nbytes) / block_size
        found.append(Played(Clocked.clock.steps / took, 1.0 - Clocked.clock.seconds / took, travelled))
    player.close()
    return sorted(found[1:], key=lambda each: each.share_outside)[(rounds - 1) // 2]


def _tell_workers(options: Options, cells: list[list[str]], verdicts: list[Verdict]) -> None:
    for name, hidden_sizes in (("linear policy", ()), ("net of 64 and 64", (64, 64))):
        for block_size in (4, 8):
            say(f"{name}, blocks of {block_size}")
            found = play(block_size, hidden_sizes, max(3, options.rounds))
            title = f"one worker, HalfCheetah-v5, {name}, blocks of {block_size}"
            told = f"{found.steps_per_second:,.0f} steps/s, {found.share_outside:.1%} beside the environments'"
            cells.append([title, f"{told}, {found.bytes_per_pair:.0f} bytes a pair", *[""] * (options.vs != "nothing")])
            if block_size == _ORDER["block_size"]:
                text = f"{title}: {found.share_outside:.1%} of the time outside steps (goal under {GOAL_SHARE:.0%})"
                verdicts.append(Verdict(text, found.share_outside < GOAL_SHARE))
            text = f"{title}: {found.bytes_per_pair:.0f} bytes a pair (goal {GOAL_BYTES})"
            verdicts.append(Verdict(text, found.bytes_per_pair <= GOAL_BYTES))


def _tell_training(
    options: Options, engines: Sequence[children.Engine], cells: list[list[str]], verdicts: list[Verdict]
) -> None:
    figures: dict[str, list[dict[str, Any]]] = {engine.module: [] for engine in engines}
    for number in range(options.rounds):
        order = {**_ORDER, "num_workers": options.workers, "generations": options.generations, "seed": number}
        for engine in engines:
            say(f"round {number + 1} of {options.rounds}: {engine.module}")
            program = _TRAINING if engine.module == "shoal" else _PEER
            figures[engine.module] += children.run(engine, program, order)
    medians = {
        module: {what: float(np.median([each[what] for each in told])) for what in told[0]}
        for module, told in figures.items()
    }
    title = f"PGPE on HalfCheetah-v5, net of 64 and 64, {report.counted(options.workers, 'worker')}"
    for what, unit in (("steps_per_second", "steps/s"), ("pairs_per_second", "pairs/s")):
        cells.append([title, *(f"{medians[engine.module][what]:,.1f} {unit}" for engine in engines)])
    if len(engines) > 1:
        ratio = medians["shoal"]["steps_per_second"] / medians["evotorch"]["steps_per_second"]
        text = f"{title}: {ratio:.1f} times EvoTorch (goal {GOAL_TIMES:g})"
        verdicts.append(Verdict(text, ratio >= GOAL_TIMES))


def root_table(costs: Sequence[Cost]) -> list[list[str]]:
    """A line for each number of senders and shape."""
    head = [f"root, {PAIRS:,} pairs of {PARAMETERS:,} parameters", "receiving, CPU s", "summing, CPU s", "all, CPU s"]
    lines = [head]
    for cost in costs:
        shape = f"tree, fan-out {cost.fan_out}" if cost.fan_out else "flat"
        seconds = (cost.receiving_s, cost.summing_s, cost.total_s)
        lines.append([f"{cost.senders:,} senders, {shape}", *(f"{each:.3f}" for each in seconds)])
    return lines


def root_verdicts(costs: Sequence[Cost]) -> list[Verdict]:
    """How many times less a tree asks of the root, for the most senders."""
    most = max(cost.senders for cost in costs)
    flat, tree = (next(c for c in costs if c.senders == most and bool(c.fan_out) == wants) for wants in (False, True))
    times = flat.total_s / tree.total_s
    return [
        Verdict(
            f"{most:,} senders: the flat root takes {times:.0f} times the tree's CPU (goal {GOAL_ROOT:g})",
            times >= GOAL_ROOT,
        )
    ]
