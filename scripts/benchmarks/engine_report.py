"""`shoal bench engine`: what the Ray engine adds to Ray's own task and actor-call time.

The measurement is in `benchmarks/engine_cost.py`; here it is asked for, and judged: per case the median of each side,
the median over the rounds of what shoal added in each, and the middle half of those.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import shoal
from shoal.scripts.benchmarks import children, comparison, report
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import printing, say

#: Of Ray's time, that shoal may add.
GOAL_ADDED = 0.05
#: Arguments of `init` that keep the session small and quiet.
_QUIET = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 256 * 1024 * 1024}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench engine` can be told."""

    rounds: int = 40
    """Turns of Ray and of shoal in each case, of a fifth of a second each; the median counts."""

    num_cpus: int = 0
    """CPUs of the Ray session; 0: those of the machine."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


@dataclass(frozen=True)
class Cost:
    """A case. ray, shoal: seconds of one task or call, of every round."""

    name: str
    ray: Sequence[float]
    shoal: Sequence[float]

    @property
    def added(self) -> list[float]:
        """What shoal's turn took more than Ray's of the same round, as a part of that."""
        return sorted(ours / theirs - 1 for ours, theirs in zip(self.shoal, self.ray, strict=True))

    @property
    def median(self) -> float:
        """Of what was added."""
        return statistics.median(self.added)

    @property
    def middle_half(self) -> tuple[float, float]:
        """The quartiles of what was added."""
        low, _, high = statistics.quantiles(self.added, n=4) if len(self.added) > 1 else 3 * self.added
        return low, high


def table(costs: Sequence[Cost]) -> list[list[str]]:
    """The cells, with their head."""
    head = ["case", "Ray", "shoal on Ray", "added", "middle half of the rounds"]
    return [head, *(_cells(cost) for cost in costs)]


def _cells(cost: Cost) -> list[str]:
    low, high = cost.middle_half
    times = [f"{1e6 * statistics.median(side):,.0f} us" for side in (cost.ray, cost.shoal)]
    return [cost.name, *times, f"{cost.median:+.1%}", f"{low:+.1%} to {high:+.1%}"]


def verdict(costs: Sequence[Cost]) -> comparison.Verdict:
    """Whether no case is over the goal."""
    worst = max(costs, key=lambda cost: cost.median)
    text = f"at most {GOAL_ADDED:.0%} added: {worst.median:+.1%} in {worst.name}"
    return comparison.Verdict(text, worst.median <= GOAL_ADDED)


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure what the Ray engine adds to Ray's own time.")
    if options.rounds < 1 or options.num_cpus < 0:
        raise UsageError("--rounds must be at least 1, --num-cpus 0 (all of the machine) or more")
    version = report.version_of(children.Engine("ray"), "pip install 'shoal[ray]'")
    conditions = report.conditions(
        [f"shoal {shoal.__version__}", f"ray {version}"],
        f"{report.counted(options.rounds, 'round')} of each case, Ray and shoal in turn in one session",
    )
    order = {"rounds": options.rounds, "init": {"num_cpus": options.num_cpus or os.cpu_count() or 1, **_QUIET}}
    try:
        told: list[Mapping[str, Any]] = list(children.run(children.Engine("shoal"), "engine_cost.py", order))
    except children.ChildError as error:
        say(f"{prog}: {error}")
        return FAILED
    costs = [Cost(line["case"], line["ray"], line["shoal"]) for line in told]
    with printing():
        print(report.laid_out(table(costs), conditions, [str(verdict(costs))], markdown=options.markdown))
    return DONE
