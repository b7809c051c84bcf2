"""The thread in which slow models act, while the event loop takes more requests.

One thread, so that models never act at once: they would only slow each other down. Not an executor of asyncio's, whose
futures cost each batch 60 us more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class ModelThread:
    """Runs work in order; what came of it goes to the event loop. Started with the first work, ends with ``close``.

    Args:
      loop: Where ``submit`` is called, and told what came of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._is_started = False

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have something done there.

        Args:
          work: What; may not raise.
          done: Called on the event loop with what it returns.
        """
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._serve, name="shoal-model", daemon=True).start()
        self._work.put((work, done))
        time.sleep(0.0)  # lets go of Python's lock: the thread begins 0.05 ms sooner than at our next system call

    def close(self) -> None:
        """Nothing more comes; the thread ends behind what it has."""
        self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            outcome = work()
            try:
                self._loop.call_soon_threadsafe(done, outcome)
            except RuntimeError:
                if self._loop.is_closed():
                    return  # the server has gone, and with it who asked
                raise
            del item, work, done, outcome  # arrays of the last batch go before the next one comes
