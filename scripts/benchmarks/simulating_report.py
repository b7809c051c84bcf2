"""`shoal bench simulation`: rollouts of unequal length, as they come and with a barrier: Table 4 of the Ray paper.

Three rollouts of Pendulum-v1 for each worker, of 10 to 1000 steps (`benchmarks/simulators.py`), in four ways
(`benchmarks/simulating.py`, `simulating_mpi.py`): shoal, where nobody waits; shoal, where a batch is awaited before the
next; and with a barrier after each round, mpi4py and `multiprocessing.Pool`. In every round each way has its turn, in
processes of its own. More workers than the machine has cores have environments that sleep.

How much a barrier costs at least follows from the lengths: with n workers a round takes as long as the longest of n
rollouts. What is gained at best by not waiting is that over the mean; it is printed, too. One worker is measured beside
a bare loop (`single_worker.py`): what it costs to ask, to send, and to be sent what it has played. Told are the median
of all turns and the quartiles, for time and for the worker's processor time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import shoal
from shoal.scripts.benchmarks import children, report, simulating_mpi
from shoal.scripts.benchmarks.comparison import Samples, Verdict
from shoal.scripts.benchmarks.simulators import LONGEST, SHORTEST
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import printing, say

#: What one worker may take more than a bare loop; and times the barrier's steps, by the number of workers.
GOAL_ADDED = 0.013
GOALS = {16: 1.4, 64: 1.6}

DYNAMIC, AWAITED = "shoal, nobody waits", "shoal, a batch awaited"
MPI, POOL = "mpi4py, a barrier", "Pool.map, a barrier"
#: The child of each way, and what it is told to do.
_PROGRAMS = {
    DYNAMIC: ("simulating.py", "dynamic"),
    AWAITED: ("simulating.py", "awaited"),
    MPI: ("simulating_mpi.py", "mpi"),
    POOL: ("simulating.py", "pool"),
}
_BARRIERS = (MPI, POOL)
#: Of the worker that is measured beside a loop: rollouts of a turn, how many of them a request is for if it is not for
#: one alone or for all; pairs of processes in a round, and turns of each.
_ROLLOUTS, _AT_ONCE, _PAIRS, _TURNS = 48, 8, 4, 6
#: What a request is for: the child's word, and ours.
_ASKED = {"one": "a rollout", "some": f"{_AT_ONCE} rollouts", "all": f"all {_ROLLOUTS} rollouts"}
_ADVICE = "mpi4py and an MPI: pip install 'shoal[bench]'"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench simulation` can be told."""

    workers: tuple[int, ...] = (1, 2, 16, 64)
    """Numbers of workers. 1 is measured beside a bare loop; more than there are cores have environments that sleep."""

    rounds: int = 3
    """Rounds of each case, each with a seed of its own; the median counts."""

    batches: int = 3
    """Batches in one measurement of environments that sleep, of three rollouts for each worker; 25 times as many of
    those that do not."""

    step_ms: float = 2.0
    """How long a step sleeps, in milliseconds."""

    json: str = ""
    """Write every figure of every round to this file, too."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


#: Figures by number of workers and way; of one worker, what a turn of `single_worker.py` gives.
Figures = dict[int, dict[str, Samples]]


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    about = "Measure simulation with rollouts of unequal length, as they come and with a barrier."
    options = parse(Options, arguments, prog=prog, description=about)
    _check(options)
    missing = without_mpi()
    if missing:
        say(f"{prog}: {missing}")
    versions = [f"shoal {shoal.__version__}", *([] if missing else [_mpi_version()])]
    lengths = f"rollouts of {SHORTEST} to {LONGEST} steps, of {options.step_ms:g} ms where they sleep"
    how = f"{report.counted(options.rounds, 'round')}; {lengths}"
    conditions = report.conditions(versions, how)
    try:
        figures = measure(options, has_mpi=not missing)
    except children.ChildError as error:
        say(f"{prog}: {error}")
        return FAILED
    lines = [*(str(verdict) for verdict in verdicts(figures)), *notes(figures)]
    with printing():
        print(report.laid_out(table(figures), conditions, lines, markdown=options.markdown))
    if options.json:
        Path(options.json).write_text(as_json(figures, conditions) + "\n", encoding="utf-8")
    return DONE


def _check(options: Options) -> None:
    if not options.workers or min(options.workers) < 1 or len(set(options.workers)) < len(options.workers):
        raise UsageError("--workers must be different numbers, each at least 1")
    if options.rounds < 1 or options.batches < 1 or options.step_ms <= 0:
        raise UsageError("--rounds and --batches must be at least 1, --step-ms positive")
    if options.json and not Path(options.json).parent.is_dir():
        raise UsageError(f"--json {options.json}: its folder does not exist")


def without_mpi() -> str:
    """Why nothing is compared with MPI, and what to do; "" if it is there."""
    if importlib.util.find_spec("mpi4py") is None:
        return f"nothing is compared with MPI, for there is no mpi4py here; {_ADVICE}"
    if simulating_mpi.mpirun() is None:
        return f"nothing is compared with MPI, for there is no mpirun here; {_ADVICE}, or apt install openmpi-bin"
    return ""


def _mpi_version() -> str:
    import mpi4py

    return f"mpi4py {mpi4py.__version__} ({simulating_mpi.version()})"


def measure(options: Options, *, has_mpi: bool) -> Figures:
    """Run the rounds, way by way in turn.

    Raises:
      ChildError: a child failed.
    """
    figures: Figures = {}
    for number in range(options.rounds):
        for count in options.workers:
            for way, order in orders(count, options, has_mpi=has_mpi).items():
                say(f"round {number + 1} of {options.rounds}: {count} worker{'s'[: count > 1]}, {way}")
                program = _PROGRAMS[way][0] if way in _PROGRAMS else "single_worker.py"
                for told in children.run(children.Engine("shoal"), program, {**order, "seed": number}):
                    for what, figure in told.items():
                        name = way if what == "steps_per_second" else what
                        figures.setdefault(count, {}).setdefault(name, Samples()).figures.append(figure)
    return figures


def orders(count: int, options: Options, *, has_mpi: bool) -> dict[str, dict[str, Any]]:
    """What the children of a round are told for so many workers, by way."""
    if count == 1:
        turns = {"pairs": _PAIRS, "turns": _TURNS, "rollouts": _ROLLOUTS, "at_once": _AT_ONCE}
        return {"shoal": {"work": "single", "step_s": 0.0, **turns}}
    sleeps = count > (os.cpu_count() or 1)
    order = {
        "num_workers": count,
        "step_s": options.step_ms / 1000 if sleeps else 0.0,
        "batches": options.batches * (1 if sleeps else 25),
    }
    return {way: {**order, "work": work} for way, (_, work) in _PROGRAMS.items() if way != MPI or has_mpi}


def gain_at_best(count: int) -> float:
    """Times the steps of a barrier that nobody waiting can give: the longest of so many lengths over their mean."""
    lengths = range(SHORTEST, LONGEST + 1)
    # The mean of a number that is at least 1 is the sum over k of the probability that it is k or more.
    longest = SHORTEST + sum(1.0 - (k / len(lengths)) ** count for k in range(1, len(lengths)))
    return longest / ((SHORTEST + LONGEST) / 2)


def table(figures: Mapping[int, Mapping[str, Samples]]) -> list[list[str]]:
    """A head and a line for each number of workers: steps a second with the spread, and what is gained."""
    ways = [way for way in _PROGRAMS if any(way in found for found in figures.values())]
    gains = [way for way in _BARRIERS if way in ways]
    head = ["workers", *ways, *(f"times {way.partition(',')[0]}" for way in gains), "at best"]
    lines = [head] if ways else [["workers", "shoal"]]
    for count, found in figures.items():
        if count == 1:
            lines.append(["1", _cell(found["shoal"]), *[""] * (len(lines[0]) - 2)])
            continue
        lines.append(
            [
                str(count),
                *(_cell(found[way]) for way in ways),
                *(f"{_gain(found, way):.2f}" for way in gains),
                f"{gain_at_best(count):.2f}",
            ]
        )
    return lines


def _cell(samples: Samples) -> str:
    spread = f" ({samples.spread:.0%})" if len(samples.figures) > 1 else ""
    return f"{samples.median:,.0f}/s{spread}"


def _gain(found: Mapping[str, Samples], barrier: str) -> float:
    """Times the steps of a barrier, by the medians."""
    ours, theirs = found[DYNAMIC].median, found[barrier].median
    assert ours is not None
    assert theirs is not None
    return ours / theirs


def verdicts(figures: Mapping[int, Mapping[str, Samples]]) -> list[Verdict]:
    """How it stands against the goals, each by the better barrier; about what was not measured nothing is said."""
    told = []
    for count, found in figures.items():
        if count == 1:
            for what in ("one", "some"):
                added = found[f"added_{what}"].median
                assert added is not None
                told.append(Verdict(f"{_cost(found, what)} (goal {GOAL_ADDED:.1%})", added <= GOAL_ADDED))
        elif (goal := GOALS.get(count)) is not None:
            gain = min(_gain(found, way) for way in _BARRIERS if way in found)
            text = f"{report.counted(count, 'worker')} {gain:.2f} times a barrier (goal {goal:g})"
            told.append(Verdict(text, gain >= goal))
    return told


def notes(figures: Mapping[int, Mapping[str, Samples]]) -> list[str]:
    """What helps to read the verdicts: what a worker's process alone makes out, and what the requests alone."""
    if 1 not in figures:
        return []
    found = figures[1]
    told = [f"{_cost(found, 'all')}: no more than two processes differ that play the same"]
    for what in ("one", "some"):
        in_time, in_processor = (
            _quartiles([(1.0 + mine) / (1.0 + at_once) - 1.0 for mine, at_once in zip(*pair, strict=True)])
            for pair in (
                (found[f"{kind}_{what}"].figures, found[f"{kind}_all"].figures) for kind in ("added", "processor")
            )
        )
        asked = f"beside itself when asked for all at once it takes, by {_ASKED[what]} at a time"
        told.append(f"{asked}, {in_time}; of processor time {in_processor}")
    return told


def _cost(found: Mapping[str, Samples], what: str) -> str:
    """What one worker takes more than a loop if a request asks for so much."""
    in_time, in_processor = (_quartiles(found[f"{kind}_{what}"].figures) for kind in ("added", "processor"))
    return f"one worker that is asked for {_ASKED[what]} at a time takes {in_time}; of processor time {in_processor}"


def _quartiles(figures: Sequence[float]) -> str:
    """The median, and where the half in the middle lies."""
    several = figures if len(figures) > 1 else [*figures, *figures]
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return f"{median:+.1%} ({low:+.1%} to {high:+.1%})"


def as_json(figures: Figures, conditions: str) -> str:
    """Every figure of every round."""
    told = {count: {way: samples.figures for way, samples in found.items()} for count, found in figures.items()}
    judged = [asdict(verdict) for verdict in verdicts(figures)]
    return json.dumps({"conditions": conditions, "steps_per_second": told, "verdicts": judged}, indent=1)
