"""A pipe to oneself: a byte in it ends the wait of whoever drives the loop, or that of the background thread.

Invariant: who wakes after having noted something down (a post) is noticed. `drain` empties the pipe and then clears the
flag: one who still sees the flag has noted it down before the driver, which comes next to the notes, looks at them; one
who sees it cleared writes a byte that is not drained here.
"""

from __future__ import annotations

import contextlib
import os


class WakePipe:
    """Both its ends."""

    def __init__(self) -> None:
        #: To be watched; `drain` when it can be read.
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._write, False)
        self._is_woken = False

    def wake(self) -> None:
        """In any thread. Once is enough until it has been noticed."""
        if not self._is_woken:
            self._is_woken = True
            # The pipe is full, so the poll will end; or it has been closed, so nobody polls.
            with contextlib.suppress(OSError):
                os.write(self._write, b"\0")

    def drain(self) -> None:
        """The driver has noticed."""
        with contextlib.suppress(BlockingIOError):  # another's bytes were read together with ours
            os.read(self.descriptor, 4096)
        self._is_woken = False

    def close(self) -> None:
        self._is_woken = True  # nobody writes any more
        os.close(self.descriptor)
        os.close(self._write)
