"""Starting and stopping things, timed once; a program for shoal's interpreter and for the peer's, as `cases` is.

    python life_cycle.py '{"engine": "shoal", "init": {"num_cpus": 2}, "results_fd": 5}'

tells one JSON object, `{"case": stage, "figure": seconds}`, per stage and line.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time
from typing import Any

#: In the order in which they happen.
STAGES = (
    "import",
    "init",
    "first task",
    "an actor started and answering",
    "100 actors started and answering",
    "shutdown",
)


def _one() -> int:
    return 1


class _Actor:
    def method(self) -> int:
        return 1


def live(engine: str, init: dict[str, Any]) -> list[float]:
    """Seconds of every stage; `init` are the arguments for starting the session."""
    clock = [time.perf_counter()]
    api: Any = importlib.import_module(engine)
    clock.append(time.perf_counter())
    api.init(**init)
    clock.append(time.perf_counter())
    api.get(api.remote(_one).remote())
    clock.append(time.perf_counter())
    kind = api.remote(_Actor)
    actor = kind.remote()
    api.get(actor.method.remote())
    clock.append(time.perf_counter())
    actors = [kind.remote() for _ in range(100)]
    api.get([actor.method.remote() for actor in actors])
    clock.append(time.perf_counter())
    api.shutdown()
    clock.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(clock)]


def main(told: str) -> None:
    """Live once and tell how long each stage took."""
    order = json.loads(told)
    with os.fdopen(order["results_fd"], "w") as results:
        for stage, seconds in zip(STAGES, live(order["engine"], order["init"]), strict=True):
            print(json.dumps({"case": stage, "figure": seconds}), file=results, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
