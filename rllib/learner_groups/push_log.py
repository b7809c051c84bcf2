"""What a parameter server's shard must not lose, on disk: a snapshot, and every entry since, written before its answer.

    directory/  snapshot.G.npz     the state after all entries of generations before G; none in generation 0
                entries.G          frames: length u32, CRC u32, entry. Appended, in the order in which they were taken
                lives              a byte for each process that has recovered from here

A snapshot is written under another name and renamed, which is the moment at which generation G + 1 begins; the files
of G are removed after it. So at each moment the files of one generation are whole, and ``recover`` takes the newest.

Dying. ``kill -9`` in the middle of an entry leaves half a frame at the end: nobody was told that it is in, and it is
cut off. A frame that is damaged before the end is an error.

fsync: there is none, for an entry as for a snapshot and its rename. What was handed to the kernel survives the process,
not the machine; to wait for the disk would cost its latency for each gradient, and a machine's death is what the run's
checkpoints are for. Locks: there are none, either. One process writes at a time, because the runtime starts a shard's
successor when the one before is dead, and each server has a directory that nobody had before (``mkdir``). Where a node
is only out of reach and its shard lives on beside a successor, as may be on a cluster, it appends to a file that the
successor does not read again: what it acknowledges then is lost, and nobody who can reach the successor hears it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .parameter_shard import Commit, Entry, Push

_FRAME = struct.Struct("<II")  # length of the entry, CRC-32 of it
_PUSH = struct.Struct("<cqqqd")  # kind, learner, step, rows, learning_rate; the gradient behind it
_COMMIT = struct.Struct("<cqd")  # kind, step, scale
_GIVE_UP = struct.Struct("<cq")  # kind, step


class DamagedLogError(RuntimeError):
    """A log of pushes has an entry in its middle that is not what was written. The disk, or somebody else's hand."""


class PushLog:
    """The log in a directory.

    Args:
      directory: Must exist, on a disk that a successor of this process sees, too.

    Attributes:
      lives: How many processes have called ``recover``, this one included.

    Raises:
      FileNotFoundError: there is no such directory.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise FileNotFoundError(
                f"there is no directory {directory} for the log of a parameter server's shard; on a cluster, name one "
                f"that all nodes share"
            )
        self._directory = directory
        snapshots = [int(path.name.split(".")[1]) for path in directory.glob("snapshot.*.npz")]
        self._generation = max(snapshots, default=0)
        self.lives = 0
        self._file: BinaryIO | None = None

    def recover(self) -> tuple[dict[str, np.ndarray] | None, list[Entry]]:
        """The last snapshot (None: none was made) and the entries since; half an entry at the end is cut off. To be
        called once, before anything is written.

        Raises:
          DamagedLogError: an entry before the end is damaged.
        """
        with (self._directory / "lives").open("ab") as file:
            file.write(b"+")
            self.lives = file.tell()
        arrays = None
        if self._generation:
            with np.load(self._snapshot(self._generation), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        path = self._entries(self._generation)
        current = (path.name, self._snapshot(self._generation).name, "lives")
        for left in list(self._directory.iterdir()):
            if left.name not in current:
                left.unlink()  # of one that died in the middle of ``snapshot``
        content = path.read_bytes() if path.exists() else b""
        entries: list[Entry] = []
        position = 0
        while (frame := _frame(content, position)) is not None:
            body, position = frame
            entries.append(_decoded(body))
        if position < len(content):
            if _is_damaged(content, position):
                raise DamagedLogError(f"{path} is damaged at byte {position}, behind {len(entries)} entries")
            os.truncate(path, position)
        return arrays, entries

    def append(self, entry: Entry) -> None:
        """Write an entry; it survives this process from now on.

        Raises:
          OSError: the disk is full, for instance. Nothing of the entry is kept.
        """
        if self._file is None:
            self._file = self._entries(self._generation).open("ab", buffering=0)
        body = _encoded(entry)
        start = self._file.seek(0, os.SEEK_END)
        content = memoryview(_FRAME.pack(len(body), zlib.crc32(body)) + body)
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            self._file.truncate(start)
            error.filename = str(self._entries(self._generation))  # which a write does not say
            raise

    def snapshot(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Begin anew from this state; the entries before are in it."""
        following = self._generation + 1
        unfinished = self._directory / "unfinished.npz"
        np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        os.replace(unfinished, self._snapshot(following))  # here the generation begins
        self.close()
        self._snapshot(self._generation).unlink(missing_ok=True)
        self._entries(self._generation).unlink(missing_ok=True)
        self._generation = following

    def close(self) -> None:
        """Close the file; what follows opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _snapshot(self, generation: int) -> Path:
        return self._directory / f"snapshot.{generation}.npz"

    def _entries(self, generation: int) -> Path:
        return self._directory / f"entries.{generation}"


def _encoded(entry: Entry) -> bytes:
    if isinstance(entry, Push):
        header = _PUSH.pack(b"p", entry.learner, entry.step, entry.rows, entry.learning_rate)
        return header + np.ascontiguousarray(entry.gradient, np.float32).tobytes()
    return _GIVE_UP.pack(b"g", entry.step) if entry.scale is None else _COMMIT.pack(b"c", entry.step, entry.scale)


def _decoded(body: bytes) -> Entry:
    if body[:1] == b"p":
        _, learner, step, rows, learning_rate = _PUSH.unpack_from(body)
        return Push(learner, step, rows, learning_rate, np.frombuffer(body, np.float32, offset=_PUSH.size))
    if body[:1] == b"g":
        return Commit(_GIVE_UP.unpack(body)[1], None)
    return Commit(*_COMMIT.unpack(body)[1:])


def _frame(content: bytes, position: int) -> tuple[bytes, int] | None:
    """The entry at a position and where the next begins; None: no whole entry is there."""
    if position + _FRAME.size > len(content):
        return None
    length, checksum = _FRAME.unpack_from(content, position)
    end = position + _FRAME.size + length
    body = content[position + _FRAME.size : end]
    return None if len(body) < length or zlib.crc32(body) != checksum else (body, end)


def _is_damaged(content: bytes, position: int) -> bool:
    """Whether the entry at a position is all there, and yet not what its checksum is of. A file that is written from
    front to back by a process that dies is short, never wrong.
    """
    if position + _FRAME.size > len(content):
        return False
    length, _ = _FRAME.unpack_from(content, position)
    return bool(position + _FRAME.size + length <= len(content))
