"""A thread for the callbacks of futures.

Ray calls them in the thread that brings it all news from the cluster: one that waits there for anything of the
cluster's waits for ever, and everybody else with it. The thread is started again where it is gone: a process that was
forked has none, and a callback that leaves (SystemExit) ends it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_due: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
_starting = threading.Lock()
_thread: threading.Thread | None = None


def run(callback: Callable[[], object]) -> None:
    """Call it soon, one after the other. Any thread."""
    global _thread
    _due.put(callback)
    if _thread is None or not _thread.is_alive():
        with _starting:
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_run, name="shoal futures", daemon=True)
                _thread.start()


def _run() -> None:
    while True:
        _due.get()()
