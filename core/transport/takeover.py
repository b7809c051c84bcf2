"""A background thread that takes the drive and blocks in poll: for carriers that only their driver can wait for.

    asleep    somebody drives, perhaps for hours            `left` or `wake` ends it
    waiting   nobody drives: until that has lasted for `background_s`
    driving   blocked in poll; gives the drive back when somebody wants it (`Loop.drive_in_background`)

Each change of hands costs two switches between threads, and needs Python's lock while user code holds it: 0.1 ms on an
idle machine, milliseconds on a busy one. `standby.py` is for those who can do without.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .background import SLOW_S, Background

if TYPE_CHECKING:
    from .loop import Loop


class Takeover(Background):
    """See `background.py`."""

    def __init__(self, loop: Loop, background_s: float) -> None:
        super().__init__(loop, background_s)
        self._asleep = False
        self._awake = threading.Condition()

    def wake(self) -> None:
        with self._awake:
            self._awake.notify()

    def blocks(self) -> None:
        pass  # whether it sleeps or waits, messages do not wake it

    def left(self) -> None:
        if self._asleep:
            self.wake()

    def hurry(self, due_at: float) -> None:
        pass  # it is never away for longer than `background_s`

    def _live(self) -> None:
        loop = self._loop
        while not loop.is_closed:
            with self._awake:
                # Set before we look at the lock: `left` comes after the unlocking, so one of the two sees the other.
                self._asleep = True
                if loop.is_driven and not loop.is_closed:
                    self._awake.wait()
                # Not to be woken again by each of a thousand calls that follow (10 us each): first sleep below.
                self._asleep = False
            idle_s = time.monotonic() - loop.driven_at
            if idle_s < self._background_s or loop.is_wanted:
                time.sleep(max(self._background_s - idle_s, 0.0005))
            else:
                loop.drive_in_background(SLOW_S)
