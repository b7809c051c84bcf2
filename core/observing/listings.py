"""``shoal.util.state``: what there is and what it does, as rows. Ray's names; the head answers, without a web server.

    list_tasks(filters=[("state", "=", "running")], detail=True)

Each call asks the head, which asks every process where that is needed (`engines.base.Survey`). What finished long ago
is forgotten: every process remembers its last 4,000 tasks (``SHOAL_HISTORY_TASKS``), a killed one takes that along.
A process that does not answer within a second is not waited for: the call raises `StateApiError` naming it, or with
``raise_on_missing_output=False`` warns and gives what the others told.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .. import ids
from ..engines.base import Engine, NodeDescription, Survey
from ..engines.current import running
from ..errors import SessionError, StateApiError
from ..refs import ObjectRef
from ..resources import SCALE
from ..runtime.questions import Question
from ..scheduling.bundles import group_of, outside
from .attempts import attempts
from .rows import (
    ActorState,
    Filter,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    Row,
    TaskState,
    WorkerState,
    check_filters,
    passes,
    without_details,
)

__all__ = [
    "explain",
    "get_actor",
    "get_job",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_jobs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]

R = TypeVar("R", bound=Row)

#: Ray's default, and its bound.
_LIMIT = 100
_MOST = 10_000


def list_tasks(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002  Ray's signature
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[TaskState]:
    """Tasks, calls and creations of actors: those under way, and the last that are over; a row for each attempt.

    Args:
      address: None or "auto": this session.
      filters: (key, "=" or "!=", value) each; a row has to pass all of them.
      limit: rows at most; up to 10,000.
      timeout: seconds that a process may take to answer, at most one.
      detail: fill in all fields.
      raise_on_missing_output: raise, and do not warn, when not everything could be had.

    Raises:
      StateApiError: a filter names what there is not; the limit is out of range; a process did not answer.
      SessionError: there is no session.
    """
    return _choose(TaskState, _tasks, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_actors(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[ActorState]:
    """Actors, also dead ones whose creator lives. Arguments and errors as of `list_tasks`."""
    return _choose(ActorState, _actors, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_objects(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[ObjectState]:
    """Objects, a row for each process that holds one. Arguments and errors as of `list_tasks`."""
    return _choose(ObjectState, _objects, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_workers(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[WorkerState]:
    """The session's driver and workers, also the last thousand that have ended. As `list_tasks`."""
    return _choose(WorkerState, _workers, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_nodes(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[NodeState]:
    """The machines of the session. As `list_tasks`."""
    return _choose(NodeState, _nodes, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[PlacementGroupState]:
    """Placement groups. As `list_tasks`."""
    return _choose(PlacementGroupState, _groups, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_jobs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: float = 30,
    detail: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing_output: bool = True,  # noqa: FBT001, FBT002
) -> list[JobState]:
    """The driver's session: one row. As `list_tasks`."""
    return _choose(JobState, _jobs, address, filters, limit, timeout, detail, raise_on_missing_output)


def explain(ref: ObjectRef) -> str:
    """What a ref is waiting for, in words: to the end of the chain of arguments, actors, resources and nested waits.

    Example:
      >>> state.explain(total.remote(part.options(num_cpus=4).remote()))  # doctest: +SKIP
      'total() waits for its argument ObjectRef(...); part() waits in the queue: it needs CPU 4, 2 of 4 are free; ...'

    Raises:
      TypeError: `ref` is none.
      SessionError: there is no session.
    """
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"explain takes an ObjectRef, not {type(ref).__name__} {ref!r}")
    return _engine(None).explain(ref)


# ---- one


def get_task(id: str, address: str | None = None, timeout: float = 30) -> TaskState | list[TaskState] | None:  # noqa: A002
    """The task of a hex id; a list if there were several attempts; None if nothing is known of it."""
    key = _key(id, ids.TASK_BYTES, "task")
    found = _query(_tasks, address, timeout, key=key)[0]
    return found[0] if len(found) == 1 else found or None


def get_actor(id: str, address: str | None = None, timeout: float = 30) -> ActorState | None:  # noqa: A002
    """The actor of a hex id, with all details; None if nothing is known of it."""
    return _one(_query(_actors, address, timeout)[0], "actor_id", id)


def get_objects(id: str, address: str | None = None, timeout: float = 30) -> list[ObjectState]:  # noqa: A002
    """The object of a hex id, as each process holds it."""
    return _query(_objects, address, timeout, key=_key(id, ids.OBJECT_BYTES, "object"))[0]


def get_worker(id: str, address: str | None = None, timeout: float = 30) -> WorkerState | None:  # noqa: A002
    """The process of a hex id."""
    return _one(_query(_workers, address, timeout)[0], "worker_id", id)


def get_node(id: str, address: str | None = None, timeout: float = 30) -> NodeState | None:  # noqa: A002
    """The machine of a hex id."""
    return _one(_query(_nodes, address, timeout)[0], "node_id", id)


def get_placement_group(id: str, address: str | None = None, timeout: float = 30) -> PlacementGroupState | None:  # noqa: A002
    """The placement group of a hex id."""
    return _one(_query(_groups, address, timeout)[0], "placement_group_id", id)


def get_job(id: str, address: str | None = None, timeout: float = 30) -> JobState | None:  # noqa: A002
    """The job of a hex id."""
    return _one(_query(_jobs, address, timeout)[0], "job_id", id)


# ---- sums


def summarize_tasks(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many tasks of each name are in which state, in Ray's form."""
    found, _, is_all = _query(_tasks, address, timeout)
    counts = Counter((task.func_or_class_name, task.type, task.state) for task in found)
    if not is_all:
        # Too many to tell one by one: those without a result are counted where they are.
        live = _ask(_engine(address), "counts", timeout)
        counts = Counter({key: n for key, n in counts.items() if key[2] in ("FINISHED", "FAILED")})
        for row in (row for rows in live.answers.values() for row in rows):
            counts[row["name"], row["type"], row["state"]] += row["count"]
    summary: dict[str, dict[str, Any]] = {}
    for (name, kind, state), number in counts.items():
        entry = summary.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})
        entry["state_counts"][state] = entry["state_counts"].get(state, 0) + number
    totals = Counter[str]()
    for (_, kind, _), number in counts.items():
        totals[kind] += number
    cluster = {
        "summary": summary,
        "total_tasks": totals["NORMAL_TASK"],
        "total_actor_tasks": totals["ACTOR_TASK"],
        "total_actor_scheduled": totals["ACTOR_CREATION_TASK"],
        "summary_by": "func_name",
    }
    return {"cluster": cluster}


def summarize_actors(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many actors of each class are in which state, in Ray's form."""
    found = _query(_actors, address, timeout)[0]
    summary: dict[str, dict[str, Any]] = {}
    for actor in found:
        entry = summary.setdefault(actor.class_name, {"class_name": actor.class_name, "state_counts": {}})
        entry["state_counts"][actor.state] = entry["state_counts"].get(actor.state, 0) + 1
    return {"cluster": {"summary": summary, "total_actors": len(found), "summary_by": "class"}}


def summarize_objects(address: str | None = None, timeout: float = 30) -> dict[str, Any]:
    """How many objects are held for which reason, and their bytes, in Ray's form. Call sites are not recorded, so all
    stand under "disabled".
    """
    found = _query(_objects, address, timeout)[0]
    sizes = {found_object.object_id: max(found_object.object_size, 0) for found_object in found}
    total_mb = sum(sizes.values()) / 1e6
    entry = {
        "total_objects": len(sizes),
        "total_size_mb": total_mb,
        "total_num_workers": len({found_object.pid for found_object in found}),
        "total_num_nodes": len({found_object.ip for found_object in found}),
        "task_state_counts": dict(Counter(found_object.task_status for found_object in found)),
        "ref_type_counts": dict(Counter(found_object.reference_type for found_object in found)),
    }
    cluster = {
        "summary": {"disabled": entry} if found else {},
        "total_objects": len(sizes),
        "total_size_mb": total_mb,
        "callsite_enabled": False,
        "summary_by": "callsite",
    }
    return {"cluster": cluster}


# ---- how rows are had

#: (rows, processes that were silent, whether these are all).
_Found = tuple[list[R], list[str], bool]


def _choose(
    kind: type[R],
    source: Callable[..., _Found[R]],
    address: str | None,
    filters: Sequence[Filter] | None,
    limit: int,
    timeout: float,
    detail: bool,  # noqa: FBT001
    raise_on_missing: bool,  # noqa: FBT001
) -> list[R]:
    """What every list comes to."""
    if not 0 < limit <= _MOST:
        raise StateApiError(f"limit must be between 1 and {_MOST}, not {limit}")
    filters = filters or []
    check_filters(kind, filters, detail=detail)
    rows, silent, is_all = _query(source, address, timeout)
    if silent or not is_all:
        told = f"did not answer in time: {', '.join(silent)}" if silent else f"more than {_MOST} rows in one process"
        if raise_on_missing:
            raise StateApiError(f"not all could be listed ({told}); raise_on_missing_output=False gives the rest")
        warnings.warn(f"not everything is listed: {told}", stacklevel=3)
    chosen = [row for row in rows if passes(row, filters)][:limit]
    return chosen if detail else [without_details(row) for row in chosen]


def _query(source: Callable[..., _Found[R]], address: str | None, timeout: float, **asked: Any) -> _Found[R]:
    return source(_engine(address), timeout, **asked)


def _engine(address: str | None) -> Engine:
    if address not in (None, "auto"):
        raise StateApiError(f"only this session can be asked, which address=None or 'auto' mean, not {address!r}")
    engine = running()
    if engine is None:
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return engine


def _ask(engine: Engine, subject: str, timeout: float, *, key: bytes = b"", target: bytes | None = None) -> Survey:
    return engine.survey(Question(subject, key, target, _MOST, timeout))


def _tasks(engine: Engine, timeout: float, *, key: bytes = b"") -> _Found[TaskState]:
    survey = _ask(engine, "tasks", timeout, key=key)
    pids = {row["worker_id"]: row["pid"] for row in survey.facts if "worker_type" in row}
    rows = [row for row in survey.facts if "task_id" in row]
    rows += [row for told in survey.answers.values() for row in told]
    here = engine.place()
    found = attempts(rows, job_id=here.job_id.hex(), node_id=here.node_id.hex())
    for task in found:
        if task.worker_pid is None and task.worker_id is not None:
            task.worker_pid = pids.get(task.worker_id)
    return found, survey.silent, survey.is_all


def _actors(engine: Engine, timeout: float) -> _Found[ActorState]:
    survey = _ask(engine, "actors", timeout, target=b"")
    here = engine.place()
    found = []
    for row in survey.facts:
        known = {name: row[name] for name in ActorState.__dataclass_fields__ if name in row}
        shape = row["required_resources"]
        known["required_resources"] = _units(outside(shape))
        known["placement_group_id"] = row.get("placement_group_id") or group_of(shape) or None
        placed = row["state"] not in ("PENDING_CREATION", "DEPENDENCIES_UNREADY")
        known.setdefault("job_id", here.job_id.hex())
        known.setdefault("node_id", here.node_id.hex() if placed else None)
        found.append(ActorState(**known))
    return found, survey.silent, survey.is_all


def _objects(engine: Engine, timeout: float, *, key: bytes = b"") -> _Found[ObjectState]:
    survey = _ask(engine, "objects", timeout, key=key)
    rows = [_made(ObjectState, row) for told in survey.answers.values() for row in told]
    return rows, survey.silent, survey.is_all


def _workers(engine: Engine, timeout: float) -> _Found[WorkerState]:
    survey = _ask(engine, "workers", timeout, target=b"")
    found = [_made(WorkerState, row) for row in survey.facts]
    for worker in found:
        worker.worker_launch_time_ms = worker.worker_launched_time_ms = worker.start_time_ms
    return found, [], survey.is_all


def _nodes(engine: Engine, timeout: float) -> _Found[NodeState]:  # noqa: ARG001  a question to the head alone
    return [_node(node) for node in engine.nodes()], [], True


def _node(node: NodeDescription) -> NodeState:
    return NodeState(
        node_id=node.node_id.hex(),
        node_ip=node.address,
        is_head_node=node.is_head,
        state="ALIVE" if node.is_alive else "DEAD",
        state_message=node.further.get("DeathReasonMessage") or None,
        node_name=node.hostname,
        resources_total=_units(node.total),
        labels=dict(node.labels),
    )


def _groups(engine: Engine, timeout: float) -> _Found[PlacementGroupState]:
    survey = _ask(engine, "placement_groups", timeout, target=b"")
    here = engine.place()
    return [_group(row, here.job_id.hex(), here.node_id.hex()) for row in survey.facts], [], True


def _group(row: Mapping[str, Any], job_id: str, node_id: str) -> PlacementGroupState:
    group_id = row["placement_group_id"]
    nodes = row.get("nodes") or [node_id if row["state"] == "CREATED" else ""] * len(row["bundles"])
    return PlacementGroupState(
        placement_group_id=group_id,
        name=row["name"],
        creator_job_id=job_id,
        state=row["state"],
        bundles=[
            {
                "bundle_id": {"placement_group_id": group_id, "bundle_index": index},
                "unit_resources": _units(bundle),
                "node_id": nodes[index],
            }
            for index, bundle in enumerate(row["bundles"])
        ],
        is_detached=row.get("is_detached"),
        stats={"scheduling_attempt": row["attempts"]},
    )


def _jobs(engine: Engine, timeout: float) -> _Found[JobState]:
    survey = _ask(engine, "jobs", timeout, target=b"")
    return [_made(JobState, row) for row in survey.facts], [], survey.is_all


def _made(kind: type[R], row: Mapping[str, Any]) -> R:
    """A row of what was told; what it has no field for is left out."""
    return kind(**{name: row[name] for name in kind.__dataclass_fields__ if name in row})


def _one(found: Iterable[R], name: str, wanted: str) -> R | None:
    return next((row for row in found if row[name] == wanted), None)


def _key(hexed: str, nbytes: int, what: str) -> bytes:
    try:
        key = bytes.fromhex(hexed)
    except (TypeError, ValueError):
        key = b""
    if len(key) != nbytes:
        raise StateApiError(f"the id of a {what} has {2 * nbytes} hex digits, {hexed!r} is none")
    return key


def _units(parts: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / SCALE for name, amount in parts.items()}
