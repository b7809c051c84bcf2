"""What drives the loop while user code runs: a thread of its own, in one of two ways.

    standby.py    sleeps in the kernel until something comes, then does one round: where the carrier is one descriptor
    takeover.py   takes the drive after a while and blocks in poll with it: everywhere else

Both begin only when user code has kept away from the loop for `background_s`: who waits often sees to everything
themselves, and a thread that competes with them for Python's lock costs more than it brings.

What a background thread promises, whoever else comes and goes:

  * While nobody drives, what arrives, a timer that is due and what is to be done `soon` are seen to within about
    `background_s` of their time; what has merely been posted, within 0.1 s, or within a second while user code blocks
    an event loop that had slept (`Loop.has_turns`).
  * It never holds the drive for long against somebody who wants it.
  * An error of ours that it runs into is told (`Loop.on_fault`) before the thread ends with it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Loop

#: How long posts that are not urgent may wait while user code runs.
SLOW_S = 0.1


class Background(ABC):
    """The thread, and what the loop tells it."""

    def __init__(self, loop: Loop, background_s: float) -> None:
        self._loop = loop
        self._background_s = background_s
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="shoal-io", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The loop is closed: wait for the thread's end."""
        self.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @abstractmethod
    def wake(self) -> None:
        """Look again at what there is to do. In any thread."""

    @abstractmethod
    def blocks(self) -> None:
        """A thread is about to block in poll, with the drive."""

    @abstractmethod
    def left(self) -> None:
        """A thread has just let go of the drive."""

    @abstractmethod
    def hurry(self, due_at: float) -> None:
        """Something is to be done by then (monotonic) that was not known before. In any thread."""

    @abstractmethod
    def _live(self) -> None:
        """The thread's life, until the loop is closed."""

    def _run(self) -> None:
        try:
            self._live()
        except BaseException as error:
            # A fault of ours. A thread that waits gets it from its call; here it would be lost with the thread.
            self._loop.on_fault(error)
            raise
