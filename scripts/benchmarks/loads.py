"""Requests at given times, whatever becomes of those before: open loops, in which queueing shows.

A request is late from when it was to be sent, not from when the client came to it. So a client that is held up by a
slow answer does not hide how slow it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True)
class Answered:
    """What became of one request; times are seconds since the load began."""

    due_s: float
    done_s: float
    reply: Any = None
    error: Exception | None = None

    @property
    def latency_s(self) -> float:
        """From when it was to be sent to its answer."""
        return self.done_s - self.due_s


@dataclass
class Load:
    """What became of all of them, in the order of their answers."""

    answered: list[Answered] = field(default_factory=list)

    @property
    def good(self) -> list[Answered]:
        """Those that were answered."""
        return [each for each in self.answered if each.error is None]

    @property
    def failed(self) -> list[Answered]:
        """Those that were refused, or failed."""
        return [each for each in self.answered if each.error is not None]

    def within(self, start_s: float, stop_s: float) -> Load:
        """Those that were to be sent in this time."""
        return Load([each for each in self.answered if start_s <= each.due_s < stop_s])


def percentile_s(answered: list[Answered], percent: float) -> float:
    """Latency that so many of them do not exceed; infinite if there are none."""
    return float(np.percentile([each.latency_s for each in answered], percent)) if answered else float("inf")


def in_turn(ask: Callable[[], Any], *, per_second: float, count: int, is_awake: bool = True) -> Load:
    """One client that waits for each answer.

    Args:
      ask: Sends a request and returns its reply.
      per_second: How many are to be sent.
      count: How many, all in all.
      is_awake: It keeps its core busy in between, as a program at work does; or leaves it to others.
    """
    load = Load()
    began_s = time.perf_counter()
    for number in range(count):
        due_s = number / per_second
        while (ahead_s := due_s - (time.perf_counter() - began_s)) > 0.0:
            if not is_awake:
                time.sleep(ahead_s)
        reply = ask()
        load.answered.append(Answered(due_s, time.perf_counter() - began_s, reply))
    return load


async def at_once(
    ask: Callable[[], Awaitable[Any]], *, per_second: Callable[[float], float], seconds: float, patience_s: float = 30.0
) -> Load:
    """Any number of clients: each request is sent when it is due, however many are under way.

    Args:
      ask: Sends a request and waits for its reply.
      per_second: Seconds since the beginning -> how many are to be sent.
      seconds: For how long.
      patience_s: For the last answers.

    Raises:
      asyncio.TimeoutError: they did not come.
    """
    load = Load()
    began_s = time.perf_counter()
    asking: set[asyncio.Task[None]] = set()
    due_s = 0.0
    while due_s < seconds:
        # The timers of an event loop are whole milliseconds, which would count as the server's: the last two are turns.
        while (ahead_s := due_s - (time.perf_counter() - began_s)) > 0.0:  # noqa: ASYNC110  nothing tells of time
            await asyncio.sleep(max(ahead_s - 0.002, 0.0))
        task = asyncio.ensure_future(_asked(ask, due_s, began_s, load))
        asking.add(task)
        task.add_done_callback(asking.discard)
        due_s += 1.0 / per_second(due_s)
    await asyncio.wait_for(asyncio.gather(*asking), patience_s)
    return load


async def _asked(ask: Callable[[], Awaitable[Any]], due_s: float, began_s: float, load: Load) -> None:
    reply, trouble = None, None
    try:
        reply = await ask()
    except Exception as error:  # noqa: BLE001 - what it is, is for the benchmark to say
        trouble = error
    load.answered.append(Answered(due_s, time.perf_counter() - began_s, reply, trouble))
