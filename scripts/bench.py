"""`shoal bench core`: the speed of the runtime, case by case, under the names of Ray's own microbenchmark.

Each case is run for several rounds; the median and the spread are printed, because one figure from a shared machine
says little.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro

import shoal
from shoal.scripts.command_line import DONE, UsageError, parse, run_command

#: One step of a case, and how many of the counted things it does.
Step = tuple[Callable[[], object], float]
_CASES: dict[str, tuple[Callable[[Any], Step], str]] = {}

PROG = "shoal bench"
#: Name by which `--only` chooses the life cycle.
_LIFE_CYCLE = "life cycle"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench` can be told."""

    subject: tyro.conf.Positional[Literal["core"]] = "core"
    """What to measure: the core's tasks, actors, objects and life cycle."""

    rounds: int = 5
    """Rounds of each case; the median counts."""

    seconds: float = 1.0
    """Length of a round; what takes longer is done once a round."""

    only: str = ""
    """Run only the cases whose name holds this text."""

    num_cpus: int = 0
    """CPUs of the session; 0: those of the machine."""


def case(name: str, unit: str = "/s") -> Callable[[Callable[[Any], Step]], Callable[[Any], Step]]:
    """Register a case: a function that is given `shoal`, prepares the case and returns its step."""

    def register(prepare: Callable[[Any], Step]) -> Callable[[Any], Step]:
        _CASES[name] = (prepare, unit)
        return prepare

    return register


def _small_value() -> bytes:
    return b"ok"


class _Actor:
    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, _value: object) -> bytes:
        return b"ok"

    def small_value_batch(self, n: int) -> None:
        task = shoal.remote(_small_value)
        shoal.get([task.remote() for _ in range(n)])


class _Client:
    """Calls other actors."""

    def __init__(self, servers: list[Any]) -> None:
        self.servers = servers

    def call(self, n: int) -> None:
        shoal.get([server.small_value.remote() for server in self.servers for _ in range(n)])

    def call_with_argument(self, n: int) -> None:
        argument = shoal.put(0)
        shoal.get([server.small_value_arg.remote(argument) for server in self.servers for _ in range(n)])


def _put_small(n: int) -> None:
    for _ in range(n):
        shoal.put(0)


def _put_large(n: int) -> None:
    array = np.zeros(10 * 1024 * 1024, dtype=np.int64)
    for _ in range(n):
        shoal.put(array)


def _many_refs(n: int) -> list[Any]:
    return [shoal.put(1) for _ in range(n)]


def _servers() -> int:
    """How many servers stand against many clients: half the CPUs, as in Ray's benchmark."""
    return max(1, _cpus() // 2)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@case("single client get calls")
def _(api: Any) -> Step:
    ref = api.put(0)
    return lambda: api.get(ref), 1


@case("single client put calls")
def _(api: Any) -> Step:
    return lambda: api.put(0), 1


@case("multi client put calls")
def _(api: Any) -> Step:
    task = api.remote(_put_small)
    return lambda: api.get([task.remote(100) for _ in range(10)]), 1000


@case("single client put gigabytes", unit="GB/s")
def _(api: Any) -> Step:
    array = np.zeros(100 * 1024 * 1024, dtype=np.int64)
    return lambda: api.put(array), array.nbytes / 1e9


@case("single client put gigabytes, random data", unit="GB/s")
def _(api: Any) -> Step:
    array = np.random.default_rng(0).integers(0, 2**63, 100 * 1024 * 1024, dtype=np.int64)
    return lambda: api.put(array), array.nbytes / 1e9


@case("ceiling: copy into memory touched before", unit="GB/s")
def _(_api: Any) -> Step:
    array = np.random.default_rng(0).integers(0, 2**63, 100 * 1024 * 1024, dtype=np.int64)
    target = array.copy()
    return lambda: np.copyto(target, array), array.nbytes / 1e9


@case("multi client put gigabytes", unit="GB/s")
def _(api: Any) -> Step:
    task = api.remote(_put_large)
    return lambda: api.get([task.remote(10) for _ in range(10)]), 10 * 10 * 80 * 1024 * 1024 / 1e9


@case("single client tasks and get batch")
def _(api: Any) -> Step:
    task = api.remote(_small_value)
    return lambda: api.get([task.remote() for _ in range(1000)]), 1


@case("single client get object containing 10k refs")
def _(api: Any) -> Step:
    ref = api.remote(_many_refs).remote(10_000)
    return lambda: api.get(ref), 1


@case("single client wait 1k refs")
def _(api: Any) -> Step:
    task = api.remote(_small_value)

    def step() -> None:
        refs = [task.remote() for _ in range(1000)]
        while refs:
            _, refs = api.wait(refs)

    return step, 1


@case("single client tasks sync")
def _(api: Any) -> Step:
    task = api.remote(_small_value)
    return lambda: api.get(task.remote()), 1


@case("single client tasks async")
def _(api: Any) -> Step:
    task = api.remote(_small_value)
    return lambda: api.get([task.remote() for _ in range(1000)]), 1000


@case("multi client tasks async")
def _(api: Any) -> Step:
    actors = [api.remote(_Actor).options(num_cpus=0).remote() for _ in range(4)]
    return lambda: api.get([actor.small_value_batch.remote(2_500) for actor in actors]), 10_000


@case("1:1 actor calls sync")
def _(api: Any) -> Step:
    actor = api.remote(_Actor).remote()
    return lambda: api.get(actor.small_value.remote()), 1


@case("1:1 actor calls async")
def _(api: Any) -> Step:
    actor = api.remote(_Actor).remote()
    return lambda: api.get([actor.small_value.remote() for _ in range(1000)]), 1000


@case("1:n actor calls async")
def _(api: Any) -> Step:
    servers = [api.remote(_Actor).remote() for _ in range(_servers())]
    client = api.remote(_Client).remote(servers)
    return lambda: api.get(client.call.remote(5_000)), 5_000 * len(servers)


@case("n:n actor calls async")
def _(api: Any) -> Step:
    servers = [api.remote(_Actor).remote() for _ in range(_servers())]
    clients = [api.remote(_Client).remote(servers) for _ in range(4)]
    return lambda: api.get([client.call.remote(1_250) for client in clients]), 4 * 1_250 * len(servers)


@case("n:n actor calls with arg async")
def _(api: Any) -> Step:
    pairs = [api.remote(_Client).remote([api.remote(_Actor).remote()]) for _ in range(_servers())]
    return lambda: api.get([client.call_with_argument.remote(1_000) for client in pairs]), 1_000 * len(pairs)


def measure(step: Callable[[], object], amount: float, *, rounds: int, seconds: float) -> list[float]:
    """Amounts per second, a figure for each round; one step before them warms up."""
    step()
    figures = []
    for _ in range(rounds):
        done = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            step()
            done += 1
        figures.append(done * amount / elapsed)
    return figures


def life_cycle(rounds: int) -> Iterator[tuple[str, list[float]]]:
    """(name, seconds for each round) of starting and stopping things, each round in a Python of its own."""
    script = """
import time
t = [time.perf_counter()]
import shoal
t.append(time.perf_counter())
shoal.init(num_cpus=2)
t.append(time.perf_counter())
f = shoal.remote(lambda: 1)
shoal.get(f.remote())
t.append(time.perf_counter())
class A:
    def method(self):
        return 1
A = shoal.remote(A)
a = A.remote()
shoal.get(a.method.remote())
t.append(time.perf_counter())
actors = [A.remote() for _ in range(100)]
shoal.get([a.method.remote() for a in actors])
t.append(time.perf_counter())
shoal.shutdown()
t.append(time.perf_counter())
print(*[b - a for a, b in zip(t, t[1:])])
"""
    names = [
        "import",
        "init",
        "first task",
        "an actor started and answering",
        "100 actors started and answering",
        "shutdown",
    ]
    runs = []
    for _ in range(rounds):
        out = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        runs.append([float(word) for word in out.split()])
    for index, name in enumerate(names):
        yield name, [run[index] for run in runs]


def run_core(options: Options) -> None:
    """Run the chosen cases and print a line for each."""
    print(f"{'case':<52}{'median':>14}  {'spread':>8}   ({options.rounds} rounds of {options.seconds:g} s)")
    chosen = {name: entry for name, entry in _CASES.items() if options.only in name}
    if chosen:
        with _session(options.num_cpus or _cpus()):
            for name, (prepare, unit) in chosen.items():
                step, amount = prepare(shoal)
                _print_row(name, measure(step, amount, rounds=options.rounds, seconds=options.seconds), unit)
                del step  # its actors leave before the next case
    for name, seconds in life_cycle(options.rounds) if options.only in _LIFE_CYCLE else ():
        _print_row(name, [1000 * s for s in seconds], "ms")


@contextmanager
def _session(num_cpus: int) -> Iterator[None]:
    shoal.init(num_cpus=num_cpus)
    try:
        yield
    finally:
        shoal.shutdown()


def _print_row(name: str, figures: Sequence[float], unit: str) -> None:
    median = statistics.median(figures)
    spread = (max(figures) - min(figures)) / median if median else 0.0
    digits = 0 if median >= 100 else 2
    print(f"{name:<52}{median:>14,.{digits}f} {unit:<5} {spread:>6.0%}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run `shoal bench` with these arguments and return its exit code."""
    return run_command(PROG, lambda: bench(arguments))


def bench(arguments: Sequence[str]) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=PROG, description="Measure the speed of the core, case by case.")
    if options.rounds < 1 or options.seconds <= 0 or options.num_cpus < 0:
        raise UsageError("--rounds must be at least 1, --seconds positive, --num-cpus 0 (all of the machine) or more")
    if options.only and not any(options.only in name for name in (*_CASES, _LIFE_CYCLE)):
        raise UsageError(
            f"--only {options.only!r} is in the name of no case; they are: {', '.join([*_CASES, _LIFE_CYCLE])}"
        )
    run_core(options)
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
