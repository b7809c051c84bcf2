"""A thread that kills random workers with SIGKILL, at a steady pace, for as long as a block runs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from shoal.scripts.endurance import processes

#: Between two kills, as issue 3 asks.
PACE_S = 0.2


class Killer:
    """Counts what it has killed.

    Args:
      seed: of the choice of victims.
      targets: gives the pids that may be killed, each time anew.
      pace_s: between two kills.
    """

    def __init__(self, seed: int, targets: Callable[[], Sequence[int]], *, pace_s: float = PACE_S) -> None:
        self.kills = 0
        self._random = random.Random(seed)
        self._targets = targets
        self._pace_s = pace_s
        self._stop = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill while the block runs."""
        thread = threading.Thread(target=self._run, name="killer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pace_s):
            targets = sorted(self._targets())
            if not targets:
                continue
            try:
                os.kill(self._random.choice(targets), signal.SIGKILL)
            except ProcessLookupError:  # it was faster
                continue
            self.kills += 1


def every_worker() -> list[int]:
    """Pids of all workers of the session."""
    return [process.pid for process in processes.workers()]
