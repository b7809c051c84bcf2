"""The head inherits the memory of what dead processes owned: carries out what the table of orphans decides.

    a process dies -> ProcessDied to all -> OrphansHeld from each -> settled: OwnerGone to all, and a sweep here;
                      BlocksLeft to those for whom it has made something (estate.py)
    HoldOrphan -> BorrowAdded;  ReleaseOrphan, DropResult -> the block is freed by the one store that frees it

Blocks in the slabs of living processes are freed by those, which alone may walk their headers; blocks in regions of the
dead, which nobody changes any more, and large objects, by the head. So each block has one who frees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..protocol import messages as m
from ..protocol.specs import Location
from ..store.allocator import FREED, HEADER_BYTES, LIVE, live_blocks, mark_freed, read_block
from ..store.regions import RegionTable
from ..transport.loop import Loop
from .estate import left_to_the_living
from .orphans import OrphanTable


class Inheritance:
    """What becomes of the objects of the dead on one node."""

    def __init__(
        self,
        loop: Loop,
        regions: RegionTable,
        memory: memoryview,
        *,
        members: Callable[[], set[bytes]],
        release_region: Callable[[int], None],
        drain: Callable[[], object],
    ) -> None:
        """
        Args:
          members: the living processes.
          release_region: gives a region back to the node.
          drain: gives back the slabs of the dead in which nothing lives any more.
        """
        self._loop = loop
        self._regions = regions
        self._memory = memory
        self._members = members
        self._release_region = release_region
        self._drain = drain
        self.orphans = OrphanTable(lambda process: process in members())
        loop.on(m.OrphansHeld, self._orphans_held)
        loop.on(m.HoldOrphan, self._hold_orphan)
        loop.on(m.ReleaseOrphan, self._release_orphan)
        loop.on(m.DropResult, lambda peer, message: self._free([message.place]))  # a large one: no slab

    def process_died(self, process: bytes) -> None:
        """A process is dead and no member any more; the others are being told."""
        self.orphans.died(process, self._members())
        self._settle()

    def _orphans_held(self, peer: bytes, message: m.OrphansHeld) -> None:
        self.orphans.answered(message.process, peer, message.held)
        self._settle()

    def _hold_orphan(self, peer: bytes, message: m.HoldOrphan) -> None:
        self.orphans.hold(peer, message.object_id, message.place)
        self._loop.send(peer, m.BorrowAdded(message.object_id, peer))

    def _release_orphan(self, peer: bytes, message: m.ReleaseOrphan) -> None:
        place = self.orphans.release(peer, message.object_id)
        if place is not None:
            self._free([place])
            self._drain()

    def _settle(self) -> None:
        settled, freed = self.orphans.settle()
        self._free(freed)
        if settled:
            kept = self.orphans.kept()
            self._sweep(kept)
            self._drain()
            for member in self._members():
                for process in settled:
                    self._loop.send(member, m.OwnerGone(process, sorted(kept)))
            for process, owner, blocks in left_to_the_living(
                settled, self._regions.regions(), self._memory, self._members()
            ):
                self._loop.send(owner, m.BlocksLeft(process, blocks))

    def _sweep(self, kept: set[int]) -> None:
        """Free what the settled dead owned in regions without holder, and their large objects."""
        for region in self._regions.regions():
            memory = self._memory[region.offset : region.offset + region.size]
            try:
                first = read_block(memory, 0)
            except ValueError:
                continue  # given out a moment ago: nothing was written there yet
            is_large = first.size == region.size
            if region.holder and not is_large:
                continue
            for block in [first] if is_large else live_blocks(memory):
                payload = region.offset + block.offset + HEADER_BYTES
                if block.state == LIVE and self._is_nobodys(block.owner) and payload not in kept:
                    self._free([(payload, block.serial, 0, (), is_large)])
                elif is_large and block.state == FREED and not region.holder and self._is_nobodys(block.owner):
                    self._release_region(region.offset)  # its owner died before it could say so

    def _is_nobodys(self, owner: bytes) -> bool:
        return owner not in self._members() and not self.orphans.is_gathering(owner)

    def _free(self, places: Iterable[Location]) -> None:
        for offset, serial, _, _, is_large in places:
            try:
                mark_freed(self._memory, offset, serial)
            except ValueError:
                continue  # its owner had freed it before it died, or whoever made it has dropped it
            if is_large:
                self._release_region(offset - HEADER_BYTES)
