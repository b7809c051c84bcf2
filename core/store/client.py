"""A process's access to the node's objects: puts its own without asking anybody, sees and frees those of all.

`put` copies a value into memory that this process holds and returns the `Location`, which travels with the result;
`view` gives the bytes in place; `free` is one store. Only a full slab costs a message: the process asks the head for
another region, and gives regions back that are wholly free.

Threads: every method may be called from any thread. The lock covers only the bookkeeping of the slabs; it is never
held while bytes are copied or while `request_region` and `release_region` run, for these may wait for a loop that
calls `free`.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, cast

import numpy as np

from ..errors import ObjectFreedError, ObjectStoreFullError
from ..serialization.values import Serialized
from .allocator import HEADER_BYTES, Place, Slab, check_live, mark_freed, round_up
from .arena import Arena
from .copying import copy
from .regions import UNIT_BYTES

SLAB_BYTES = 32 << 20
#: An object over this fraction of a slab gets a region of its own.
_DEDICATED_FRACTION = 4

_Array = np.ndarray[Any, Any]


class Location(NamedTuple):
    """Where an object lies on its node. Travels as a plain tuple."""

    offset: int  #: of its first byte in the arena
    serial: int  #: tells it from what lay and will lie there
    data_bytes: int
    buffer_bytes: tuple[int, ...]
    is_dedicated: bool  #: it has a region of its own

    @classmethod
    def from_wire(cls, fields: Sequence[Any]) -> Location:
        """The location whose fields arrived, as a list perhaps."""
        offset, serial, data_bytes, buffer_bytes, is_dedicated = fields
        return cls(offset, serial, data_bytes, tuple(buffer_bytes), is_dedicated)

    @property
    def nbytes(self) -> int:
        """Bytes of content, without what alignment adds."""
        return self.data_bytes + sum(self.buffer_bytes)


@dataclass(frozen=True)
class StoreStatistics:
    """What this process holds of the arena, and what it looks at."""

    slabs: int
    slab_bytes: int
    used_bytes: int  #: in slabs; objects that others have freed count until they are swept
    views: int  #: objects that something in this process still sees


class StoreClient:
    """The object store, as one process sees it.

    Args:
      arena: the node's.
      holder: worker id of this process.
      request_region: size in bytes -> offset of a region that is now this process's; may block; raises
        ObjectStoreFullError.
      release_region: offset of a region that this process gives back, or frees an object in.
      slab_bytes: size of the regions for small objects, a multiple of 1 MiB.
    """

    def __init__(
        self,
        arena: Arena,
        holder: bytes,
        request_region: Callable[[int], int],
        release_region: Callable[[int], None],
        *,
        slab_bytes: int = SLAB_BYTES,
    ) -> None:
        if slab_bytes <= 0 or slab_bytes % UNIT_BYTES:
            raise ValueError(f"a slab has a positive multiple of {UNIT_BYTES} bytes, not {slab_bytes}")
        self.holder = holder
        self._arena = arena
        self._bytes = arena.view
        self._seen = arena.view.toreadonly()
        self._request_region = request_region
        self._release_region = release_region
        self._slab_bytes = slab_bytes
        self._lock = threading.Lock()
        self._slabs: dict[int, Slab] = {}  # by offset in the arena
        self._bases: list[int] = []  # their offsets, sorted
        self._current = 0  # offset of the slab that gave room last
        self._views: dict[int, _Watch] = {}
        self._view_numbers = count()
        self._closed = False

    def put(self, serialized: Serialized, owner: bytes) -> Location:
        """Copy a value into shared memory.

        Args:
          owner: 12 bytes, the worker that will free it.

        Raises:
          ObjectStoreFullError: no room in the arena, or no memory in the machine.
        """
        self._check_open()
        lengths = tuple(buffer.nbytes for buffer in serialized.buffers)
        total = round_up(len(serialized.data)) + sum(map(round_up, lengths))
        is_dedicated = total > self._slab_bytes // _DEDICATED_FRACTION
        base, slab, place = self._dedicate(total, owner) if is_dedicated else self._allocate(total, owner)
        offset = base + place.offset
        try:
            self._copy(serialized, offset)
        except BaseException:
            # An interrupt while bytes are copied: nobody knows of the block yet, so it would be lost.
            self._abandon(base, slab, place, is_dedicated=is_dedicated)
            raise
        slab.seal(place)  # without the lock: until this store only this thread may touch the block
        return Location(offset, place.serial, len(serialized.data), lengths, is_dedicated)

    def view(self, location: Location, on_release: Callable[[], None]) -> tuple[memoryview, list[memoryview]]:
        """The object's bytes in place, read-only: its data and its buffers.

        Args:
          on_release: called once, when the last of the views, of what they are sliced into and of the arrays made of
            them is gone. In any
            thread, wherever Python collects garbage: it may append to a deque and nothing more.

        Raises:
          ObjectFreedError: the object is not there any more.
        """
        self._check_open()
        try:
            check_live(self._seen, location.offset, location.serial)
        except ValueError as error:
            raise ObjectFreedError(f"no object is at {location}: {error}") from error
        ends = _ends(location)
        # An array exports the bytes, because Python classes can export buffers from 3.12 only; a memoryview keeps its
        # exporter alive.
        exporter = np.frombuffer(self._seen[location.offset : location.offset + max(ends[-1], 1)], np.uint8)
        number = next(self._view_numbers)
        self._views[number] = _Watch(exporter, self._views, number, on_release)
        whole = memoryview(cast("bytes", exporter))  # an ndarray is a buffer, which types can say from Python 3.12
        starts = [0, *map(round_up, ends[:-1])]
        data, *buffers = (whole[start:end] for start, end in zip(starts, ends, strict=True))
        return data, buffers

    def free(self, location: Location) -> None:
        """The object is not needed any more. By its owner, once, from any process of the node, whoever put it.

        Raises:
          ValueError: it was freed before.
        """
        self._check_open()
        if location.is_dedicated:
            with self._lock:  # two threads that free the same object must not both find it live
                mark_freed(self._bytes, location.offset, location.serial)
            self._release_region(location.offset - HEADER_BYTES)
            return
        with self._lock:
            base = self._base_of(location.offset)
            if base is None:
                mark_freed(self._bytes, location.offset, location.serial)
                return
            self._slabs[base].free(Place(location.offset - base, location.serial))
            surplus = self._take_surplus() if self._slabs[base].is_empty else []
        self._give_back(surplus)

    def free_unread(self, location: Location) -> bool:
        """`free` for an object of a dead owner that nobody knows of; False if it is gone already, or a large one,
        which is the head's to free.
        """
        return not location.is_dedicated and self.free_if_live(location)

    def free_if_live(self, location: Location) -> bool:
        """`free`; False if it was freed before, perhaps with all that its owner had."""
        try:
            self.free(location)
        except ValueError:
            return False
        return True

    def trim(self) -> int:
        """Look at everything that others have freed and give slabs back that are wholly free, but for one; returns
        their bytes.
        """
        with self._lock:
            for slab in self._slabs.values():
                slab.sweep_all()
            surplus = self._take_surplus()
        self._give_back(surplus)
        return len(surplus) * self._slab_bytes

    def owner_died(self, owner: bytes, kept: Iterable[int] = ()) -> int:
        """Free what `owner` owned in the slabs of this process; returns the number of objects. Their large objects
        are the head's to free.

        Args:
          kept: offsets in the arena of objects that somebody still reads.
        """
        places = set(kept)
        with self._lock:
            freed = 0
            for base, slab in self._slabs.items():
                here = {offset - base for offset in places if 0 <= offset - base < slab.size_bytes}
                freed += slab.free_all_of(owner, kept=here)
            surplus = self._take_surplus()
        self._give_back(surplus)
        return freed

    def statistics(self) -> StoreStatistics:
        with self._lock:
            slabs = [slab.statistics() for slab in self._slabs.values()]
        return StoreStatistics(
            slabs=len(slabs),
            slab_bytes=sum(slab.size_bytes for slab in slabs),
            used_bytes=sum(slab.used_bytes for slab in slabs),
            views=len(self._views),
        )

    def close(self) -> None:
        """Let go of the arena. Views stay valid while they are held. Regions stay this process's until the head sees
        it die.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._slabs.clear()
            self._bases.clear()
            self._bytes = self._seen = memoryview(b"")  # each would keep the mapping
        self._arena.close()

    # ---- room

    def _allocate(self, nbytes: int, owner: bytes) -> tuple[int, Slab, Place]:
        with self._lock:
            found = self._find_room(nbytes, owner, thorough=False)
        if found is not None:
            return found
        try:
            base, slab = self._new_slab(self._slab_bytes)
        except ObjectStoreFullError:
            with self._lock:
                found = self._find_room(nbytes, owner, thorough=True)
            if found is None:
                raise
            return found
        with self._lock:
            place = slab.allocate(nbytes, owner)
            self._add(base, slab)
        if place is None:
            raise AssertionError(f"a new slab of {self._slab_bytes} bytes has no room for {nbytes}")
        return base, slab, place

    def _find_room(self, nbytes: int, owner: bytes, *, thorough: bool) -> tuple[int, Slab, Place] | None:
        """Room in one of the slabs, asked in turn from the one that gave room last."""
        start = bisect_right(self._bases, self._current) - 1
        for index in range(len(self._bases)):
            base = self._bases[(start + index) % len(self._bases)]
            slab = self._slabs[base]
            place = slab.allocate(nbytes, owner, thorough=thorough)
            if place is not None:
                self._current = base
                return base, slab, place
        return None

    def _dedicate(self, nbytes: int, owner: bytes) -> tuple[int, Slab, Place]:
        size = -(-(nbytes + HEADER_BYTES) // UNIT_BYTES) * UNIT_BYTES
        base, slab = self._new_slab(size)
        # All of it: one block over the whole region is how a large object is told from a slab.
        place = slab.allocate(size - HEADER_BYTES, owner)
        if place is None:
            raise AssertionError(f"a new region of {size} bytes has no room for {nbytes}")
        return base, slab, place

    def _new_slab(self, size: int) -> tuple[int, Slab]:
        try:
            base = self._request_region(size)
        except ObjectStoreFullError:
            if not self.trim():
                raise
            base = self._request_region(size)
        try:
            self._arena.back(base, size)
        except ObjectStoreFullError:
            self._release_region(base)
            raise
        return base, Slab.create(self._bytes[base : base + size], first_serial=_random_serial())

    def _add(self, base: int, slab: Slab) -> None:
        self._slabs[base] = slab
        insort(self._bases, base)
        self._current = base

    def _base_of(self, offset: int) -> int | None:
        """The slab of this process that holds `offset`."""
        index = bisect_right(self._bases, offset) - 1
        if index < 0:
            return None
        base = self._bases[index]
        return base if offset < base + self._slabs[base].size_bytes else None

    def _take_surplus(self) -> list[int]:
        """Remove the wholly free slabs but one, and say which; a process that puts and frees in turn keeps its warm
        one.
        """
        empty = [base for base in self._bases if self._slabs[base].is_empty]
        surplus = [base for base in empty if base != self._current] if self._current in empty else empty[1:]
        for base in surplus:
            del self._slabs[base]
            self._bases.remove(base)
        return surplus

    def _give_back(self, regions: list[int]) -> None:
        for region in regions:
            self._release_region(region)

    def _abandon(self, base: int, slab: Slab, place: Place, *, is_dedicated: bool) -> None:
        if is_dedicated:
            self._release_region(base)
            return
        with self._lock:
            slab.free(place)

    # ---- bytes

    def _copy(self, serialized: Serialized, offset: int) -> None:
        contents: list[bytes | memoryview] = [serialized.data, *serialized.buffers]
        for content in contents:
            nbytes = len(content)
            copy(self._bytes[offset : offset + nbytes], content)
            offset += round_up(nbytes)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the object store of this process is closed")


class _Watch(weakref.ref[_Array]):
    """Waits for the end of an exporter. Keeps itself alive in `table` until then."""

    __slots__ = ("number", "on_release", "table")

    def __new__(cls, exporter: _Array, *_: object) -> _Watch:
        return super().__new__(cls, exporter, _released)

    def __init__(
        self, _exporter: _Array, table: dict[int, _Watch], number: int, on_release: Callable[[], None]
    ) -> None:
        self.table = table
        self.number = number
        self.on_release = on_release


def _released(watch: Any) -> None:
    del watch.table[watch.number]
    watch.on_release()


def _ends(location: Location) -> list[int]:
    """Where the data and each buffer end, from the object's first byte."""
    end = location.data_bytes
    ends = [end]
    for nbytes in location.buffer_bytes:
        end = round_up(end) + nbytes
        ends.append(end)
    return ends


def _random_serial() -> int:
    return int.from_bytes(os.urandom(4), "little")
