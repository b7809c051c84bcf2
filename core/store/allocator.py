"""A slab: a piece of shared memory carved into blocks that describe themselves.

One process, the holder, allocates. Any process frees a block by one aligned 8-byte store into its header: no message,
no lock. The holder finds freed blocks later, a few at each allocation, by a hand that goes round the headers. When
the holder has died, another process opens the slab and goes on. This module is pure: it works on any writable buffer,
takes no lock and knows neither processes nor objects.

    slab   | block | block | ... | tail: never used since the slab was made |
    block  | header, 64 bytes | payload, a multiple of 64 bytes |
    header | word: size/64 (32 bits), state (8), magic (24) | owner (12 bytes) | serial (4) | unused |

    FREE -> WRITING (allocate) -> LIVE (seal) -> FREED (by anyone) -> FREE (holder, sweep)

Invariants:
  * Size and state share one word, so each change of a slab's structure is one store; what is prepared before it lies
    in memory that counts as free. A slab can be parsed whatever store its holder died before.
  * The word of a LIVE block is written only by whoever frees it; every other word only by the holder. So plain stores
    are enough. (They are single on every 64-bit machine: memoryview copies 8 aligned bytes.)
  * The serial is in the place that is told to others: a block that was freed, and perhaps used again, is not mistaken
    for what it was.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import NamedTuple

ALIGNMENT = 64
HEADER_BYTES = 64
OWNER_BYTES = 12

FREE = 0
WRITING = 1  #: allocated; its content is not complete, nobody else knows of it
LIVE = 2
FREED = 3  #: free, but the holder has not seen it yet

_STATES = ("FREE", "WRITING", "LIVE", "FREED")
_MAGIC = 0x5A0A1 << 40
_MAGIC_MASK = 0xFFFFFF << 40
_SIZE_MASK = 0xFFFFFFFF
_SERIALS = 1 << 32
#: What is left over when a block is split is worth a block of its own from here on.
_MIN_REST_BYTES = 2 * HEADER_BYTES
#: Headers looked at in each allocation (0.2 us each). Two would keep up with one block freed for one allocated; four
#: catch up.
_SWEEP_BLOCKS = 4
#: A full round is worth its cost once this fraction of it has been allocated since the last: 1/16.
_LAP_FRACTION = 16


def round_up(nbytes: int) -> int:
    """`nbytes` as a multiple of the alignment."""
    return (nbytes + ALIGNMENT - 1) & -ALIGNMENT


class Block(NamedTuple):
    """A header as read."""

    offset: int  #: of the header
    size: int  #: bytes, header included
    state: int
    owner: bytes  #: worker id of the object's owner
    serial: int


class Place(NamedTuple):
    """An allocated block."""

    offset: int  #: of the payload, from the start of the slab
    serial: int


@dataclass(frozen=True)
class SlabStatistics:
    """Where the bytes of a slab are; they add up to its size. Blocks that others have freed count as used until they
    are swept.
    """

    size_bytes: int
    used_bytes: int
    used_blocks: int
    free_bytes: int  #: used before, free now
    free_blocks: int
    untouched_bytes: int


def read_block(buffer: memoryview, offset: int) -> Block:
    """The header at `offset` (a multiple of 64) of `buffer` (bytes).

    Raises:
      ValueError: there is none.
    """
    word = int.from_bytes(buffer[offset : offset + 8], "little")
    state = (word >> 32) & 0xFF
    size = (word & _SIZE_MASK) * ALIGNMENT
    if word & _MAGIC_MASK != _MAGIC or state >= len(_STATES) or not size:
        raise ValueError(f"no block starts at byte {offset}: the header reads {word:#018x}")
    owner = bytes(buffer[offset + 8 : offset + 20])
    return Block(offset, size, state, owner, int.from_bytes(buffer[offset + 20 : offset + 24], "little"))


def check_live(buffer: memoryview, payload: int, serial: int) -> Block:
    """The block whose payload is at `payload`, if it still is the one that was allocated with `serial`.

    Raises:
      ValueError: it was freed, and perhaps used again since.
    """
    block = _check_allocated(buffer, payload, serial)
    _check_state(block)
    return block


def mark_freed(buffer: memoryview, payload: int, serial: int) -> Block:
    """Free a block of any slab, from any process: the one store.

    Raises:
      ValueError: as `check_live`.
    """
    block = check_live(buffer, payload, serial)
    buffer[block.offset : block.offset + HEADER_BYTES].cast("Q")[0] = _word(block.size, FREED)
    return block


def live_blocks(buffer: memoryview) -> list[Block]:
    """The LIVE blocks of a slab that nobody allocates in; none where there is no slab."""
    found: list[Block] = []
    offset = 0
    while offset < len(buffer):
        try:
            block = read_block(buffer, offset)
        except ValueError:
            break
        if block.state == LIVE:
            found.append(block)
        offset += block.size
    return found


class Slab:
    """The holder's side of a slab. Made by `create` or `open`; not safe to share between threads."""

    def __init__(self, buffer: memoryview, *, first_serial: int) -> None:
        self._bytes = buffer
        self._words = buffer.cast("Q")
        self._end = len(buffer)
        self._tail = self._end  # where the tail starts; the end if there is none
        self._hand = 0
        self._used = 0
        self._serial = first_serial % _SERIALS
        self._allocated_since_lap = 0
        # Free blocks before the tail, three ways: by size for best fit, by start and by end for joining neighbours.
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of_end: dict[int, int] = {}

    @classmethod
    def create(cls, buffer: bytearray | memoryview, *, first_serial: int = 0) -> Slab:
        """A new slab of the whole `buffer`: a multiple of 64 bytes, at least 128, aligned to 8. What it held is
        forgotten.

        Args:
          first_serial: another for each slab that is made in the same memory, for instance random.
        """
        slab = cls(_checked(buffer), first_serial=first_serial)
        slab._set(0, slab._end, FREE)
        slab._tail = 0
        return slab

    @classmethod
    def open(cls, buffer: bytearray | memoryview, *, first_serial: int = 0) -> Slab:
        """Go on with a slab whose holder has died. Blocks that it had not finished writing are free.

        A block that fills the slab and is FREED stays as it is: it is no slab's but a large object's, and whoever
        freed it gives the memory back.

        Raises:
          ValueError: `buffer` holds no slab.
        """
        slab = cls(_checked(buffer), first_serial=first_serial)
        for block in list(slab.blocks()):
            if block.state == LIVE or (block.state == FREED and block.size == slab._end):
                slab._used += 1
            else:
                slab._join(block.offset, block.size)
        slab._widen_tail()
        return slab

    def allocate(self, nbytes: int, owner: bytes, *, thorough: bool = False) -> Place | None:
        """A block for `nbytes` of payload, WRITING until `seal`; None if there is no room.

        Memory that was used before is taken before memory that was not: its pages are mapped and perhaps cached, a
        fresh page costs ten times the copy.

        Args:
          owner: 12 bytes, the worker that will free it.
          thorough: look at every header before saying None. Otherwise that is done only now and then, and some space
            that others have
            freed may be overlooked.
        """
        need = HEADER_BYTES + round_up(max(nbytes, 1))
        self.sweep(_SWEEP_BLOCKS)
        self._allocated_since_lap += 1
        place = self._take(need, owner)
        if place is None and (thorough or self._lap_is_due()):
            self.sweep_all()
            place = self._take(need, owner)
        if place is None and self._widen_tail():
            place = self._take(need, owner)
        return place

    def seal(self, place: Place) -> None:
        """The content of the block is complete: others may know of it, and free it."""
        block = read_block(self._bytes, place.offset - HEADER_BYTES)
        self._set(block.offset, block.size, LIVE)

    def free(self, place: Place) -> None:
        """As `mark_freed`, by the holder, who can use the memory again at once; also takes back a block that is not
        sealed.

        Raises:
          ValueError: as `check_live`.
        """
        block = _check_allocated(self._bytes, place.offset, place.serial)
        if block.state != WRITING:
            _check_state(block)
        self._used -= 1
        self._join(block.offset, block.size)

    def free_all_of(self, owner: bytes, *, kept: Container[int] = ()) -> int:
        """Free the LIVE blocks of an owner that has died and cannot free them; returns how many.

        Args:
          kept: offsets of payloads that somebody still reads.
        """
        found = [
            block
            for block in self.blocks()
            if block.state == LIVE and block.owner == owner and block.offset + HEADER_BYTES not in kept
        ]
        for block in found:
            self._set(block.offset, block.size, FREED)
        self.sweep_all()
        return len(found)

    def sweep(self, blocks: int) -> None:
        """Move the hand over at most `blocks` headers and make what was freed free."""
        words = self._words
        for _ in range(blocks):
            if self._hand >= self._tail:
                self._hand = 0
                self._allocated_since_lap = 0
                if not self._tail:
                    return
            word = words[self._hand >> 3]
            size = (word & _SIZE_MASK) * ALIGNMENT
            if (word >> 32) & 0xFF == FREED and size != self._end:
                self._used -= 1
                self._hand = self._join(self._hand, size)
            else:
                self._hand += size

    def sweep_all(self) -> None:
        """Look at every header once."""
        self._hand = 0
        self.sweep(self._used + len(self._by_size))

    @property
    def size_bytes(self) -> int:
        return self._end

    @property
    def is_empty(self) -> bool:
        """No block is in use, as far as the hand has seen."""
        return not self._used

    def blocks(self) -> Iterator[Block]:
        """Every block by its header, the tail included, in order of place.

        Raises:
          ValueError: a header does not parse.
        """
        offset = 0
        while offset < self._end:
            block = read_block(self._bytes, offset)
            if offset + block.size > self._end:
                raise ValueError(f"the block at byte {offset} has {block.size} bytes and would end after the slab")
            yield block
            offset += block.size

    def statistics(self) -> SlabStatistics:
        free = sum(size for size, _ in self._by_size)
        return SlabStatistics(
            size_bytes=self._end,
            used_bytes=self._tail - free,
            used_blocks=self._used,
            free_bytes=free,
            free_blocks=len(self._by_size),
            untouched_bytes=self._end - self._tail,
        )

    def _lap_is_due(self) -> bool:
        return self._allocated_since_lap * _LAP_FRACTION >= self._used + len(self._by_size)

    def _take(self, need: int, owner: bytes) -> Place | None:
        """A block of `need` bytes from the smallest free block that has them, or from the tail."""
        index = bisect_left(self._by_size, (need, 0))
        if index < len(self._by_size):
            size, offset = self._by_size[index]
            self._forget(offset, size)
        elif self._end - self._tail >= need:
            size, offset = self._end - self._tail, self._tail
        else:
            return None
        in_tail = offset == self._tail
        rest = size - need
        if rest < _MIN_REST_BYTES:
            need, rest = size, 0
        if rest:
            self._set(offset + need, rest, FREE)  # not reached yet: lies inside a block that counts as free
        self._serial = (self._serial + 1) % _SERIALS
        self._bytes[offset + 8 : offset + 24] = owner + self._serial.to_bytes(4, "little")
        self._set(offset, need, WRITING)  # the store that divides the block and takes the first part
        if in_tail:
            self._tail = offset + need
        elif rest:
            self._remember(offset + need, rest)
        self._used += 1
        return Place(offset + HEADER_BYTES, self._serial)

    def _join(self, offset: int, size: int) -> int:
        """Make the block free, one with the free blocks beside it; returns the end of the whole. The tail stays
        apart: it is not warm.
        """
        end = offset + size
        after = self._size_at.get(end)
        if after is not None:
            self._forget(end, after)
            end += after
        before = self._start_of_end.get(offset)
        if before is not None:
            self._forget(before, offset - before)
            offset = before
        self._set(offset, end - offset, FREE)
        self._remember(offset, end - offset)
        if offset < self._hand < end:
            self._hand = end  # no header is left where it pointed
        return end

    def _widen_tail(self) -> bool:
        """Give the free block before the tail to the tail; True if there was one."""
        start = self._start_of_end.get(self._tail)
        if start is None:
            return False
        self._forget(start, self._tail - start)
        self._set(start, self._end - start, FREE)
        self._tail = start
        return True

    def _remember(self, offset: int, size: int) -> None:
        insort(self._by_size, (size, offset))
        self._size_at[offset] = size
        self._start_of_end[offset + size] = offset

    def _forget(self, offset: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, offset))]
        del self._size_at[offset]
        del self._start_of_end[offset + size]

    def _set(self, offset: int, size: int, state: int) -> None:
        self._words[offset >> 3] = _word(size, state)


def _check_allocated(buffer: memoryview, payload: int, serial: int) -> Block:
    try:
        block = read_block(buffer, payload - HEADER_BYTES)
    except ValueError as error:
        raise ValueError(f"the block at byte {payload} was freed before: its header is gone") from error
    if block.serial != serial:
        raise ValueError(f"the block at byte {payload} was freed before: its place is used again")
    return block


def _check_state(block: Block) -> None:
    if block.state != LIVE:
        raise ValueError(
            f"the block at byte {block.offset + HEADER_BYTES} is {_STATES[block.state]}, not LIVE: it was freed before"
        )


def _word(size: int, state: int) -> int:
    return size // ALIGNMENT | state << 32 | _MAGIC


def _checked(buffer: bytearray | memoryview) -> memoryview:
    view = memoryview(buffer).cast("B")
    if len(view) % ALIGNMENT or len(view) < _MIN_REST_BYTES:
        raise ValueError(f"a slab has a multiple of {ALIGNMENT} bytes and at least {_MIN_REST_BYTES}, not {len(view)}")
    if view.readonly:
        raise ValueError("a slab needs a writable buffer; this one is read-only")
    return view
