"""What owners and workers tell of the same tasks, put together: one row for each attempt. Pure.

    owner's row    submitted, waiting for arguments or a worker, sent           until there is a result
    worker's row   running since, or ran from when until when, phases, error    a while longer
    owner's row    failed without an answer: its worker died, it was never sent

An attempt that a worker tells of counts before what its owner knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..resources import SCALE
from ..scheduling.bundles import group_of, outside
from .rows import TaskState


def attempts(rows: Iterable[Mapping[str, Any]], *, job_id: str, node_id: str) -> list[TaskState]:
    """The rows of all processes as attempts, those of one task in order of time.

    Args:
      job_id, node_id: of the rows that do not say, for there is only one.
    """
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["task_id"], []).append(dict(row))
    return [
        _state(row, number, job_id, node_id) for told in by_task.values() for number, row in enumerate(_in_order(told))
    ]


def _in_order(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The attempts at one task."""
    begun = [row for row in told if _is_begun(row)]
    begun.sort(key=lambda row: row.get("start_time_ms") or row["end_time_ms"])
    live = next((row for row in told if not _is_begun(row)), None)
    if live is None:
        return begun
    if not begun or begun[-1]["state"] == "FAILED":
        return [*begun, live]
    # The attempt that the owner waits for is the last that a worker has told of.
    begun[-1] = {**live, **begun[-1]}
    return begun


def _is_begun(row: Mapping[str, Any]) -> bool:
    return "start_time_ms" in row or "end_time_ms" in row


def _state(row: Mapping[str, Any], number: int, job_id: str, node_id: str) -> TaskState:
    fields: dict[str, Any] = {
        name: row.get(name) for name in TaskState.__dataclass_fields__ if name not in ("attempt_number", "node_id")
    }
    fields["job_id"] = row.get("job_id", job_id)
    resources = row.get("required_resources")
    if resources is not None:
        fields["required_resources"] = {name: amount / SCALE for name, amount in outside(resources).items()}
        fields["placement_group_id"] = row.get("placement_group_id") or group_of(resources) or None
    fields["language"] = "PYTHON"
    fields["events"] = row.get("events") or _events(row)
    ran = row.get("worker_id") is not None
    return TaskState(attempt_number=number, node_id=row.get("node_id", node_id) if ran else None, **fields)


def _events(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The moments that are known, in Ray's form."""
    ended = row["state"] if row.get("end_time_ms") else None
    known = (
        ("PENDING_ARGS_AVAIL", row.get("creation_time_ms")),
        ("RUNNING", row.get("start_time_ms")),
        (ended, row.get("end_time_ms")),
    )
    return [{"state": state, "created_ms": at} for state, at in known if state and at is not None]
