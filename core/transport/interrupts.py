"""SIGINT and SIGTERM, held back while tables are being changed.

A KeyboardInterrupt, or the SystemExit that a handler of SIGTERM raises, may strike the main thread between any two
instructions: also half-way through a message, when a task has left one table and not reached the next. `Interrupts` is
a context manager that the driver of the loop enters together with the drive lock; within it, the signals wait, except
between `open` and `shut`, which stand around the wait in poll.

It wraps the handlers that the program had for them. Outside the main thread, where Python runs no signal
handlers, it does nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from threading import get_ident
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Holds the signals back within its context, and delivers it on leaving or in between."""

    def __init__(self) -> None:
        self._depth = 0
        self._depth_when_opened = 0
        #: Between `open` and `shut`, in the main thread.
        self.is_open = False
        self._held = 0  # the signal's number
        self._previous: dict[int, Any] = {}
        self._installed = False
        self._main = threading.main_thread().ident

    @property
    def installed(self) -> bool:
        """Whether SIGINT comes here."""
        return self._installed

    def install(self) -> None:
        """Take over those signals that have a Python handler, if this is the main thread."""
        if get_ident() == self._main:
            for number in SIGNALS:
                previous = signal.getsignal(number)
                if callable(previous):
                    self._previous[number] = previous
                    signal.signal(number, self._on_signal)
            self._installed = signal.SIGINT in self._previous

    def remove(self) -> None:
        """Give them back; if somebody else has taken one meanwhile, go on passing it through for them."""
        if get_ident() == self._main:
            self._installed = False
            for number, previous in self._previous.items():
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, previous)

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
            self._depth += 1

    def __exit__(self, *exception: object) -> None:
        if get_ident() == self._main:
            # Not below 0: an interrupt that strikes at the beginning of `shut` leaves it at 0 already.
            self._depth = max(0, self._depth - 1)
            self.is_open = False
            if not self._depth:
                self._deliver()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._held = number
        else:
            self._previous[number](number, frame)

    def _deliver(self) -> None:
        if self._held:
            number, self._held = self._held, 0
            self._previous[number](number, sys._getframe(1))  # noqa: SLF001  where it strikes, not where it was held
