"""Which pairs make up the batch that a generation learns from. A table; who asks and waits is ``algorithms/evolution``.

    begin(generation) ... add(report), add(report), ... is_full ... take()

With the rule *wait* a batch is the pairs of its generation, all of them, in their order: the same bits each time. With
the others it is full as soon as enough pairs have come, whichever they are, and more are asked for than are needed.
Those that come later are stragglers: *discard* drops them, *next* puts them into the next batch, if they come in time
for it: their noise is that of the generation in which they were tried, though the centre has moved since. Whatever
comes later still is dropped. Nothing is dropped without being counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .reports import RECORD, Report

Rule = Literal["wait", "next", "discard"]


@dataclass(frozen=True)
class PairBatch:
    """Pairs, by generation and number."""

    generations: np.ndarray  #: [N] int64, in which each was tried
    records: np.ndarray  #: [N] RECORD
    moments: tuple[np.ndarray, ...]  #: of the observations of each block that has come, by generation and number


class PairBook:
    """What has come of pairs.

    Args:
      num_pairs: N of a batch, at least.
      rule: What becomes of stragglers.
    """

    def __init__(self, num_pairs: int, rule: Rule) -> None:
        self._num_pairs, self._rule = num_pairs, rule
        self._generation = 0
        self._taken: list[tuple[int, np.ndarray]] = []  # generation and records of each part
        self._count = 0
        self._moments: dict[tuple[int, int], np.ndarray] = {}
        self._late: list[Report] = []
        self.used_late = 0  #: pairs so far that were learned from in the generation after theirs
        self.discarded = 0  #: pairs so far that were tried and not learned from

    @property
    def is_full(self) -> bool:
        """Whether there are enough pairs for a batch."""
        return self._count >= self._num_pairs

    def begin(self, generation: int) -> None:
        """Pairs of this generation come from now on; those of the one before are stragglers."""
        self._generation = generation
        late, self._late = self._late, []
        for report in late:
            self.add(report)

    def add(self, report: Report) -> None:
        """Some pairs have come, or none."""
        lag = self._generation - report.generation
        if self.is_full and lag == 0 and self._rule == "next":
            self._late.append(report)
            return
        if self.is_full or lag > (self._rule == "next"):
            self.discarded += len(report.records)
            return
        self.used_late += len(report.records) * (lag > 0)
        self._taken.append((report.generation, report.records))
        self._count += len(report.records)
        for block, moments in zip(report.blocks.tolist(), report.moments, strict=True):
            self._moments[report.generation, block] = moments

    def take(self) -> PairBatch:
        """The batch; another one begins. At least one pair must have come."""
        generations = np.concatenate([np.full(len(records), number, np.int64) for number, records in self._taken])
        records = np.concatenate([part for _, part in self._taken]).astype(RECORD)
        order = np.lexsort((records["pair"], generations))
        moments = tuple(self._moments[key] for key in sorted(self._moments))
        self._taken, self._count, self._moments = [], 0, {}
        return PairBatch(generations[order], records[order], moments)
