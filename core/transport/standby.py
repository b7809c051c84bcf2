"""A background thread that sleeps in the kernel while user code runs, and wakes when there is something to do.

It waits for the carrier's descriptor (an epoll, which can itself be polled), armed for one event at a time. Blocked
there it does not want Python's lock; to take the drive and block in the carrier's own poll, as `takeover.py` does, is
to fight user code for that lock at every call into numpy, for milliseconds on a machine with few cores.

    away       user code drives so often that arming (1 us, twice for each wait) would cost more than to look, now and
               then, whether it still does: sleeps for `background_s`
    watching   blocked in the kernel: until something arrives while nobody drives (armed), the deadline, or the bell
    resting    something is there, but user code has been away from the loop for less than `background_s`: it may be
               about to wait, and then does all this itself
    ticking    one round of the loop, without waiting in it

    who waits in the loop   before it blocks: disarms              having let go of the drive: arms, and
                                                                   rings when something is due before the deadline
    whoever finds out that something is due before the deadline: rings

Nothing is lost, because of two orders. The thread says that it is watching, and until when, *before* it looks whether
somebody drives and what is due; others unlock, or note what is due, *before* they look whether it is watching, and
until when. So one of the two sees the other, and arms, or rings. And `_armed` is set before the descriptor is armed and
cleared after it has been disarmed: it may say no where the answer is yes, which costs a needless look, and never for
long yes where it is no. What arrives is level-triggered: what has not been read when the descriptor is armed again
counts as arriving then.

Deaths: a fork has no such thread, and must not touch the kernel's objects, which are its parent's: it drops them.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
import weakref
from typing import TYPE_CHECKING

from .background import SLOW_S, Background

if TYPE_CHECKING:
    from .loop import Loop

#: For so long it sleeps at most where an event loop waits in ours, perhaps for hours.
_LOOK_UP_S = 1.0
#: From so many waits per second on, whoever waits sees to everything soon enough.
_BUSY_PER_S = 1000.0
_ONE = (1).to_bytes(8, sys.byteorder)  # what an eventfd is written and read in


class Standby(Background):
    """See `background.py`."""

    def __init__(self, loop: Loop, background_s: float, descriptor: int) -> None:
        """
        Args:
          descriptor: readable as long as a tick of the loop would find something.
        """
        super().__init__(loop, background_s)
        self._descriptor = descriptor
        self._watch = _Watch()
        self._watching = False
        self._armed = False
        self._deadline = 0.0
        # How often somebody had waited when we last looked, and when that was.
        self._waits_seen = 0
        self._looked_at = 0.0

    def start(self) -> None:
        self._watch.open(self._descriptor)
        super().start()

    def close(self) -> None:
        super().close()
        self._watch.close()

    # ---- other threads

    def wake(self) -> None:
        if self._watch.is_open:
            self._watch.ring()

    def blocks(self) -> None:
        if self._armed:
            self._watch.disarm()
            self._armed = False

    def left(self) -> None:
        if not self._watching:
            return
        if not self._armed:
            self._arm()
        if self._deadline == math.inf or self._loop.due_at() < self._deadline:
            self._watch.ring()

    def hurry(self, due_at: float) -> None:
        if self._watching and due_at < self._deadline:
            self._watch.ring()

    def _arm(self) -> None:
        self._armed = True
        self._watch.arm()

    # ---- the thread

    def _live(self) -> None:
        self._looked_at = time.monotonic()
        while not self._loop.is_closed:
            if self._is_busy():
                time.sleep(self._background_s)
            elif self._has_work(arrived=self._watch_until_something()):
                self._loop.drive_in_background(0.0)

    def _is_busy(self) -> bool:
        """Whether somebody has waited in the loop again and again since the last call."""
        now, seen = time.monotonic(), self._loop.waits
        waits, elapsed_s = seen - self._waits_seen, now - self._looked_at
        self._waits_seen, self._looked_at = seen, now
        return waits > _BUSY_PER_S * max(elapsed_s, self._background_s)

    def _watch_until_something(self) -> bool:
        """Block; returns whether something has arrived."""
        loop = self._loop
        self._deadline = math.inf
        self._watching = True
        # From here on others look after us; what was before that we see now.
        now = time.monotonic()
        if not loop.is_driven:
            self._arm()
            self._deadline = now + SLOW_S
            # What comes up meanwhile is held against the longer deadline, so that we are woken for it.
            self._deadline = min(self._deadline, loop.due_at())
        elif now - loop.left_at < SLOW_S:
            self._deadline = now + SLOW_S  # it will be user code's turn before long, as it was
        elif loop.has_turns:
            # It will let go for a moment, again and again: to be rung for each time would cost it 0.1 ms and more.
            self._deadline = now + _LOOK_UP_S
        # Else somebody waits, perhaps for hours; the first to let go of the drive rings.
        arrived = False
        try:
            arrived = not loop.is_closed and self._watch.wait(self._deadline)
        finally:
            self._watching = False
            if arrived:
                self._armed = False  # the kernel has done so
        return arrived

    def _has_work(self, *, arrived: bool) -> bool:
        """Whether a tick is needed now; rests for as long as user code may be about to make it."""
        loop, now = self._loop, time.monotonic()
        is_slow_turn = now >= self._deadline and bool(loop.posts)
        if not arrived and not is_slow_turn and loop.due_at() > now:
            return False
        left_at = loop.left_at
        rest_s = left_at + self._background_s - now
        if rest_s > 0:
            time.sleep(rest_s)
        # Else somebody has driven; what they have left arrives, or is due, again as soon as we watch.
        return loop.left_at == left_at


class _Watch:
    """The kernel's part: a descriptor that wakes once when armed, a bell, and the wait for both.

    Who arms or rings may come late, when it is being closed: that is no error, for nobody waits any more.
    """

    is_open = False

    def open(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLONESHOT)
        # A file object: written to late, it raises, where the number of a descriptor may be another's by then.
        self._bell = os.fdopen(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+b", buffering=0)
        self._epoll.register(self._bell, select.EPOLLIN)
        self.is_open = True
        _watches.add(self)

    def close(self) -> None:
        """Twice is harmless, and without `open`."""
        if self.is_open:
            self.is_open = False
            self._epoll.close()
            self._bell.close()

    def arm(self) -> None:
        self._set(select.EPOLLIN | select.EPOLLONESHOT)

    def disarm(self) -> None:
        self._set(select.EPOLLONESHOT)

    def _set(self, events: int) -> None:
        try:
            self._epoll.modify(self._descriptor, events)
        except (ValueError, OSError):
            if self.is_open:
                raise

    def ring(self) -> None:
        try:
            self._bell.write(_ONE)
        except (ValueError, OSError):
            if self.is_open:
                raise

    def wait(self, deadline: float) -> bool:
        """Until then (monotonic, infinity: for ever) or until something comes; whether it was the descriptor."""
        timeout_s = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        arrived = False
        for descriptor, _ in self._epoll.poll(timeout_s):
            if descriptor == self._descriptor:
                arrived = True
            else:
                self._bell.read(len(_ONE))
        return arrived


#: Of this process; a child that user code forks must not arm and disarm for its parent.
_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()


def _close_all_in_fork() -> None:
    for watch in list(_watches):
        watch.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all_in_fork)
