"""What the figures of a benchmark say: medians, ratios, and whether the goals are reached. Pure.

    Sample (one round of a case on an engine) --> Row (a case: ours, the peer's, ratio) --> verdicts --> text, Markdown

Invariants: a ratio over 1 means that shoal is better, whether the figure is a speed or a time. Only Ray's own cases
enter the geometric mean; those that are bound by memory are judged by their ceiling and not by the floor.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Ours over Ray's: what issue 3 promises for the mean, for any single case, and for what every program waits for.
GOAL_MEAN, GOAL_CASE, GOAL_SYNC = 10.0, 3.0, 6.0
#: Of the copy into touched memory.
GOAL_CEILING = 0.8
SYNC = ("single client tasks sync", "1:1 actor calls sync")
#: Milliseconds at most.
GOALS_OF_LIFE = {
    "init": 300.0,
    "first task": 100.0,
    "100 actors started and answering": 3000.0,
    "shutdown": 500.0,
}
#: Within these the machine counts as the same for both engines.
ALIKE = (0.8, 1.25)
MILLISECONDS = "ms"


@dataclass(frozen=True)
class Subject:
    """A case, as far as its figures are concerned.

    unit: of the figures; of times, less is better. Empty: they are plain numbers.
    counts: it enters the geometric mean.
    ceiling: name of the case that bounds it; "" for none.
    is_control: it asks nothing of an engine: a ratio far from 1 says that the machine was not the same for both.
    """

    name: str
    unit: str = "/s"
    counts: bool = True
    ceiling: str = ""
    is_control: bool = False


@dataclass
class Samples:
    """What one engine gave for one case: a figure per round, or why there is none."""

    figures: list[float] = field(default_factory=list)
    trouble: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.figures) if self.figures and not self.trouble else None

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        median = self.median
        return (max(self.figures) - min(self.figures)) / median if median else 0.0


@dataclass(frozen=True)
class Row:
    """A case with what both engines gave; `theirs` is None where nothing was compared."""

    subject: Subject
    ours: Samples
    theirs: Samples | None

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, by the medians."""
        ours, theirs = self.ours.median, self.theirs.median if self.theirs else None
        return None if not ours or not theirs else self._better(ours, theirs)

    @property
    def ratios(self) -> list[float]:
        """The same for every round."""
        if self.ratio is None or self.theirs is None:
            return []
        return [self._better(*pair) for pair in zip(self.ours.figures, self.theirs.figures, strict=False)]

    def _better(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.subject.unit == MILLISECONDS else ours / theirs


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured, and whether that reaches it; None: it could not be judged."""

    text: str
    reached: bool | None

    def __str__(self) -> str:
        return f"{self.text}: {'not judged' if self.reached is None else 'reached' if self.reached else 'MISSED'}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """How the rows stand against the goals; about cases that were not run, nothing is said."""
    by_name = {row.subject.name: row for row in rows}
    told: list[Verdict] = []
    counted = [row for row in rows if row.subject.counts and row.theirs is not None]
    if counted:
        told += _against_the_peer(counted)
    for name in SYNC:
        if name in by_name and by_name[name].theirs is not None:
            ratio = by_name[name].ratio
            told.append(
                Verdict(f"{name} {_times(ratio)} (goal {GOAL_SYNC:g})", None if ratio is None else ratio >= GOAL_SYNC)
            )
    controls = {row.subject.name: ratio for row in rows if row.subject.is_control and (ratio := row.ratio) is not None}
    for name, ratio in controls.items():
        text = f"the machine gave both the same: {name} {ratio:.2f} ({ALIKE[0]:g} to {ALIKE[1]:g})"
        told.append(Verdict(text, ALIKE[0] <= ratio <= ALIKE[1]))
    told += [_against_ceiling(row, by_name) for row in rows if row.subject.ceiling in by_name]
    for name, goal in GOALS_OF_LIFE.items():
        if name in by_name:
            median = by_name[name].ours.median
            measured = "without a figure" if median is None else f"{median:,.0f} ms"
            told.append(Verdict(f"{name} {measured} (goal {goal:,.0f} ms)", None if median is None else median <= goal))
    return told


def _against_the_peer(rows: Sequence[Row]) -> list[Verdict]:
    """Of cases that count and were compared: the geometric mean, and the smallest ratio of those without a ceiling."""
    told = []
    ratios = {row.subject.name: ratio for row in rows if (ratio := row.ratio) is not None}
    if ratios:
        mean = statistics.geometric_mean(ratios.values())
        of = f"of {len(ratios)} cases" if len(ratios) == len(rows) else f"of {len(ratios)} of {len(rows)} cases"
        told.append(Verdict(f"geometric mean {of} {mean:.1f} (goal {GOAL_MEAN:g})", mean >= GOAL_MEAN))
    bounded = {row.subject.name for row in rows if row.subject.ceiling}
    if free := {name: ratio for name, ratio in ratios.items() if name not in bounded}:
        least = min(free, key=lambda name: free[name])
        told.append(
            Verdict(f"smallest ratio {free[least]:.1f}, {least} (goal {GOAL_CASE:g})", free[least] >= GOAL_CASE)
        )
    if missing := [row.subject.name for row in rows if row.ratio is None]:
        told.append(Verdict(f"without a ratio: {', '.join(missing)}", reached=None))
    return told


def _against_ceiling(row: Row, by_name: Mapping[str, Row]) -> Verdict:
    ours, ceiling = row.ours.median, by_name[row.subject.ceiling].ours.median
    if ours is None or not ceiling:
        return Verdict(f"{row.subject.name} beside its ceiling", reached=None)
    return Verdict(
        f"{row.subject.name} {ours / ceiling:.0%} of its ceiling (goal {GOAL_CEILING:.0%})",
        ours / ceiling >= GOAL_CEILING,
    )


def _times(ratio: float | None) -> str:
    return "without a ratio" if ratio is None else f"{ratio:.1f} times"


def table(rows: Sequence[Row], peer: str = "") -> list[list[str]]:
    """The cells of a table with its head; `peer` is the column of what is compared with, "" where nothing is."""
    head = ["case", "shoal", "spread"]
    if peer:
        head += [peer, "spread", "ratio", "by round"]
    return [head, *(_cells(row, compared=bool(peer)) for row in rows)]


def _cells(row: Row, *, compared: bool) -> list[str]:
    cells = [row.subject.name + ("" if row.subject.counts or not compared else " *"), *_figure(row.ours, row.subject)]
    if not compared:
        return cells
    if row.theirs is None:
        return [*cells, "", "", "", ""]
    ratio, ratios = row.ratio, row.ratios
    span = f"{min(ratios):.1f} to {max(ratios):.1f}" if len(ratios) > 1 else ""
    return [*cells, *_figure(row.theirs, row.subject), "" if ratio is None else f"{ratio:.1f}", span]


def _figure(samples: Samples, subject: Subject) -> list[str]:
    if (median := samples.median) is None:
        return [samples.trouble or "no figure", ""]
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    unit = subject.unit if subject.unit.startswith("/") or not subject.unit else f" {subject.unit}"
    return [f"{median:,.{digits}f}{unit}", f"{samples.spread:.0%}" if len(samples.figures) > 1 else ""]


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """Columns under each other, figures to the right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """The same for docs/benchmarks.md."""
    head, *body = cells
    rule = ["---", *("--:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))
