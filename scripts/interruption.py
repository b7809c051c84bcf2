"""What signals do to a training run: SIGINT and SIGTERM, and SIGHUP when its terminal goes away.

A first signal while training lets the iteration finish; anywhere else, and the second time, it raises at once; once
the run is being taken down there is nothing left to interrupt. Used by `train`, `serve`, `bench` and `results`; in
the main thread only, as Python wants it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Raises `KeyboardInterrupt` at once, or waits while something must be finished."""

    def __init__(self) -> None:
        self.requested = False
        self._is_deferred = False
        self._is_over = False
        self._on_request: Callable[[], None] | None = None
        self.exit_code = 128 + signal.SIGINT

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take the signals for the length of the block."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup
            del before[signal.SIGHUP]
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self, on_request: Callable[[], None]) -> Iterator[None]:
        """In this block a first signal only sets `requested`, and calls `on_request`; a second one raises."""
        self._is_deferred, self._on_request = True, on_request
        try:
            yield
        finally:
            self._is_deferred = False

    def over(self) -> None:
        """From now on signals do nothing: the run is being taken down, which has deadlines of its own."""
        self._is_over = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._is_over:
            return
        self.exit_code = 128 + number
        if self.requested or not self._is_deferred:
            raise KeyboardInterrupt
        self.requested = True
        if self._on_request is not None:
            self._on_request()
