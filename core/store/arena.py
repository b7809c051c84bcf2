"""The node's shared memory: one sparse anonymous file, mapped by every process of the node.

The driver creates it and the zygote's children inherit the descriptor; there is no name in any file system, so nothing
is left when the last process is gone, however it went. What lies where is not known here (regions.py, allocator.py).

Touching a page of a sparse mapping when the machine has no memory left kills the process with SIGBUS. So a region is
backed with memory before its first use (`Arena.back`), where a lack of it is an error that can be caught. Measured:
250 us a MiB for fresh pages, 2 us for a region that has its pages. Backing reserves and does not fault in: the first
touch of a page still costs its zeroing. To fault in beforehand (MADV_POPULATE_WRITE) only moved that cost, and is not
done.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ObjectStoreFullError

#: Memory of the machine that the store leaves to others when it grows.
_RESERVE_BYTES = 128 << 20
#: Regions are multiples of it.
_UNIT_BYTES = 1 << 20


class Arena:
    """A shared mapping. Made by `create` in the driver and by `attach` everywhere else."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._view = memoryview(mmap.mmap(fd, size))  # MAP_SHARED, readable and writable, by default
        self._address = _address(np.frombuffer(self._view, np.uint8))
        self._closed = False
        #: For each MiB, whether it is known to have its memory: nothing ever takes it away again. To ask the kernel
        #: (`_is_backed`) costs 15 ms for 800 MB, a third of their copy.
        self._known = bytearray(-(-size // _UNIT_BYTES))

    @classmethod
    def create(cls, size_bytes: int) -> Arena:
        """A new arena of `size_bytes`, none of them backed by memory yet.

        Raises:
          ValueError: the size is not positive.
          OSError: the system refuses it.
        """
        if size_bytes <= 0:
            raise ValueError(f"an arena has a positive size, not {size_bytes}")
        fd = _anonymous_file()
        try:
            os.ftruncate(fd, size_bytes)
            return cls(fd, size_bytes)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Arena:
        """The arena behind `fd`, which this object owns from now on."""
        return cls(fd, os.fstat(fd).st_size)

    @property
    def fd(self) -> int:
        """The descriptor, to pass to other processes. Not inherited over exec unless passed."""
        return self._fd

    @property
    def view(self) -> memoryview:
        """All of it, writable, format "B"."""
        return self._view

    @property
    def size_bytes(self) -> int:
        return len(self._view)

    def back(self, offset: int, size: int) -> None:
        """Make sure that memory exists for a region before it is touched.

        Raises:
          ObjectStoreFullError: the machine has not enough.
        """
        first, end = offset // _UNIT_BYTES, -(-(offset + size) // _UNIT_BYTES)
        if self._known.find(0, first, end) < 0:
            return
        if hasattr(os, "posix_fallocate") and not self._is_backed(offset, size):
            self._fill(offset, size)
        if not (offset % _UNIT_BYTES or size % _UNIT_BYTES):  # else the rest of its last MiB is not known
            self._known[first:end] = b"\1" * (end - first)

    def _fill(self, offset: int, size: int) -> None:
        """Take memory from the machine."""
        available = _available_bytes()
        if available is not None and available < size + _RESERVE_BYTES:
            raise ObjectStoreFullError(
                f"the machine has {available >> 20} MiB of memory left, too little to add {size >> 20} MiB to the "
                "object store; drop refs to objects that are not needed, or start fewer processes"
            )
        try:
            os.posix_fallocate(self._fd, offset, size)
        except OSError as error:
            raise ObjectStoreFullError(
                f"the machine has no memory to back {size >> 20} MiB of the object store ({error.strerror}); "
                "drop refs to objects that are not needed, or start fewer processes"
            ) from error

    def private_view(self, part: np.ndarray[Any, np.dtype[np.uint8]]) -> memoryview | None:
        """A part of the arena, mapped once more: what is written there is seen in this view alone.

        Pages that nobody has written to are still the arena's, so `part` must stay as it is while the view lives.

        Returns:
          None if `part` lies elsewhere, or cannot be mapped.
        """
        offset = _address(part) - self._address
        if self._closed or not 0 <= offset <= self.size_bytes - part.nbytes or not part.nbytes:
            return None
        before = offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapping = mmap.mmap(
                self._fd,
                before + part.nbytes,
                flags=mmap.MAP_PRIVATE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
                offset=offset - before,
            )
        except OSError:  # the system's limit of mappings
            return None
        return memoryview(mapping)[before:]

    def close(self) -> None:
        """Let go of the mapping. Views that are still held stay valid; the mapping goes with the last of them. Twice
        is harmless.
        """
        if self._closed:
            return
        self._closed = True
        os.close(self._fd)
        # Not release(), which fails while there are views, nor a reference kept: what is left of a session is cyclic,
        # and all its memory would stay until Python looks for cycles.
        self._view = memoryview(b"")

    def _is_backed(self, offset: int, size: int) -> bool:
        try:
            return os.lseek(self._fd, offset, os.SEEK_HOLE) >= offset + size
        except OSError:  # a file system that cannot tell where its holes are: it is asked to fill them, needed or not
            return False


def _address(array: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):  # Linux
        return os.memfd_create("shoal", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix="shoal-") as file:  # its name is removed before this returns
        return os.dup(file.fileno())


def _available_bytes() -> int | None:
    """Memory that the machine can still give without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None
