"""`shoal bench inference`: rollouts by workers that act by themselves, and by workers that ask an inference actor.

The same rollout workers play the same number of steps in each way, and nothing learns. What an actor can win is the
difference between many small batches and a large one, less a message there and back for each step (0.1 ms and more).
Where policies are small, or all cores are busy anyway, it loses; on a CPU a batch is hardly cheaper than its rows, and
workers compute side by side, which one actor does not. In every round each case has its turn in each way; the medians
are over the rounds. Beside the steps a second stands the processor time that a step takes in all processes together:
that other jobs use the machine changes it little.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import psutil

import shoal
from shoal.rllib import streams
from shoal.rllib.inference.inference_actors import InferenceActors
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, PolicySpec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.env_runner import Collected, EnvRunner
from shoal.rllib.worker_set import WorkerSet
from shoal.scripts.benchmarks import report
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say

_PICTURES, _SLOW_PICTURES = (f"shoal.scripts.benchmarks.picturing:{name}" for name in ("Pictures", "SlowPictures"))


@dataclass(frozen=True)
class Case:
    """Some workers and a policy."""

    name: str
    env: str
    workers: int
    copies: int  #: of each worker
    network: NetworkSettings = field(default_factory=NetworkSettings)


CASES = (
    Case("64x64 net, CartPole, 2 workers of 8", "CartPole-v1", 2, 8),
    Case("1024x1024 net, CartPole, 2 workers of 8", "CartPole-v1", 2, 8, NetworkSettings(hidden_sizes=(1024, 1024))),
    Case("Nature CNN, pictures, 2 workers of 8", _PICTURES, 2, 8),
    Case("Nature CNN, pictures in 10 ms, 2 workers of 8", _SLOW_PICTURES, 2, 8),
    Case("Nature CNN, pictures in 10 ms, 8 workers of 1", _SLOW_PICTURES, 8, 1),
)


@dataclass(frozen=True)
class Way:
    """How workers act."""

    name: str
    actors: int  #: 0: none
    groups: int = 1


LOCAL = Way("local", 0)
WAYS = (LOCAL, Way("actor", 1), Way("actor, 2 groups", 1, 2))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench inference` can be told."""

    rounds: int = 3
    """Rounds of each case in each way; the median counts."""

    seconds: float = 1.0
    """Length of one measurement, at least."""

    rollout_steps: int = 32
    """Steps of a rollout."""

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where the inference actor computes."""

    only: str = ""
    """Run only the cases whose name holds this text."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Compare acting in workers with inference actors.")
    if options.rounds < 1 or options.seconds <= 0 or options.rollout_steps < 1:
        raise UsageError("--rounds and --rollout-steps must be at least 1, --seconds positive")
    chosen = [case for case in CASES if options.only in case.name]
    if not chosen:
        raise UsageError(f"--only {options.only!r} is in the name of no case: {'; '.join(case.name for case in CASES)}")
    told = f"{report.counted(options.rounds, 'round')} of {options.seconds:g} s or more, actor on {options.device}"
    conditions = report.conditions([f"shoal {shoal.__version__}"], told)
    figures = measure(chosen, options)
    with printing():
        print(report.laid_out(table(chosen, figures), conditions, markdown=options.markdown))
    return DONE


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    steps_per_s: float
    processor_us: float  #: processor time of a step, of all processes of the session


def measure(chosen: Sequence[Case], options: Options) -> dict[tuple[str, str], list[Figure]]:
    """What was measured in each round, by the names of case and way."""
    figures: dict[tuple[str, str], list[Figure]] = {}
    shoal.init(num_cpus=max(case.workers for case in chosen) * len(WAYS))
    try:
        for case in chosen:
            ways = [way for way in WAYS if way.groups <= case.copies]
            players = [_Players(case, way, options) for way in ways]
            try:
                for number in range(options.rounds):
                    say(f"{case.name}: round {number + 1} of {options.rounds}")
                    for way, each in zip(ways, players, strict=True):
                        figures.setdefault((case.name, way.name), []).append(each.measured(options.seconds))
            finally:
                for each in players:
                    each.close()
    finally:
        shoal.shutdown()
    return figures


class _Players:
    """Rollout workers of one case that act in one way."""

    def __init__(self, case: Case, way: Way, options: Options) -> None:
        self._case, self._way, self._num_steps = case, way, options.rollout_steps
        self._numbers = itertools.count()
        self._inference = InferenceActors(way.actors, num_rows=case.workers * case.copies, device=options.device)
        self._workers = WorkerSet(self._make, case.workers)
        specs: list[PolicySpec] = self._workers.map("policy_spec", [(case.network,)] * case.workers)
        weights = Weights(0, specs[0], initial_weights(specs[0], streams.weight_seed(0)))
        self._acted_with = self._inference.weights_of(shoal.put(weights))
        self._play()

    def measured(self, seconds: float) -> Figure:
        """All workers together, for at least so many seconds."""
        steps, used_s, began_s = 0, _processor_s(), time.perf_counter()
        while (passed_s := time.perf_counter() - began_s) < seconds:
            steps += self._play()
        return Figure(steps / passed_s, 1e6 * (_processor_s() - used_s) / steps)

    def close(self) -> None:
        """Kill them."""
        self._workers.close()
        self._inference.close()

    def _play(self) -> int:
        request = (self._acted_with, self._num_steps, next(self._numbers))
        collected: list[Collected] = self._workers.map("collect", [request] * len(self._workers))
        return sum(each.batch.num_steps for each in collected)

    def _make(self, worker: int, _replacement: int) -> Any:
        copies = range(worker * self._case.copies, (worker + 1) * self._case.copies)
        return (
            shoal.remote(EnvRunner)
            .options(num_cpus=1)
            .remote(
                env_id=self._case.env,
                worker_index=worker,
                env_indices=copies,
                seed=0,
                num_groups=self._way.groups,
                inference=self._inference.of(worker),
            )
        )


def _processor_s() -> float:
    """Processor time that this process and all that it has started have used so far."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def table(chosen: Sequence[Case], figures: dict[tuple[str, str], list[Figure]]) -> list[list[str]]:
    """A head, and a line for each case: medians of each way, and how much faster the best actor is than none."""
    lines = [["rollouts", *(f"{way.name}: steps/s, us" for way in WAYS), "actor / local"]]
    for case in chosen:
        found = {way: figures[case.name, way.name] for way in WAYS if (case.name, way.name) in figures}
        rates = {way: float(np.median([each.steps_per_s for each in rounds])) for way, rounds in found.items()}
        costs = {way: float(np.median([each.processor_us for each in rounds])) for way, rounds in found.items()}
        cells = [f"{rates[way]:,.0f} {costs[way]:,.0f}" if way in rates else "" for way in WAYS]
        best = max(rate for way, rate in rates.items() if way is not LOCAL)
        lines.append([case.name, *cells, f"{best / rates[LOCAL]:.2f}"])
    return lines
