"""SIGINT and SIGTERM, held back while tables are being changed.

A KeyboardInterrupt, or the SystemExit that a handler of SIGTERM raises, may strike the main thread between any two
instructions: also half-way through a message, when a task has left one table and not reached the next. `Interrupts` is
a context manager that the driver of the loop enters together with the drive lock; within it, the signals wait, except
between `open` and `shut`, which stand around the wait in poll.

It wraps the handlers that the program has for them: looked up at `install`, and again whenever tables are about to be
changed, because programs set handlers later too (Jupyter does so for each cell). Outside the main thread, where Python
runs no signal handlers, it does nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from _signal import getsignal  # type: ignore[import-not-found]  # 10 ns; that of `signal` makes an enum of it in 1.4 us
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Holds the signals back within its context, and delivers it on leaving or in between."""

    def __init__(self) -> None:
        self._depth = 0
        self._depth_when_opened = 0
        #: Between `open` and `shut`, in the main thread.
        self.is_open = False
        #: The signal that waits, and who is to have it.
        self._held: tuple[int, Handler] | None = None
        #: What we have put in place last.
        self._ours: dict[int, _Wrapped] = {}
        self._is_active = False
        self._main = threading.main_thread().ident

    @property
    def installed(self) -> bool:
        """Whether SIGINT comes here."""
        return self._is_active and signal.SIGINT in self._ours

    def install(self) -> None:
        """Take over those signals that have a Python handler, if this is the main thread."""
        if get_ident() == self._main:
            self._is_active = True
            self._take_over()

    def remove(self) -> None:
        """Give them back; if somebody else has taken one meanwhile, go on passing it through for them."""
        if get_ident() == self._main:
            self._is_active = False
            for number in self._ours:
                handler = getsignal(number)
                if self._is_ours(handler):
                    signal.signal(number, handler.previous)

    def _take_over(self) -> None:
        for number in SIGNALS:
            handler = getsignal(number)
            if handler is not self._ours.get(number) and callable(handler) and not self._is_ours(handler):
                self._ours[number] = _Wrapped(self, handler)
                signal.signal(number, self._ours[number])

    def _is_ours(self, handler: object) -> bool:
        return isinstance(handler, _Wrapped) and handler.interrupts is self

    def open(self) -> None:
        """Let the signals strike at once, also what was held so far, until `shut`."""
        if get_ident() == self._main:
            self._depth_when_opened, self._depth = self._depth, 0
            self.is_open = True
            try:
                self._deliver()
            except BaseException:  # the handler raised: our caller will not come to `shut`
                self.is_open = False
                self._depth = self._depth_when_opened
                raise

    def shut(self) -> None:
        """Hold them again."""
        if get_ident() == self._main:
            self.is_open = False
            self._depth = self._depth_when_opened

    def __enter__(self) -> None:
        if get_ident() == self._main:
            if self._is_active and not self._depth:
                self._take_over()
            self._depth += 1

    def __exit__(self, *exception: object) -> None:
        if get_ident() == self._main:
            # Not below 0: an interrupt that strikes at the beginning of `shut` leaves it at 0 already.
            self._depth = max(0, self._depth - 1)
            self.is_open = False
            if not self._depth:
                self._deliver()

    def on_signal(self, number: int, frame: FrameType | None, handler: Handler) -> None:
        """A signal has come that `handler` is to have."""
        if self._depth:
            self._held = number, handler
        else:
            handler(number, frame)

    def _deliver(self) -> None:
        if self._held:
            (number, handler), self._held = self._held, None
            handler(number, sys._getframe(1))  # noqa: SLF001  where it strikes, not where it was held


class _Wrapped:
    """Stands in for a handler. One of its own for each: a program may keep it and put it back after another."""

    __slots__ = ("interrupts", "previous")

    def __init__(self, interrupts: Interrupts, previous: Handler) -> None:
        self.interrupts = interrupts
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.interrupts.on_signal(number, frame, self.previous)
