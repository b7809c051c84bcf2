"""What a ref of a Ray cluster waits for, in words: by the state of the task that makes it.

Ray tells of each task where it stands, and not which argument or which other task holds it up: so the chain of reasons
that shoal's own engines tell ends here with its first link.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import ray.exceptions

from ...refs import ObjectRef
from ...resources import ResourceSet
from ..base import NodeDescription, Stock
from . import nodes, state
from .demands import unmet
from .handles import inner_of

_WAITS = {
    "PENDING_ARGS_AVAIL": "waits for its arguments",
    "PENDING_OBJ_STORE_MEM_AVAIL": "waits for room in the object store for its arguments",
    "PENDING_ARGS_FETCH": "waits for its arguments to be fetched from other nodes",
    "SUBMITTED_TO_WORKER": "is on its way to a worker",
    "PENDING_ACTOR_TASK_ARGS_FETCH": "waits at its actor for its arguments to be fetched",
    "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY": "waits at its actor for its turn",
    "RUNNING_IN_RAY_GET": "and waits in get",
    "RUNNING_IN_RAY_WAIT": "and waits in wait",
}


def explain(ref: ObjectRef) -> str:
    """As `base.Engine.explain`.

    Raises:
      StateApiError: the object is not there, and there is nobody to ask why.
    """
    inner = inner_of(ref)
    if ray.wait([inner], timeout=0, fetch_local=False)[0]:
        return f"{ref!r} is there" + (": it is an error, which get raises" if _is_error(inner) else "")
    task = state.task_of(ref.task_id().binary())
    if task is None:
        return f"{ref!r} is not there, and Ray tells of no task that makes it"
    return reason(task, nodes.stock(), nodes.described(), now_ms=time.time() * 1e3)


def reason(task: Mapping[str, Any], stock: Stock, machines: Sequence[NodeDescription], *, now_ms: float) -> str:
    """What an attempt at a task waits for. Pure.

    Args:
      task: a row of `state.task_row`.
    """
    name, where = f"{task['name']}()", str(task["state"])
    if where.startswith("RUNNING"):
        since_s = max(0.0, now_ms - task.get("start_time_ms", now_ms)) / 1e3
        runs = f"{name} runs on pid {task.get('worker_pid', '?')} since {since_s:.1f} s"
        return f"{runs} {_WAITS[where]}" if where in _WAITS else runs
    if where == "PENDING_NODE_ASSIGNMENT":
        return f"{name} waits in the queue: {_shortage(task, stock, machines)}"
    return f"{name} {_WAITS.get(where, f'is in the state {where}')}"


def _shortage(task: Mapping[str, Any], stock: Stock, machines: Sequence[NodeDescription]) -> str:
    demand = ResourceSet(task["required_resources"])
    never = unmet(demand, None, [machine for machine in machines if machine.is_alive])
    if never:
        return f"it {never}: it waits until a node joins that has"
    free = ResourceSet(stock.available)
    if demand.fits(free):
        return f"it needs {demand.describe()}, and waits for a worker to start, or for a node that has all of it free"
    return f"it {demand.shortage(free, 'the cluster')} free"


def _is_error(inner: Any) -> bool:
    """Of an object that is there; one that lies on another node is not fetched for it."""
    try:
        ray.get(inner, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return False
    except Exception:  # noqa: BLE001  whatever the task has raised
        return True
    return False
