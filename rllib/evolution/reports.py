"""What a worker tells of the pairs that it has played: some dozens of bytes each, and no vector.

    report  =  header | blocks | records | moments | last words

A record is 44 bytes: the pair's number, and for either sign its fitness (what is learned from), its return and its
length. Moments are those of the observations of a block, in float64; they are told block by block, because whoever
merges them must do it in the order of the blocks, whatever order reports come in. On their way up a tree reports are
joined into larger ones. Packed by hand: a pickled object of this kind has more bytes than its contents.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

#: One pair; of an episode of the centre, which has no sign, the second of each is NaN and 0.
RECORD = np.dtype([("pair", "<i4"), ("fitness", "<f8", 2), ("score", "<f8", 2), ("length", "<i4", 2)])
#: generation, blocks, records, numbers of a block's moments, workers replaced since the last report
_HEADER = struct.Struct("<iHIIH")


@dataclass(frozen=True)
class Report:
    """What became of some blocks of pairs."""

    generation: int
    blocks: np.ndarray  #: [b] int32, numbers of the blocks
    records: np.ndarray  #: [n] RECORD
    moments: np.ndarray  #: [b, M] float64, see ``ObservationTally``; M = 0 where nobody wants them
    replaced: int = 0  #: workers below whoever sends this that have died and were replaced since its last report
    last_death: str = ""  #: why the last of these died

    def pairs(self) -> Report:
        """Without the centre's episodes, whose numbers are negative."""
        return self._only(self.blocks >= 0, self.records["pair"] >= 0)

    def centre(self) -> Report:
        """Only the centre's episodes."""
        return self._only(self.blocks < 0, self.records["pair"] < 0)

    def _only(self, blocks: np.ndarray, records: np.ndarray) -> Report:
        return replace(self, blocks=self.blocks[blocks], records=self.records[records], moments=self.moments[blocks])

    def to_bytes(self) -> bytes:
        """As it travels."""
        width = self.moments.shape[1]
        header = _HEADER.pack(self.generation, len(self.blocks), len(self.records), width, self.replaced)
        arrays = (self.blocks.astype("<i4"), self.records, self.moments.astype("<f8"))
        return b"".join([header, *(array.tobytes() for array in arrays), self.last_death.encode()])

    @classmethod
    def from_bytes(cls, content: bytes) -> Report:
        """The inverse of ``to_bytes``."""
        generation, blocks, records, width, replaced = _HEADER.unpack_from(content)
        parts: list[np.ndarray] = []
        at = _HEADER.size
        for dtype, count in ((np.dtype("<i4"), blocks), (RECORD, records), (np.dtype("<f8"), blocks * width)):
            parts.append(np.frombuffer(content, dtype, count, at))
            at += dtype.itemsize * count
        moments = parts[2].reshape(blocks, width)
        return cls(generation, parts[0], parts[1], moments, replaced, bytes(content[at:]).decode())


def joined(reports: Sequence[Report]) -> Report:
    """Reports of one generation as one; at least one."""
    deaths = [report.last_death for report in reports if report.last_death]
    return Report(
        reports[0].generation,
        np.concatenate([report.blocks for report in reports]),
        np.concatenate([report.records for report in reports]),
        np.concatenate([report.moments for report in reports]),
        sum(report.replaced for report in reports),
        deaths[-1] if deaths else "",
    )
