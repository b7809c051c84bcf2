"""Cases that shoal and a peer run in turn, each in a process of its own: rounds, seeds, and rows of the figures.

    Case --order--> child of each engine --{what: figure}--> Samples by (case, what, engine) --> rows of a comparison

In every round each case has its turn on shoal and then, if the peer can do it, on the peer. A round is a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.scripts.benchmarks import children, comparison, report
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject, Verdict
from shoal.scripts.command_line import UsageError
from shoal.scripts.standard_streams import printing, say


@dataclass(frozen=True)
class Case:
    """What a child is told to do; `has_peer`: the peer can do it, too."""

    name: str
    order: Mapping[str, Any]
    has_peer: bool = False


@dataclass(frozen=True)
class Suite:
    """Cases, who runs them, and what is told of them."""

    cases: Sequence[Case]
    programs: Mapping[str, str]  #: by engine: the child's file; shoal is the first, the peer the second
    told: Mapping[str, tuple[str, str]]  #: by what a child tells: (what stands behind the case's name, unit)
    counted: str = "steps_per_second"  #: of these, the figure whose ratio counts
    patience_s: float = children.PATIENCE_S  #: how long a child may be silent

    def chosen(self, only: str) -> list[Case]:
        """The cases whose names hold a text.

        Raises:
          UsageError: there is none.
        """
        if not (chosen := [case for case in self.cases if only in case.name]):
            names = "; ".join(case.name for case in self.cases)
            raise UsageError(f"--only {only!r} is in the name of no case; they are: {names}")
        return chosen

    def measure(self, chosen: Sequence[Case], engines: Sequence[children.Engine], seeds: Sequence[int]) -> list[Row]:
        """Run the rounds.

        Args:
          chosen: Of ``cases``.
          engines: shoal; and the peer, if there is one.
          seeds: Of the rounds.

        Raises:
          ChildError: a child failed.
        """
        found: dict[tuple[str, str, str], Samples] = {}
        for number, seed in enumerate(seeds, 1):
            for case in chosen:
                for engine in engines[: 2 if case.has_peer else 1]:
                    say(f"round {number} of {len(seeds)}: {case.name}, {engine.module}")
                    program, order = self.programs[engine.module], {**case.order, "seed": seed}
                    for told in children.run(engine, program, order, patience_s=self.patience_s):
                        for what, figure in told.items():
                            found.setdefault((case.name, what, engine.module), Samples()).figures.append(figure)
        ours, theirs = self.programs
        return [
            Row(
                Subject(case.name + words, unit, counts=what == self.counted),
                found[case.name, what, ours],
                found.get((case.name, what, theirs)),
            )
            for case in chosen
            for what, (words, unit) in self.told.items()
            if (case.name, what, ours) in found
        ]


def check_json(path: str) -> None:
    """Whether figures can be written there, before hours are spent on them.

    Raises:
      UsageError: its folder does not exist.
    """
    if path and not Path(path).parent.is_dir():
        raise UsageError(f"--json {path}: its folder does not exist")


def publish(
    rows: Sequence[Row], verdicts: Sequence[Verdict], peer: str, conditions: str, *, markdown: bool, json: str
) -> None:
    """Print the table, and write every figure to the file `json`, unless that is empty."""
    with printing():
        lines = [str(verdict) for verdict in verdicts]
        print(report.laid_out(comparison.table(rows, peer), conditions, lines, markdown=markdown))
    if json:
        Path(json).write_text(report.as_json(rows, verdicts, conditions) + "\n", encoding="utf-8")
