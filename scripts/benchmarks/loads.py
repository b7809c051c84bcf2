"""Requests at given times, whatever becomes of those before: open loops, in which queueing shows.

A request is late from when it was to be sent, not from when the client came to it. So a client that is held up by a
slow answer does not hide how slow it was.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import shoal
from shoal import ObjectRef


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
    with without_collections():
        began_s = time.perf_counter()
        for number in range(count):
            due_s = number / per_second
            while (ahead_s := due_s - (time.perf_counter() - began_s)) > 0.0:
                if not is_awake:
                    time.sleep(ahead_s)
            reply = ask()
            load.answered.append(Answered(due_s, time.perf_counter() - began_s, reply))
    return load


def at_once(
    ask: Callable[[], ObjectRef[Any]],
    *,
    per_second: Callable[[float], float],
    seconds: float,
    errands: Sequence[tuple[float, Callable[[], Any]]] = (),
    patience_s: float = 30.0,
) -> Load:
    """Any number of clients: each request is sent when it is due, however many are under way.

    All in the calling thread, which never sleeps: a client that is woken for an answer, or takes it from another
    thread, counts 0.1 ms of its own as the server's.

    Args:
      ask: Sends a request.
      per_second: Seconds since the beginning -> how many are to be sent.
      seconds: For how long.
      errands: What else is to be done meanwhile, and when, in order; it must not take long.
      patience_s: For the last answers.

    Raises:
      TimeoutError: they did not come.
    """
    load = Load()
    with without_collections():
        _send_and_hear(load, ask, per_second, seconds, deque(errands), patience_s)
    return load


def _send_and_hear(
    load: Load,
    ask: Callable[[], ObjectRef[Any]],
    per_second: Callable[[float], float],
    seconds: float,
    to_do: deque[tuple[float, Callable[[], Any]]],
    patience_s: float,
) -> None:
    under_way: dict[ObjectRef[Any], float] = {}
    began_s, due_s = time.perf_counter(), 0.0
    while due_s < seconds or under_way:
        now_s = time.perf_counter() - began_s
        if to_do and to_do[0][0] <= now_s:
            to_do.popleft()[1]()
        if due_s < seconds and due_s <= now_s:
            under_way[ask()] = due_s
            due_s += 1.0 / per_second(due_s)
        elif under_way:
            come, _ = shoal.wait(list(under_way), num_returns=len(under_way), timeout=0)
            done_s = time.perf_counter() - began_s
            load.answered += [_answered(ref, under_way.pop(ref), done_s) for ref in come]
        if now_s > seconds + patience_s:
            raise TimeoutError(f"{len(under_way)} requests have not been answered {patience_s:g} s after the last")


@contextmanager
def without_collections() -> Iterator[None]:
    """Python stops for 10 ms and more to look at all objects that there are: not while it counts as the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _answered(ref: ObjectRef[Any], due_s: float, done_s: float) -> Answered:
    try:
        return Answered(due_s, done_s, shoal.get(ref))
    except Exception as error:  # noqa: BLE001 - what it is, is for the benchmark to say
        return Answered(due_s, done_s, error=error)
