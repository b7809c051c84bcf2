"""`shoal bench envs`: environment steps per second of each vector environment, beside gymnasium's own.

CartPole with random actions and nothing else: no policy, no learning. In every round each case has its turn, in this
process, because what a shared machine gives changes by the minute; the medians and the spread are over the rounds.
gymnasium's are stepped as it has them, without shoal between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import shoal
from shoal.envs.opening import open_vector
from shoal.envs.seeds import EpisodeSeeds
from shoal.scripts.benchmarks import report
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say

_ENV = "CartPole-v1"
#: Rows of random actions that are made before the clock starts, and used again and again.
_ACTION_ROWS = 64


class Stepped(Protocol):
    """What is measured."""

    def reset(self) -> Any: ...

    def step(self, actions: np.ndarray, /) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Case:
    """One vector environment of some copies."""

    name: str
    num_envs: int
    make: Callable[[int], Stepped]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench envs` can be told."""

    rounds: int = 3
    """Rounds of each case; the median counts."""

    seconds: float = 1.0
    """Length of one measurement."""

    only: str = ""
    """Run only the cases whose name holds this text."""

    markdown: bool = False
    """Print the table as it stands in docs/environments.md."""


def _ours(vector: Any, num_processes: int = 0) -> Callable[[int], Stepped]:
    return lambda count: open_vector(_ENV, range(count), EpisodeSeeds(0), vector=vector, num_processes=num_processes)


def _gymnasiums(mode: str) -> Callable[[int], Stepped]:
    def make(count: int) -> Stepped:
        import gymnasium

        made: Stepped = gymnasium.make_vec(_ENV, count, vectorization_mode=mode)
        return made

    return make


CASES = (
    *(
        Case(f"{name}, {count} copies", count, make)
        for count in (8, 64)
        for name, make in (
            ("serial", _ours("serial")),
            ("parallel, 1 process", _ours("parallel", 1)),
            ("parallel, 2 processes", _ours("parallel", 2)),
            ("gymnasium SyncVectorEnv", _gymnasiums("sync")),
        )
    ),
    Case("gymnasium AsyncVectorEnv, 8 copies", 8, _gymnasiums("async")),  # one process each: no 64
    Case("batched, 4096 copies", 4096, _ours("batched")),
    Case("gymnasium CartPoleVectorEnv, 4096 copies", 4096, _gymnasiums("vector_entry_point")),
)


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure how fast environments are stepped.")
    if options.rounds < 1 or options.seconds <= 0:
        raise UsageError("--rounds must be at least 1, --seconds positive")
    chosen = [case for case in CASES if options.only in case.name]
    if not chosen:
        names = "; ".join(case.name for case in CASES)
        raise UsageError(f"--only {options.only!r} is in the name of no case; they are: {names}")
    how = f"{report.counted(options.rounds, 'round')} of {options.seconds:g} s"
    conditions = report.conditions([f"shoal {shoal.__version__}"], how)
    figures: dict[str, list[float]] = {case.name: [] for case in chosen}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for case in chosen:
            figures[case.name].append(steps_per_second(case, options.seconds))
    with printing():
        print(report.laid_out(table(figures), conditions, markdown=options.markdown))
    return DONE


def steps_per_second(case: Case, seconds: float) -> float:
    """Steps of all copies together, for about so many seconds."""
    envs = case.make(case.num_envs)
    try:
        envs.reset()
        actions = np.random.default_rng(0).integers(2, size=(_ACTION_ROWS, case.num_envs))
        for row in actions:
            envs.step(row)
        steps, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            for row in actions:
                envs.step(row)
            steps += actions.size
        return steps / passed
    finally:
        envs.close()


def table(figures: dict[str, list[float]]) -> list[list[str]]:
    """A head, and a line for each case: median and spread."""
    lines = [["case", "steps/s", "spread"]]
    for name, found in figures.items():
        median = float(np.median(found))
        lines.append([name, f"{median:,.0f}", f"{(max(found) - min(found)) / median:.0%}"])
    return lines
