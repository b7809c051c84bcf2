"""What goes on in a Ray cluster, as the rows of `base.Survey`.

    placement_groups                              Ray's own table (`groups.py`)
    tasks counts actors objects workers jobs      `ray.util.state`, which asks the cluster's API server
    metrics spans store                           refused: no process of Ray's tells them

The API server is the process behind Ray's dashboard: clusters of ``ray[default]`` have one on their head, and a Ray
without that extra has none. Then the lists are refused with what to start. Ray's workers tell of their tasks once a
second, so that the lists lag by that much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util import state as theirs
from ray.util.state.exception import RayStateApiException, ServerUnavailable

from ...errors import StateApiError
from ...runtime.questions import Question
from ..base import GroupDescription, Survey
from . import groups
from .nodes import parts

Row = dict[str, Any]

#: Ray's bound of one answer.
_MOST = 10_000
_PHASES = ("task:deserialize_arguments", "task:execute", "task:store_outputs")
#: Of a task that is over: `counts` are of the others.
_OVER = ("FINISHED", "FAILED")
_NO_SERVER = (
    "Ray's lists of tasks, actors, objects, workers and jobs come from its API server, and this cluster runs without: "
    "pip install 'ray[default]', and start it with init(engine='ray', include_dashboard=True) or ray start --head"
)
_NOT_TOLD = {
    "metrics": "the numbers of a Ray cluster are collected by its nodes: Prometheus reads them at "
    "http://NodeManagerAddress:MetricsExportPort/metrics of each of nodes(), where ray[default] is installed",
    "spans": "Ray does not record what was waited for",
    "store": "what Ray's store holds is told by `ray memory`",
}


def survey(question: Question) -> Survey:
    """As `base.Engine.survey`. There is no process to be asked by itself: a `target` is of no meaning.

    Raises:
      StateApiError: Ray does not tell this, or not without what the message says.
    """
    subject, key, timeout_s = question.subject, question.key, question.timeout_s
    if subject in _NOT_TOLD:
        raise StateApiError(_NOT_TOLD[subject])
    if subject == "placement_groups":
        return Survey([_group(group) for group in groups.described()], {}, [], is_all=True)
    if subject == "counts":
        return Survey([], {b"": _counts(_summary(timeout_s))}, [], is_all=True)
    asks: dict[str, tuple[Callable[..., Sequence[Any]], Callable[[Any], Row], str]] = {
        "tasks": (theirs.list_tasks, task_row, "task_id"),
        "actors": (theirs.list_actors, actor_row, "actor_id"),
        "objects": (theirs.list_objects, fields_of, "object_id"),
        "workers": (theirs.list_workers, fields_of, "worker_id"),
        "jobs": (theirs.list_jobs, job_row, "job_id"),
    }
    ask, row_of, name = asks[subject]
    filters = [(name, "=", key.hex())] if key else None
    limit = min(question.limit, _MOST)
    found = _asked(ask, timeout_s, filters=filters, limit=limit, detail=True, raise_on_missing_output=False)
    rows = [row_of(row) for row in found]
    is_all = len(rows) < limit
    return Survey([], {b"": rows}, [], is_all) if subject == "objects" else Survey(rows, {}, [], is_all)


def timeline() -> list[Row]:
    """Chrome's events, in Ray's form."""
    found: list[Row] = ray.timeline()
    return found


def task_of(task_id: bytes) -> Row | None:
    """The last attempt at a task; None if Ray knows nothing of it. Raises as `survey`."""
    rows = survey(Question("tasks", key=task_id, limit=_MOST)).facts
    return max(rows, key=lambda row: int(row["attempt_number"])) if rows else None


def _asked(ask: Callable[..., Any], timeout_s: float | None, **arguments: Any) -> Any:
    """What the API server answers."""
    _refuse_without_server()
    timeout = max(1, round(30 if timeout_s is None else timeout_s))
    try:
        return ask(address=ray.get_runtime_context().gcs_address, timeout=timeout, **arguments)
    except ServerUnavailable:
        raise StateApiError(_NO_SERVER) from None
    except RayStateApiException as error:
        raise StateApiError(f"Ray's API server: {' '.join(str(error).split())}") from error


def _refuse_without_server() -> None:
    """Where no node has an agent nobody would answer, or another cluster's server on Ray's usual port."""
    if all(row["DashboardAgentListenPort"] < 0 for row in ray.nodes() if row["Alive"]):
        raise StateApiError(_NO_SERVER)


def _summary(timeout_s: float | None) -> Mapping[str, Any]:
    told = _asked(theirs.summarize_tasks, timeout_s, raise_on_missing_output=False)
    summary: Mapping[str, Any] = told["cluster"]["summary"]
    return summary


def _counts(summary: Mapping[str, Any]) -> list[Row]:
    return [
        {"name": entry["func_or_class_name"], "type": entry["type"], "state": state, "count": count}
        for entry in summary.values()
        for state, count in entry["state_counts"].items()
        if state not in _OVER
    ]


def fields_of(told: Any) -> Row:
    """One of Ray's rows, which are dataclasses."""
    return {field.name: getattr(told, field.name) for field in dataclasses.fields(told)}


def task_row(told: Any) -> Row:
    """An attempt at a task."""
    row = fields_of(told)
    row["required_resources"] = parts(row.get("required_resources") or {})
    events = (row.get("profiling_data") or {}).get("events", ())
    row["profiling_data"] = {
        event["event_name"]: (event["start_time"], event["end_time"])
        for event in events
        if event["event_name"] in _PHASES
    }
    return {name: value for name, value in row.items() if value is not None}


def actor_row(told: Any) -> Row:
    """An actor."""
    row = fields_of(told)
    row["required_resources"] = parts(row.get("required_resources") or {})
    row["death_cause"] = _cause(row.get("death_cause"))
    return row


def job_row(told: Any) -> Row:
    """A job, which is no dataclass but a model, and has others inside."""
    row = dict(told)
    row["type"], row["status"] = _plain(row["type"]), _plain(row["status"])
    driver = row.get("driver_info")
    if driver is not None:
        row["driver_info"] = {"id": driver.id, "node_ip_address": driver.node_ip_address, "pid": int(driver.pid)}
    return row


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))


def _cause(told: Any) -> str | None:
    """The text in Ray's account of a death."""
    if not isinstance(told, Mapping):
        return told or None
    for context in told.values():
        if isinstance(context, Mapping) and context.get("error_message"):
            return str(context["error_message"])
    return next(iter(told), None)


def _group(group: GroupDescription) -> Row:
    return {
        "placement_group_id": group.group_id.hex(),
        "name": group.name,
        "state": group.state,
        "bundles": group.bundles,
        "nodes": [node.hex() for node in group.nodes],
        "attempts": group.attempts,
    }
