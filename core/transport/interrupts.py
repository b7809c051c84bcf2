"""SIGINT, held back while tables are being changed.

A KeyboardInterrupt may strike the main thread between any two instructions: also half-way through a message, when a
task has left one table and not reached the next. `Interrupts` is a context manager that the driver of the loop enters
together with the drive lock; within it, SIGINT waits, except between `open` and `shut`, which stand around the wait in
poll.

It wraps the handler that Python had for SIGINT. Outside the main thread, where Python runs no signal handlers, it does
nothing.
"""

from __future__ import annotations

import signal
import threading
from threading import get_ident
from types import FrameType
from typing import Any


class Interrupts:
    """Holds SIGINT back within its context, and delivers it on leaving or in between."""

    def __init__(self) -> None:
        self._depth = 0
        self._depth_when_opened = 0
        self._held: tuple[int, FrameType | None] | None = None
        self._previous: Any = None
        self._installed = False
        self._main = threading.main_thread().ident

    @property
    def installed(self) -> bool:
        """Whether SIGINT comes here."""
        return self._installed

    def install(self) -> None:
        """Take over SIGINT, if it has a Python handler and this is the main thread."""
        if get_ident() == self._main:
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                self._installed = True
                signal.signal(signal.SIGINT, self._on_signal)

    def remove(self) -> None:
        """Give SIGINT back; if somebody else has taken it meanwhile, go on passing it through for them."""
        if self._installed and get_ident() == self._main:
            self._installed = False
            if signal.getsignal(signal.SIGINT) == self._on_signal:
                signal.signal(signal.SIGINT, self._previous)

    def open(self) -> None:
        """Let SIGINT strike at once, also what was held so far, until `shut`."""
        if get_ident() == self._main:
            self._depth_when_opened, self._depth = self._depth, 0
            try:
                self._deliver()
            except BaseException:  # the handler raised: our caller will not come to `shut`
                self._depth = self._depth_when_opened
                raise

    def shut(self) -> None:
        """Hold it again."""
        if get_ident() == self._main:
            self._depth = self._depth_when_opened

    def __enter__(self) -> None:
        if get_ident() == self._main:
            self._depth += 1

    def __exit__(self, *exception: object) -> None:
        if get_ident() == self._main:
            # Not below 0: an interrupt that strikes at the beginning of `shut` leaves it at 0 already.
            self._depth = max(0, self._depth - 1)
            if not self._depth:
                self._deliver()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._held = (number, frame)
        else:
            self._previous(number, frame)

    def _deliver(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._previous(*held)
