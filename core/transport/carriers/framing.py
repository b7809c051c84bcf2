"""Batches of frames in a stream of bytes, and back. Pure: no socket.

    number of frames (4 bytes) | length of the first (8) | length of each other (8 each) | the frames

A stream arrives in pieces cut anywhere. `Assembler.feed` takes a piece and gives the batches that it completes. A long
frame is not fed: as soon as its length is known, the rest of it is received straight into `target`, its memory.

Invariant: a piece that has been fed leaves no trace but the batches given out and the beginning of the next, so an
error in whoever handles the batches cannot shift the borders of those that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, unpack_from
from typing import Any, TypeAlias

from ...errors import ProtocolError

Batch: TypeAlias = "list[bytes | bytearray]"

_PREFIX = Struct("<IQ")
_PREFIX_BYTES = _PREFIX.size
_LENGTH_BYTES = 8
#: From here on a frame that is not there yet is received into its own memory: it saves the copy of most of it.
_DIRECT_BYTES = 64 * 1024
#: Far beyond what anybody sends. A number above it means that the two sides do not speak of the same thing.
_MOST_FRAMES = 1 << 24
_MOST_BYTES = 1 << 40


def prefix(frames: Sequence[Any]) -> bytes:
    """What stands before the frames of a batch: at least one, each of bytes (a memoryview of them, "B")."""
    if len(frames) == 1:
        return _PREFIX.pack(1, len(frames[0]))
    return Struct(f"<I{len(frames)}Q").pack(len(frames), *map(len, frames))


class Assembler:
    """One direction of one link, at its receiving end."""

    __slots__ = ("_current", "_filled", "_frames", "_lengths", "_limit_bytes", "_rest")

    def __init__(self, *, first_bytes: int = 0) -> None:
        """
        Args:
          first_bytes: if not 0, the first batch may not be longer, and nothing behind it is looked at until `go_on`.
        """
        self._limit_bytes = first_bytes or _MOST_BYTES
        self._rest = b""  # the beginning of a prefix; or all that stands behind the first batch
        self._lengths: list[int] = []  # of the batch that is under way, if any
        self._frames: Batch = []  # those of it that are complete
        self._current: bytearray | None = None  # the one that is not
        self._filled = 0

    @property
    def is_whole(self) -> bool:
        """Whether the stream stands between two batches."""
        return not self._rest and not self._lengths

    @property
    def target(self) -> memoryview | None:
        """Where the next bytes belong if they are the rest of a long frame: receive there, then say how many."""
        current = self._current
        if current is None or len(current) - self._filled < _DIRECT_BYTES:
            return None
        return memoryview(current)[self._filled :]

    def filled(self, count: int) -> list[Batch]:
        """`count` bytes have been received into `target`; the batch that they complete, if they do."""
        assert self._current is not None, "only after `target`"
        self._filled += count
        if self._filled < len(self._current):
            return []
        self._frames.append(self._current)
        self._current = None
        self._take(b"", 0)  # empty frames may follow, and nothing more may ever come
        return self._whole()

    def feed(self, data: bytes) -> list[Batch]:
        """The next bytes of the stream; the batches that they complete.

        Raises:
          ProtocolError: this cannot be the beginning of a batch. The stream is of no use any more.
        """
        end = len(data)
        if end >= _PREFIX_BYTES and not self._rest and not self._lengths:
            count, first = _PREFIX.unpack_from(data)
            if count == 1 and first == end - _PREFIX_BYTES:
                # One batch of one frame and nothing else: every synchronous call and answer. Saves 1.5 us of 2.
                return [[data[_PREFIX_BYTES:]]]
        batches: list[Batch] = []
        at = 0
        if self._rest:
            data, self._rest = self._rest + data, b""
            end = len(data)
        while at < end:
            if not self._lengths:
                ahead = self._open(data, at)
                if not ahead:
                    self._rest = data[at:]
                    break
                at += ahead
            at = self._take(data, at)
            batches += self._whole()
            if batches and self._limit_bytes < _MOST_BYTES:
                self._rest = data[at:]
                break
        return batches

    def go_on(self) -> list[Batch]:
        """The first batch was good: the batches behind it that are complete."""
        self._limit_bytes = _MOST_BYTES
        return self.feed(b"")

    def _open(self, data: bytes, at: int) -> int:
        """Read the prefix at `at`; returns its length, 0 if it is not all there."""
        if len(data) - at < _PREFIX_BYTES:
            return 0
        count, first = _PREFIX.unpack_from(data, at)
        if not 0 < count <= _MOST_FRAMES:
            raise ProtocolError(f"a batch of {count} frames: these are not the bytes of a batch")
        size: int = _PREFIX_BYTES + (count - 1) * _LENGTH_BYTES
        if size > self._limit_bytes:
            raise ProtocolError(f"a batch of {count} frames where only {self._limit_bytes} bytes are allowed")
        if len(data) - at < size:
            return 0
        lengths = [first] if count == 1 else [first, *unpack_from(f"<{count - 1}Q", data, at + _PREFIX_BYTES)]
        if sum(lengths) > self._limit_bytes:
            raise ProtocolError(f"a batch of {sum(lengths)} bytes where only {self._limit_bytes} are allowed")
        self._lengths = lengths
        return size

    def _take(self, data: bytes, at: int) -> int:
        """Take what `data` has, from `at` on, of the batch that is under way; returns where that ends."""
        end = len(data)
        while len(self._frames) < len(self._lengths):
            length = self._lengths[len(self._frames)]
            if self._current is not None:
                piece = data[at : at + length - self._filled]
                self._current[self._filled : self._filled + len(piece)] = piece
                self._filled += len(piece)
                at += len(piece)
                if self._filled < length:
                    break
                self._frames.append(self._current)
                self._current = None
            elif end - at >= length:
                self._frames.append(data[at : at + length])
                at += length
            else:
                self._current = bytearray(length)
                self._current[: end - at] = data[at:]
                self._filled = end - at
                at = end
                break
        return at

    def _whole(self) -> list[Batch]:
        """The batch that is under way, if it is complete."""
        if len(self._frames) < len(self._lengths):
            return []
        whole, self._frames, self._lengths = self._frames, [], []
        return [whole]
