"""What shoal adds to Ray when Ray does the work: the same tasks and calls, by Ray's API and by shoal's, in one session.

    python engine_cost.py '{"rounds": 40, "init": {"num_cpus": 2}, "results_fd": 5}'

Two sessions of Ray differ by more than what is looked for, so both share one, and its workers; they go in turn, a
fifth of a second each. It tells a JSON object per case and line: `{"case": name, "ray": [seconds], "shoal": [seconds]}`
for a task or call, one number of each for every round.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: How long each of the two goes on before it is the other's turn.
_TURN_S = 0.2
#: Calls under way together in the cases that do not wait for each.
_TOGETHER = 500


@dataclass(frozen=True)
class Side:
    """One of the two: the module, and what it has made of the task and of the actor's method."""

    get: Callable[[Any], Any]
    task: Callable[[], Any]
    method: Callable[[], Any]


class _Actor:
    def method(self) -> bytes:
        return b"ok"


def _task() -> bytes:
    return b"ok"


def _side(api: Any) -> Side:
    actor = api.remote(_Actor).remote()
    return Side(api.get, api.remote(_task).remote, actor.method.remote)


def _one_by_one(get: Callable[[Any], Any], call: Callable[[], Any]) -> int:
    get(call())
    return 1


def _together(get: Callable[[Any], Any], call: Callable[[], Any]) -> int:
    get([call() for _ in range(_TOGETHER)])
    return _TOGETHER


#: name -> (what is called, how).
CASES: dict[str, tuple[str, Callable[..., int]]] = {
    "tasks sync": ("task", _one_by_one),
    "tasks async": ("task", _together),
    "actor calls sync": ("method", _one_by_one),
    "actor calls async": ("method", _together),
}


def _seconds(side: Side, called: str, how: Callable[..., int]) -> float:
    """Of one task or call, over a turn."""
    call, count = getattr(side, called), 0
    began = now = time.perf_counter()
    while now - began < _TURN_S:
        count += how(side.get, call)
        now = time.perf_counter()
    return (now - began) / count


def measure(rounds: int, init: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every case for so many rounds."""
    shoal: Any = importlib.import_module("shoal")
    shoal.init("local", engine="ray", **init)
    sides = {"ray": _side(importlib.import_module("ray")), "shoal": _side(shoal)}
    for name, (called, how) in CASES.items():
        found: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds + 1):
            for side in (*sides, *reversed(sides))[2 * (number % 2) :][:2]:  # who begins, ends the next round
                seconds = _seconds(sides[side], called, how)
                if number:  # the first warms up
                    found[side].append(seconds)
        yield {"case": name, **found}
    shoal.shutdown()


def main(told: str) -> None:
    """Measure and tell."""
    order = json.loads(told)
    with os.fdopen(order["results_fd"], "w") as results:
        for line in measure(order["rounds"], order["init"]):
            print(json.dumps(line), file=results, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
