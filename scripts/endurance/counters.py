"""Actors that count their calls into a file, and callers that note what they are told: the matter of `histories`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal import exceptions
from shoal.scripts.endurance.histories import Entry, Outcome

#: Calls of a caller to every actor before it waits for the answers.
_BURST = 20
#: One call in so many brings an array of so many numbers along: 320 KB, more than what rides in messages.
_LOAD_EVERY, _LOAD = 8, 40_000
#: How long an answer may take: an actor is back within a fraction of a second.
_PATIENCE_S = 60.0


class Counter:
    """Counts the calls of its life, and appends each to a file that outlives it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # A clock of the machine that never goes back: lives of an actor are in its order.
        self._incarnation = time.monotonic_ns()
        self._count = 0

    def pid(self) -> int:
        """Of the process that it lives in now."""
        return os.getpid()

    def count(self, caller: str, number: int, load: np.ndarray | None = None) -> tuple[int, int]:
        """Note the call. Returns which life this is, and how many calls it has seen.

        Args:
          load: the number many times over, through shared memory; anything else in it is told as an impossible life.
        """
        if load is not None and not bool((load == number).all()):
            return -1, number
        os.write(self._file, Entry(caller, number, self._incarnation).line())
        self._count += 1
        return self._incarnation, self._count


class AwaitedCounter(Counter):
    """The same on an event loop, which drives the process while it has nothing to do."""

    async def count(  # type: ignore[override]
        self, caller: str, number: int, load: np.ndarray | None = None
    ) -> tuple[int, int]:
        """See `Counter.count`."""
        return Counter.count(self, caller, number, load)


#: As actors that come back as often as they are killed; calls are made at most once unless asked otherwise.
COUNTER: Any = shoal.remote(num_cpus=0, max_restarts=-1)(Counter)
AWAITED_COUNTER: Any = shoal.remote(num_cpus=0, max_restarts=-1)(AwaitedCounter)


class Caller:
    """Calls counters in bursts. Runs in the driver as it is, and as an actor through `shoal.remote`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._numbers: list[int] = []

    def pid(self) -> int:
        """Of the process that it lives in."""
        return os.getpid()

    def call(self, counters: Sequence[Any]) -> list[list[Outcome]]:
        """One burst of calls to every counter, in turn; what came of each, a list per counter."""
        if not self._numbers:
            self._numbers = [0] * len(counters)
        made: list[list[tuple[int, Any]]] = [[] for _ in counters]
        for _ in range(_BURST):
            for position, counter in enumerate(counters):
                number = self._numbers[position]
                self._numbers[position] += 1
                load = np.full(_LOAD, number) if number % _LOAD_EVERY == 0 else None
                made[position].append((number, counter.count.remote(self.name, number, load)))
        return [[self._outcome(number, ref) for number, ref in calls] for calls in made]

    def _outcome(self, number: int, ref: Any) -> Outcome:
        try:
            return Outcome(self.name, number, tuple(shoal.get(ref, timeout=_PATIENCE_S)))
        except (exceptions.ActorError, exceptions.GetTimeoutError) as failure:
            return Outcome(self.name, number, failure=f"{type(failure).__name__}: {failure}".splitlines()[0])


def read(path: Path) -> list[Entry]:
    """The history in an actor's file."""
    return [Entry.parse(line) for line in path.read_text(encoding="utf-8").splitlines()]
