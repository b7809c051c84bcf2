"""What the event loop of an actor waits in: the process's own loop, which it drives meanwhile.

A call that arrives for an actor with coroutines is read, run and answered in one thread. Were the process's loop driven
by another, each call would cost two wake-ups and two changes of Python's lock each way: 0.1 ms and more on a machine at
work.

    asyncio has nothing to do    select(None or a time): `Loop.drive_until` something has come, as any thread that waits
    asyncio has something to do  select(0): it only looks in, when there is something to send or a while has passed;
                                 and at its own descriptors, then: a look at nothing costs a turn as much as a callback
    it fired, and more has come  as if asyncio had something to do: a busy HTTP server need not drive for each request
    user code blocks asyncio     nobody drives: the background thread sees to what comes, as for any user code
    another thread waits, too    one of them drives, and tells the other (loop.py)
    the actor is to leave        `stop`: asyncio waits for its own descriptors alone, and the main thread drives

What asyncio itself waits for, sockets and its own pipe, is one descriptor: its epoll, which the process's carrier
watches, for one event at a time:

    armed --it can be read: told by whoever drives--> fired --asyncio has looked, and is about to wait--> armed

Nothing is lost: who arms looks at the state of the descriptor, not for a change of it; so what has come between
asyncio's look and the arming fires at once. Armed while asyncio works, it costs at most one round of somebody's.
What has come in other ways stands in `calls`, which is looked at after each round.

Only where the carrier is one descriptor, and asyncio's own selector is in place (`can_drive`).
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Sized

from ..transport.loop import Loop

#: How long an asyncio that is always at work leaves what arrives, for it or for the process, to nobody.
_GLANCE_S = 0.0002


class DrivingSelector(selectors.DefaultSelector):
    """The selector of one event loop.

    Args:
      driven: The process's loop.
      calls: What has come that is no descriptor's, and has not begun; filled by `driven`'s handlers, or by threads that
        wake asyncio themselves.
      begin: Called before asyncio has its turn, in its thread.
      on_fault: Told what `driven` has raised, a fault of ours, before asyncio ends with it.
    """

    def __init__(
        self,
        driven: Loop,
        *,
        calls: Sized,
        begin: Callable[[], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self._driven = driven
        self._calls, self._begin, self._on_fault = calls, begin, on_fault
        self._glanced_at = 0.0
        self._is_stopped = False
        self._is_armed = True
        driven.has_turns = True
        driven.submit(lambda _: driven.watch_once(self.fileno(), self._fire), None)

    @property
    def drives(self) -> bool:
        """It has not been told to stop."""
        return not self._is_stopped

    def stop(self) -> None:
        """Drive no more; who calls wakes asyncio."""
        self._is_stopped = True
        self._driven.has_turns = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What can be read or written; none of it, if a call has come first."""
        driven = self._driven
        found: list[tuple[selectors.SelectorKey, int]] = []
        if self._is_stopped or driven.is_closed:
            # User code that waited in the loop may have read calls in this thread: nobody else begins them.
            if self._calls:
                self._begin()
                timeout = 0
            return super().select(timeout)
        try:
            if timeout is not None and timeout <= 0:
                is_to_look = self._glance()
            elif not self._is_armed and (found := super().select(0)):
                self._glance()
                is_to_look = False
            else:
                if not self._is_armed:
                    self._is_armed = True  # first: it may fire at once, in another thread
                    driven.watch_again(self.fileno())
                driven.drive_until(self._has_come, timeout)
                self._glanced_at = time.monotonic()
                is_to_look = not self._is_armed
        except BaseException as error:
            self._on_fault(error)
            raise
        if self._calls:
            self._begin()
        driven.begin_turn()
        # What fires from here on is seen in the next turn: asyncio looks as long as it is not armed.
        return super().select(0) if is_to_look else found

    def _has_come(self) -> object:
        return not self._is_armed or self._calls or self._is_stopped

    def _glance(self) -> bool:
        """See to what cannot wait until asyncio has nothing to do; whether asyncio is to look, too."""
        now = time.monotonic()
        is_time = now - self._glanced_at >= _GLANCE_S
        if is_time or self._driven.posts:
            self._driven.look_in()
        if is_time:
            self._glanced_at = now
        return is_time

    # ---- in the driver's thread

    def _fire(self) -> None:
        self._is_armed = False


def can_drive(driven: Loop) -> bool:
    """Whether an event loop may drive this one: both are as they are on Linux, unless the program wants otherwise."""
    policy = asyncio.get_event_loop_policy()
    return driven.can_watch_once and type(policy) is asyncio.DefaultEventLoopPolicy
