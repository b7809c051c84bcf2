"""`shoal bench straggler`: what one slow environment costs, with a barrier and without.

Rollout workers with one environment each, whose steps sleep for 10 ms; one of them may be 20 times slower. A policy
acts in them, nothing learns. Synchronous: every worker plays a rollout, and the next begins when all have finished
(`WorkerSet.map`, as PPO does by default). Dynamic: a worker that has finished plays on, and a batch is full when there
are as many rollouts as there are workers (`DynamicCollection`, as with `--collect dynamic`), with no bound on the lag.
In every round each case has its turn; the medians are over the rounds.

Of W workers the straggler has its share of all steps, 1 / W, and plays a 20th of it: what is left is what dynamic
collection can give at best. It is printed, too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import shoal
from shoal.rllib import streams
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, PolicySpec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.collection import DynamicCollection
from shoal.rllib.rollouts.env_runner import Collected, EnvRunner
from shoal.rllib.worker_set import WorkerSet
from shoal.scripts.benchmarks import report
from shoal.scripts.benchmarks.sleeping import SLOWER
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say

_QUICK, _SLOW = (f"shoal.scripts.benchmarks.sleeping:{name}" for name in ("Quick", "Slow"))
#: What dynamic collection may lose by the straggler.
GOAL = 0.15


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench straggler` can be told."""

    workers: int = 16
    """Rollout workers, one environment each; at least 2."""

    rollout_steps: int = 16
    """Steps of a rollout."""

    rounds: int = 3
    """Rounds of each case; the median counts."""

    seconds: float = 2.0
    """Length of one measurement, at least."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure what one slow environment costs.")
    if options.workers < 2 or options.rollout_steps < 1:
        raise UsageError("--workers must be at least 2, --rollout-steps at least 1")
    if options.rounds < 1 or options.seconds <= 0:
        raise UsageError("--rounds must be at least 1, --seconds positive")
    told = f"{options.workers} workers, {report.counted(options.rounds, 'round')} of {options.seconds:g} s or more"
    conditions = report.conditions([f"shoal {shoal.__version__}"], told)
    medians = {case: float(np.median(found)) for case, found in measure(options).items()}
    with printing():
        cells = table(medians, options.workers)
        print(report.laid_out(cells, conditions, [verdict(medians)], markdown=options.markdown))
    return DONE


def measure(options: Options) -> dict[tuple[str, bool], list[float]]:
    """Steps a second of each case, (way, whether one is slow), in each round."""
    figures: dict[tuple[str, bool], list[float]] = {(way, slow): [] for way in _WAYS for slow in (False, True)}
    shoal.init(num_cpus=2 * options.workers)  # they sleep
    try:
        with _Workers(options, has_straggler=False) as alike, _Workers(options, has_straggler=True) as straggling:
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                for (way, is_slow), found in figures.items():
                    found.append((straggling if is_slow else alike).steps_per_second(way, options.seconds))
    finally:
        shoal.shutdown()
    return figures


class _Workers:
    """Rollout workers that one policy acts in, in both ways.

    Args:
      options: How many, and how long rollouts are.
      has_straggler: Whether the first is slow.
    """

    def __init__(self, options: Options, *, has_straggler: bool) -> None:
        self._num_steps = options.rollout_steps
        self._has_straggler = has_straggler
        self._numbers = itertools.count()
        self._workers = WorkerSet(self._make, options.workers)
        try:
            everyone = len(self._workers)
            specs: list[PolicySpec] = self._workers.map("policy_spec", [(NetworkSettings(),)] * everyone)
            weights = Weights(0, specs[0], initial_weights(specs[0], streams.weight_seed(0)))
            self._weights_ref = shoal.put(weights)
            self._workers.map("begin", [(self._weights_ref,)] * everyone)
        except BaseException:
            self._workers.close()
            raise
        self._collection = DynamicCollection(
            self._workers,
            self._num_steps,
            [1] * everyone,
            max_in_flight=1,
            max_lag=None,
            next_rollout=lambda: next(self._numbers),
            arrived=lambda worker, collected: None,
            taken=lambda worker, collected: None,
        )
        self._collection.publish(self._weights_ref, 0)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.close()

    def steps_per_second(self, way: str, seconds: float) -> float:
        """Of all workers together, for at least so many seconds."""
        play = _WAYS[way]
        play(self)
        steps, began_s = 0, time.perf_counter()
        while (passed_s := time.perf_counter() - began_s) < seconds:
            steps += play(self)
        self._collection.settle()
        return steps / passed_s

    def synchronous(self) -> int:
        """Play a batch, with a barrier; its steps."""
        request = (self._weights_ref, self._num_steps, next(self._numbers))
        collected: list[Collected] = self._workers.map("collect", [request] * len(self._workers))
        return sum(each.batch.num_steps for each in collected)

    def dynamic(self) -> int:
        """Play a batch, as rollouts come; its steps."""
        segments = self._collection.take(self._num_steps * len(self._workers))
        return sum(segment.batch.num_steps for segment in segments)

    def _make(self, worker: int, _replacement: int) -> Any:
        env_id = _SLOW if self._has_straggler and worker == 0 else _QUICK
        made = shoal.remote(EnvRunner).options(num_cpus=1)
        return made.remote(env_id=env_id, worker_index=worker, env_indices=[worker], seed=0)


_WAYS: dict[str, Callable[[_Workers], int]] = {"synchronous": _Workers.synchronous, "dynamic": _Workers.dynamic}


def table(medians: dict[tuple[str, bool], float], workers: int) -> list[list[str]]:
    """A head, a line for each way and one for the best that can be: steps a second without and with the straggler.

    Args:
      medians: (way, whether one is slow) -> steps a second.
      workers: How many there are.
    """
    lines = [["rollouts", "all alike, steps/s", f"one {SLOWER} times slower", "lost"]]
    for way in _WAYS:
        alike, straggling = medians[way, False], medians[way, True]
        lines.append([way, f"{alike:,.0f}", f"{straggling:,.0f}", f"{1.0 - straggling / alike:.1%}"])
    share = (1.0 - 1.0 / SLOWER) / workers
    best = medians["dynamic", False] * (1.0 - share)
    return [*lines, ["nobody waits, as computed", "", f"{best:,.0f}", f"{share:.1%}"]]


def verdict(medians: dict[tuple[str, bool], float]) -> str:
    """Whether dynamic collection lost less than it may."""
    lost = 1.0 - medians["dynamic", True] / medians["dynamic", False]
    return f"goal: dynamic loses under {GOAL:.0%}: {'met' if lost < GOAL else 'missed'} ({lost:.1%})"
