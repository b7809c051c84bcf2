"""The same work three times over, and whether the third time left the processes larger than the first.

    pass -> look -> pass -> look -> pass -> look -> `growth` compares the last look with the first

A look is taken when the work is done and garbage collected. Memory is judged twice: what each process has for itself,
as long as it lives, and the proportional share of all together, in which the object store counts once.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

import shoal
from shoal.scripts.endurance import processes
from shoal.scripts.endurance.processes import Footprint

PASSES = 3
#: How much more memory the third pass may leave than the first.
GROWTH = 0.05
#: Below this a difference is noise: an arena of malloc, a slab that was taken a moment earlier.
_SLACK_BYTES = 1 << 20
_WAVE = 10_000
#: Actor calls at a time. How many wait at the actor at once sets its high-water mark, which several passes of ten
#: thousand at a time push up by chance, to a bound.
_CALLS = 1_000
_KIB = 1024
#: Until what a pass has let go is back: the refs' messages, the workers' idle time.
_SETTLE_S = 3.0
_PATIENCE_S = 600.0


def _nothing() -> None:
    return None


class _Actor:
    def nothing(self) -> None:
        return None


def one_pass(actor: Any, *, tasks: int, puts: int, calls: int) -> dict[str, float]:
    """So many no-op tasks in waves, puts of 1 KB and actor calls; what of each was done in a second."""
    task = shoal.remote(_nothing)
    rates = {}
    began = time.monotonic()
    for start in range(0, tasks, _WAVE):
        shoal.get([task.remote() for _ in range(min(_WAVE, tasks - start))], timeout=_PATIENCE_S)
    rates["tasks"], began = tasks / (time.monotonic() - began), time.monotonic()
    content = b"x" * _KIB
    for _ in range(puts):
        shoal.put(content)
    rates["puts"], began = puts / (time.monotonic() - began), time.monotonic()
    for start in range(0, calls, _CALLS):
        shoal.get([actor.nothing.remote() for _ in range(min(_CALLS, calls - start))], timeout=_PATIENCE_S)
    rates["calls"] = calls / (time.monotonic() - began)
    return rates


def look() -> dict[str, Footprint]:
    """What every process of the session holds, by name and pid; the driver is called so."""
    gc.collect()
    time.sleep(_SETTLE_S)
    found = {"driver": processes.footprint(os.getpid())}
    for process in processes.of_session():
        try:
            found[f"{process.name().removeprefix('shoal-')} {process.pid}"] = processes.footprint(process.pid)
        except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):  # it has just ended
            continue
    return found


def growth(first: Mapping[str, Footprint], last: Mapping[str, Footprint]) -> list[str]:
    """What has grown more than it may from the first look to the last, a line each."""
    wrong = []
    for name in first.keys() & last.keys():
        before, after = first[name], last[name]
        wrong += _more_memory(f"private memory of {name}", before.private_bytes, after.private_bytes)
        for what, less, more in (
            ("descriptors", before.descriptors, after.descriptors),
            ("threads", before.threads, after.threads),
        ):
            if more > less:
                wrong.append(f"{name} has {more} {what}, had {less}")
    total_before, total_after = sum(first.values(), Footprint()), sum(last.values(), Footprint())
    wrong += _more_memory("memory of all", total_before.pss_bytes, total_after.pss_bytes)
    if total_after.processes > total_before.processes:
        wrong.append(f"there are {total_after.processes} processes, there were {total_before.processes}")
    return sorted(wrong)


def _more_memory(what: str, before: int, after: int) -> list[str]:
    if after <= before * (1 + GROWTH) or after - before <= _SLACK_BYTES:
        return []
    return [f"{what} grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB, {after / before - 1:.0%}"]


def run(scale: float) -> tuple[str, list[str]]:
    """The passes, in the current session; what was done, and what is wrong."""
    actor = shoal.remote(num_cpus=0)(_Actor).remote()
    amounts = {"tasks": int(1_000_000 * scale), "puts": int(1_000_000 * scale), "calls": int(100_000 * scale)}
    looks, rates = [], {}
    for _ in range(PASSES):
        rates = one_pass(actor, **amounts)
        looks.append(look())
    totals = [sum(each.values(), Footprint()).pss_bytes / 1e6 for each in looks]
    done = ", ".join(f"{amounts[name]:,} {name} ({rate:,.0f}/s)" for name, rate in rates.items())
    return f"{done}; {' -> '.join(f'{total:.1f}' for total in totals)} MB", growth(looks[0], looks[-1])
