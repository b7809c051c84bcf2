r"""What workers print, on its way to the driver: two steps, and how each marks what belongs to whom.

    worker  --pipe-->  head    bytes as they were written; a worker says in between whose the next ones are:
                               mark + "<pid> <title>\n", in one write with the text behind it
    head  --socket-->  driver  frames: (number of the worker, stream, length), bytes; length 0: the stream has ended

The mark is made from the session's token: nobody prints it by chance, and who sees it learns nothing. Pure.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator

STDOUT, STDERR = 1, 2

_FRAME = struct.Struct("!IBI")
#: Longest title: what is longer is cut.
_TITLE_LENGTH = 200


def mark_of(token: bytes) -> bytes:
    """The mark of the session that has this token."""
    return b"\0" + hashlib.sha256(b"worker output" + token).hexdigest()[:16].encode() + b":"


def announcement(mark: bytes, pid: int, title: str) -> str:
    """What a worker writes before text of `title`. To be encoded as UTF-8."""
    return f"{mark.decode()}{pid} {' '.join(title[:_TITLE_LENGTH].split())}\n"


def without_marks(mark: bytes, data: bytes) -> bytes:
    """What user code has written."""
    return re.sub(re.escape(mark) + rb"[^\n]*\n", b"", data)


def frame(worker: int, stream: int, data: bytes) -> bytes:
    """Bytes of a worker's stream, for `Frames` at the other side."""
    return _FRAME.pack(worker, stream, len(data)) + data


class Frames:
    """Takes frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(worker, stream, bytes) of each frame that `data` completes."""
        left = self._left
        left += data
        at = 0
        while len(left) - at >= _FRAME.size:
            worker, stream, length = _FRAME.unpack_from(left, at)
            end = at + _FRAME.size + length
            if len(left) < end:
                break
            yield worker, stream, bytes(left[at + _FRAME.size : end])
            at = end
        del left[:at]
