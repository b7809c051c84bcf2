"""Which process has which region of the node's arena: the head's table.

Regions are whole MiB. A process asks for one to carve into small objects (a slab) or for one large object, and gives
it back by its offset. Space that was used before goes out before space that was not, the most recently used first:
its pages exist. Pure; the head's server calls it.

When a holder dies its regions are orphans: objects in them live on, owned by others or read by somebody. The head
looks into each (`allocator.Slab.open`) and releases it once nothing lives there. A large object's region comes back
from whoever frees it: its owner, or the head for an owner that is dead.

Invariant: the regions given out, the free extents and the space never used make up the arena and do not overlap; no
two free extents touch.
"""

from __future__ import annotations

from dataclasses import dataclass

UNIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of the arena that a process has."""

    offset: int
    size: int  #: bytes, a multiple of 1 MiB
    holder: bytes  #: worker id; empty for an orphan
    former: bytes = b""  #: of an orphan: who held it


@dataclass(frozen=True)
class RegionStatistics:
    """Where the arena's bytes are; the last three with `held_bytes` add up to `size_bytes`."""

    size_bytes: int
    held_bytes: int
    held_regions: int
    orphaned_bytes: int
    orphaned_regions: int
    released_bytes: int  #: free, used before
    untouched_bytes: int  #: never used


class RegionTable:
    """Hands out regions of an arena of `size_bytes`, rounded down to whole MiB."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes // UNIT_BYTES * UNIT_BYTES
        if self._size <= 0:
            raise ValueError(f"an arena has at least {UNIT_BYTES} bytes, not {size_bytes}")
        self._regions: dict[int, Region] = {}
        self._released: list[tuple[int, int]] = []  # (offset, size); the most recently released last
        self._untouched = 0  # where the space that was never used begins

    def allocate(self, size: int, holder: bytes) -> int | None:
        """The offset of a region of at least `size` bytes for `holder`; None if no piece of the arena is long enough.

        Raises:
          ValueError: `size` is not positive, or the holder's id is empty.
        """
        if size <= 0:
            raise ValueError(f"a region has a positive size, not {size}")
        if not holder:
            raise ValueError("a region has a holder; the id given is empty")
        size = (size + UNIT_BYTES - 1) // UNIT_BYTES * UNIT_BYTES
        offset = self._take(size)
        if offset is not None:
            self._regions[offset] = Region(offset, size, holder)
        return offset

    def release(self, offset: int) -> None:
        """The region is free again.

        Raises:
          ValueError: no region that is given out starts there; it was released before.
        """
        region = self._regions.pop(offset, None)
        if region is None:
            raise ValueError(f"no region starts at byte {offset}: it was never given out or was released before")
        start, end = region.offset, region.offset + region.size
        apart = []
        for other_start, other_size in self._released:
            if other_start + other_size == start:
                start = other_start
            elif other_start == end:
                end = other_start + other_size
            else:
                apart.append((other_start, other_size))
        self._released = [*apart, (start, end - start)]

    def holder_died(self, holder: bytes) -> list[Region]:
        """The regions of `holder` have none any more; returns them."""
        orphans = [
            Region(region.offset, region.size, b"", holder)
            for region in self._regions.values()
            if region.holder == holder
        ]
        for region in orphans:
            self._regions[region.offset] = region
        return orphans if holder else []

    def regions(self) -> list[Region]:
        """All regions that are given out, orphans too."""
        return list(self._regions.values())

    def statistics(self) -> RegionStatistics:
        held = [region.size for region in self._regions.values() if region.holder]
        orphaned = [region.size for region in self._regions.values() if not region.holder]
        return RegionStatistics(
            size_bytes=self._size,
            held_bytes=sum(held),
            held_regions=len(held),
            orphaned_bytes=sum(orphaned),
            orphaned_regions=len(orphaned),
            released_bytes=sum(size for _, size in self._released),
            untouched_bytes=self._size - self._untouched,
        )

    def _take(self, size: int) -> int | None:
        for index in range(len(self._released) - 1, -1, -1):
            start, length = self._released[index]
            if length >= size:
                if length == size:
                    del self._released[index]
                else:
                    self._released[index] = (start + size, length - size)
                return start
        if self._size - self._untouched < size:
            self._return_to_untouched()
        if self._size - self._untouched < size:
            return None
        start = self._untouched
        self._untouched += size
        return start

    def _return_to_untouched(self) -> None:
        """Join the free extent before the untouched space to it: together they may be long enough."""
        for index, (start, length) in enumerate(self._released):
            if start + length == self._untouched:
                self._untouched = start
                del self._released[index]
                return
