"""SIGINT in a worker: how `cancel` stops the task that runs in the main thread, and nothing else.

The loop's driver asks for it with `strike`, from whatever thread; the signal may reach the main thread when the task
has just ended and the next one runs. So the handler, which runs in the main thread, raises KeyboardInterrupt only while
the task that was meant is within `begin` and `end`, and only once for it. A SIGINT that user code sends to itself
raises as usual while a task runs, and is ignored between tasks.
"""

from __future__ import annotations

import signal
import threading


class Interruption:
    """Strikes the main thread of this process."""

    def __init__(self) -> None:
        self._running = b""
        self._meant = b""

    def install(self) -> None:
        """Take SIGINT. In the main thread."""
        signal.signal(signal.SIGINT, self._on_signal)

    def begin(self, task_id: bytes) -> None:
        """User code of this task runs from here on. In the main thread, like `end`."""
        self._running = task_id

    def end(self) -> None:
        self._running = b""

    def strike(self, task_id: bytes) -> None:
        """Raise KeyboardInterrupt in the main thread, if it still runs this task."""
        if self._running == task_id:
            self._meant = task_id
            ident = threading.main_thread().ident
            assert ident is not None, "it has started"
            signal.pthread_kill(ident, signal.SIGINT)

    def _on_signal(self, number: int, frame: object) -> None:
        meant, self._meant = self._meant, b""
        if self._running and (not meant or meant == self._running):
            self._running = b""  # once: what handles the exception must not be struck itself
            raise KeyboardInterrupt
