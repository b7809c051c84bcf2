"""The cases of Ray's own microbenchmark, written once against a module with Ray's API; also the program that runs them.

The names, the numbers and the work are those of `ray microbenchmark` in Ray 2.60 (`ray/_private/ray_perf.py`), except
for the cases marked as ours. The same file is run as a program by this interpreter for shoal and by the peer's for Ray,
a few cases in a session, in turn: so it imports nothing but numpy and the engine that it is told.

    python cases.py '{"engine": "ray", "init": {"num_cpus": 2}, "seconds": 1.0, "cases": ["..."], "results_fd": 5}'

What it finds goes to the descriptor `results_fd`, a JSON object per line: `{"case": name, "figure": per second}`, or
`"error": text`, or `"missing": text` for what the engine does not have. Functions and classes are those of
`__main__` then, and so travel to the workers by value.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

#: One step of a case, and how many of the counted things it does.
Step = tuple[Callable[[], object], float]

#: The engine's module, `shoal` or `ray`, and the task that everything calls; set by `connect`, and sent to the workers
#: with what uses them.
api: Any = None
small_value_task: Any = None

#: int64 values in the arrays that Ray's microbenchmark puts: 800 MiB and 80 MiB.
_LARGE, _MEDIUM = 100 * 1024 * 1024, 10 * 1024 * 1024
#: Ray's unit in its own case is off: 0.8 for 838,860,800 bytes. Here a gigabyte is 10^9 bytes.
_GIGABYTE = 1e9
#: Measurements of a case in one session.
_REPEATS = 4


@dataclass(frozen=True)
class Case:
    """A case: how it is prepared, and how its figure is to be judged.

    prepare: called in a session; returns the step. What it refers to is let go when the case is over.
    unit: of the figure.
    is_of_ray: it is one of Ray's own, and counts.
    ceiling: the case that says how far this one could go at most; it is judged by that instead of by the peer.
    is_control: it asks nothing of the engine, so that two engines must give the same.
    """

    prepare: Callable[[], Step]
    unit: str = "/s"
    is_of_ray: bool = True
    ceiling: str = ""
    is_control: bool = False


class NotThereYetError(RuntimeError):
    """The engine does not have what the case is about."""


CASES: dict[str, Case] = {}


def case(
    name: str, *, unit: str = "/s", is_of_ray: bool = True, ceiling: str = "", is_control: bool = False
) -> Callable[[Callable[[], Step]], Callable[[], Step]]:
    """Register a case."""

    def register(prepare: Callable[[], Step]) -> Callable[[], Step]:
        CASES[name] = Case(prepare, unit, is_of_ray, ceiling, is_control)
        return prepare

    return register


def small_value() -> bytes:
    """What most cases call."""
    return b"ok"


def _put_small() -> None:
    for _ in range(100):
        api.put(0)


def _put_medium() -> None:
    for _ in range(10):
        api.put(np.zeros(_MEDIUM, dtype=np.int64))


def _copy_medium() -> None:
    target = np.ones(_MEDIUM, dtype=np.int64)  # touched
    for _ in range(10):
        np.copyto(target, np.zeros(_MEDIUM, dtype=np.int64))


def _many_refs() -> list[Any]:
    return [api.put(1) for _ in range(10_000)]


def _call_in_turn(servers: list[Any], n: int) -> None:
    api.get([servers[i % len(servers)].small_value.remote() for i in range(n)])


class Server:
    """Answers."""

    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, _value: object) -> bytes:
        return b"ok"

    def small_value_batch(self, n: int) -> None:
        api.get([small_value_task.remote() for _ in range(n)])


class AsyncServer:
    """Answers from an event loop."""

    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_with_arg(self, _value: object) -> bytes:
        return b"ok"


class Client:
    """Calls servers."""

    def __init__(self, servers: list[Any]) -> None:
        self.servers = servers

    def small_value_batch(self, n: int) -> None:
        api.get([server.small_value.remote() for server in self.servers for _ in range(n)])

    def small_value_batch_arg(self, n: int) -> None:
        argument = api.put(0)
        api.get([server.small_value_arg.remote(argument) for server in self.servers for _ in range(n)])


def _servers(kind: type, count: int = 0) -> list[Any]:
    """That many servers; as many as Ray's benchmark has by default: half of the CPUs."""
    options = {"num_cpus": 0} if kind is Server else {}
    remote = api.remote(**options)(kind) if options else api.remote(kind)
    return [remote.remote() for _ in range(count or max(1, multiprocessing.cpu_count() // 2))]


def _client(servers: list[Any]) -> Any:
    return api.remote(num_cpus=0)(Client).remote(servers)


@case("single client get calls (Plasma Store)")
def _() -> Step:
    ref = api.put(0)
    return lambda: api.get(ref), 1


@case("single client put calls (Plasma Store)")
def _() -> Step:
    return lambda: api.put(0), 1


@case("multi client put calls (Plasma Store)")
def _() -> Step:
    task = api.remote(_put_small)
    return lambda: api.get([task.remote() for _ in range(10)]), 1000


@case("single client put gigabytes", unit="GB/s", ceiling="ceiling: copy zeros")
def _() -> Step:
    array = np.zeros(_LARGE, dtype=np.int64)
    return lambda: api.put(array), array.nbytes / _GIGABYTE


@case("ceiling: copy zeros", unit="GB/s", is_of_ray=False, is_control=True)
def _() -> Step:
    array, target = np.zeros(_LARGE, dtype=np.int64), np.ones(_LARGE, dtype=np.int64)
    return lambda: np.copyto(target, array), array.nbytes / _GIGABYTE


def _random() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**63, _LARGE, dtype=np.int64)


@case("single client put gigabytes, random data", unit="GB/s", is_of_ray=False, ceiling="ceiling: copy random data")
def _() -> Step:
    array = _random()
    return lambda: api.put(array), array.nbytes / _GIGABYTE


@case("ceiling: copy random data", unit="GB/s", is_of_ray=False, is_control=True)
def _() -> Step:
    array = _random()
    target = array.copy()
    return lambda: np.copyto(target, array), array.nbytes / _GIGABYTE


@case("single client tasks and get batch")
def _() -> Step:
    return lambda: api.get([small_value_task.remote() for _ in range(1000)]), 1


@case("multi client put gigabytes", unit="GB/s", ceiling="ceiling: multi client copy zeros")
def _() -> Step:
    task = api.remote(_put_medium)
    return lambda: api.get([task.remote() for _ in range(10)]), 10 * 10 * 8 * _MEDIUM / _GIGABYTE


@case("ceiling: multi client copy zeros", unit="GB/s", is_of_ray=False)
def _() -> Step:
    task = api.remote(_copy_medium)
    return lambda: api.get([task.remote() for _ in range(10)]), 10 * 10 * 8 * _MEDIUM / _GIGABYTE


@case("single client get object containing 10k refs")
def _() -> Step:
    ref = api.remote(_many_refs).remote()
    return lambda: api.get(ref), 1


@case("single client wait 1k refs")
def _() -> Step:
    def step() -> None:
        refs = [small_value_task.remote() for _ in range(1000)]
        for count in range(1000):
            _, refs = api.wait(refs, fetch_local=count == 0)  # once is enough, and Ray's own benchmark does it so

    return step, 1


@case("single client tasks sync")
def _() -> Step:
    return lambda: api.get(small_value_task.remote()), 1


@case("single client tasks async")
def _() -> Step:
    return lambda: api.get([small_value_task.remote() for _ in range(1000)]), 1000


@case("multi client tasks async")
def _() -> Step:
    actors = _servers(Server, 4)
    return lambda: api.get([actor.small_value_batch.remote(10_000) for actor in actors]), 40_000


@case("1:1 actor calls sync")
def _() -> Step:
    (actor,) = _servers(Server, 1)
    return lambda: api.get(actor.small_value.remote()), 1


@case("1:1 actor calls async")
def _() -> Step:
    (actor,) = _servers(Server, 1)
    return lambda: api.get([actor.small_value.remote() for _ in range(1000)]), 1000


@case("1:1 actor calls concurrent")
def _() -> Step:
    actor = api.remote(num_cpus=0)(Server).options(max_concurrency=16).remote()
    return lambda: api.get([actor.small_value.remote() for _ in range(1000)]), 1000


@case("1:n actor calls async")
def _() -> Step:
    servers = _servers(Server)
    client = _client(servers)
    return lambda: api.get(client.small_value_batch.remote(5_000)), 5_000 * len(servers)


@case("n:n actor calls async")
def _() -> Step:
    servers, work = _servers(Server), api.remote(_call_in_turn)
    return lambda: api.get([work.remote(servers, 5_000) for _ in range(4)]), 4 * 5_000


@case("n:n actor calls with arg async")
def _() -> Step:
    clients = [_client([server]) for server in _servers(Server)]
    return lambda: api.get([client.small_value_batch_arg.remote(1_000) for client in clients]), 1_000 * len(clients)


@case("1:1 async-actor calls sync")
def _() -> Step:
    (actor,) = _servers(AsyncServer, 1)
    return lambda: api.get(actor.small_value.remote()), 1


@case("1:1 async-actor calls async")
def _() -> Step:
    (actor,) = _servers(AsyncServer, 1)
    return lambda: api.get([actor.small_value.remote() for _ in range(1000)]), 1000


@case("1:1 async-actor calls with args async")
def _() -> Step:
    (actor,) = _servers(AsyncServer, 1)
    return lambda: api.get([actor.small_value_with_arg.remote(i) for i in range(1000)]), 1000


@case("1:n async-actor calls async")
def _() -> Step:
    servers = _servers(AsyncServer)
    client = _client(servers)
    return lambda: api.get(client.small_value_batch.remote(5_000)), 5_000 * len(servers)


@case("n:n async-actor calls async")
def _() -> Step:
    servers, work = _servers(AsyncServer), api.remote(_call_in_turn)
    return lambda: api.get([work.remote(servers, 5_000) for _ in range(4)]), 4 * 5_000


@case("placement group create/removal")
def _() -> Step:
    try:
        groups = importlib.import_module(f"{api.__name__}.util.placement_group")
    except ModuleNotFoundError as missing:
        raise NotThereYetError(str(missing)) from None

    def step() -> None:
        created = [groups.placement_group(bundles=[{"custom": 0.001}]) for _ in range(100)]
        for group in created:
            group.wait(timeout_seconds=30)
        for group in created:
            groups.remove_placement_group(group)

    return step, 100


def measure(step: Callable[[], object], amount: float, seconds: float) -> float:
    """Amounts per second: Ray's way, but for the median where Ray takes the mean.

    A warm-up of at most a second says how many steps go between two looks at the clock; then four measurements of at
    least `seconds`. Their median is not moved by one that has to touch fresh memory, or that the machine spoils.
    """
    stride = _repeat(step, min(1.0, seconds), 1)[0] // 10 + 1
    figures = []
    for _ in range(_REPEATS):
        done, elapsed = _repeat(step, seconds, stride)
        figures.append(done * amount / elapsed)
    return statistics.median(figures)


def _repeat(step: Callable[[], object], seconds: float, stride: int) -> tuple[int, float]:
    """(steps, seconds) of at least so many seconds, looking at the clock every `stride` steps."""
    done = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(stride):
            step()
        done += stride
    return done, elapsed


def connect(engine: str, init: dict[str, Any]) -> None:
    """Import the engine and start a session with these arguments."""
    global api, small_value_task
    api = importlib.import_module(engine)
    api.init(**init)
    small_value_task = api.remote(small_value)


def run_case(name: str, seconds: float) -> dict[str, Any]:
    """One round of a case, as the line that is told to the parent."""
    try:
        step, amount = CASES[name].prepare()
        return {"case": name, "figure": measure(step, amount, seconds)}
    except NotThereYetError as missing:
        return {"case": name, "missing": str(missing)}
    except Exception as error:  # noqa: BLE001  whatever an engine raises is that case's result
        traceback.print_exc()
        return {"case": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main(told: str) -> None:
    """Run the cases that the parent wants and tell it each result."""
    order = json.loads(told)
    with os.fdopen(order["results_fd"], "w") as results:
        connect(order["engine"], order["init"])
        for name in order["cases"]:
            print(json.dumps(run_case(name, order["seconds"])), file=results, flush=True)
        api.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
