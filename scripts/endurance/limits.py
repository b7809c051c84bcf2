"""How much of one thing there may be: the single-node limits that Ray's own release tests try, one function each.

Each function does it in the current session and raises `Shortfall` where what came back is not what was asked for.
Counts come with a scale, so that a test can run them small.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import shoal
from shoal.scripts.benchmarks.report import counted
from shoal.scripts.endurance import processes

_PATIENCE_S = 900.0
_ITEMS = 10_000
_GIB = 1024**3


class Shortfall(RuntimeError):  # noqa: N818 - reads as what it says
    """What came back is not what was asked for."""


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Shortfall(f"{what} is {found!r}, not {expected!r}")


def _nothing(position: int) -> int:
    return position


def _hold(gate: str) -> None:
    """Keep a CPU busy until the file is there; a `get` would give the CPU back."""
    deadline = time.monotonic() + _PATIENCE_S
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def queued_tasks(scale: float) -> str:
    """A million tasks queue behind blocked CPUs, and all complete."""
    count = max(1, int(1_000_000 * scale))
    task = shoal.remote(_nothing)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        gate = Path(folder, "open")
        cpus = int(shoal.cluster_resources()["CPU"])
        blockers = [shoal.remote(_hold).remote(str(gate)) for _ in range(cpus)]
        began = time.monotonic()
        refs = [task.remote(position) for position in range(count)]
        submitted_s = time.monotonic() - began
        held = processes.whole_session().pss_bytes
        gate.touch()
        _expect("the sum", sum(shoal.get(refs, timeout=_PATIENCE_S)), count * (count - 1) // 2)
        shoal.get(blockers, timeout=_PATIENCE_S)
    return (
        f"{counted(count, 'task')} queued behind {counted(cpus, 'blocked CPU')}: submitted in {submitted_s:.1f} s, "
        f"{held / 1e6:,.0f} MB then, all done after {time.monotonic() - began:.1f} s"
    )


def object_arguments(scale: float) -> str:
    """One task takes ten thousand objects, each a list of ten thousand numbers."""
    count = max(1, int(10_000 * scale))
    refs = [shoal.put(list(range(_ITEMS))) for _ in range(count)]
    began = time.monotonic()
    found = shoal.get(shoal.remote(_count).remote(*refs), timeout=_PATIENCE_S)
    _expect("the number of items", found, count * _ITEMS)
    return f"{count:,} object arguments to one task: {time.monotonic() - began:.1f} s"


def _count(*values: list[int]) -> int:
    return sum(map(len, values))


def returns(scale: float) -> str:
    """One task returns three thousand objects."""
    count = max(2, int(3_000 * scale))
    began = time.monotonic()
    refs = shoal.remote(_lists).options(num_returns=count).remote(count)
    values = shoal.get(refs, timeout=_PATIENCE_S)
    _expect("the number of returns", len(values), count)
    _expect("the last", values[-1], list(range(count - 1, count - 1 + _ITEMS)))
    return f"{count:,} returns of one task: {time.monotonic() - began:.1f} s"


def _lists(count: int) -> list[list[int]]:
    return [list(range(start, start + _ITEMS)) for start in range(count)]


def many_gets(scale: float) -> str:
    """One `get` of ten thousand objects of 80 KB."""
    count = max(1, int(10_000 * scale))
    refs = [shoal.put(np.arange(start, start + _ITEMS)) for start in range(count)]
    began = time.monotonic()
    values = shoal.get(refs, timeout=_PATIENCE_S)
    seconds = time.monotonic() - began
    _expect("the first numbers", [int(value[0]) for value in values], list(range(count)))
    return f"get of {counted(count, 'ref')}: {seconds:.2f} s"


def one_large_array(scale: float) -> str:
    """An array of 4 GiB goes in and comes out."""
    count = int(4 * _GIB * scale) // 8
    array = np.zeros(count, dtype=np.int64)
    array[0], array[count // 2], array[-1] = 1, 2, 3
    began = time.monotonic()
    found = shoal.get(shoal.put(array), timeout=_PATIENCE_S)
    seconds = time.monotonic() - began
    _expect("its length", len(found), count)
    _expect("what stands in it", [int(found[0]), int(found[count // 2]), int(found[-1])], [1, 2, 3])
    return f"one array of {array.nbytes / _GIB:.2f} GiB: {seconds:.1f} s"


#: At most, of a worker that has nothing to do.
IDLE_THREADS, IDLE_BYTES = 3, 40 * 10**6


def idle_workers(_scale: float) -> str:
    """What a worker holds that has run something and has nothing to do."""
    pids = shoal.get([shoal.remote(_own_pid).remote() for _ in range(8)], timeout=_PATIENCE_S)
    time.sleep(1.0)  # what it takes up with the last task, it has put down by then
    found = [processes.footprint(process.pid) for process in processes.workers()]
    if not found:
        raise Shortfall(f"no idle worker was kept; these ran the tasks: {sorted(set(pids))}")
    threads, private = max(each.threads for each in found), max(each.private_bytes for each in found)
    told = (
        f"{counted(len(found), 'idle worker')}: at most {threads} threads and {private / 1e6:.1f} MB of private memory "
        "each"
    )
    if threads > IDLE_THREADS or private > IDLE_BYTES:
        raise Shortfall(f"{told}; {IDLE_THREADS} and {IDLE_BYTES / 1e6:.0f} are the bounds")
    return told


def _own_pid() -> int:
    time.sleep(0.05)
    return os.getpid()


#: In the order in which they are tried.
LIMITS: tuple[Callable[[float], str], ...] = (
    idle_workers,
    queued_tasks,
    object_arguments,
    returns,
    many_gets,
    one_large_array,
)
