"""``shoal.timeline``: what every process did and when, as Chrome trace events (chrome://tracing, ui.perfetto.dev).

    task:deserialize_arguments | task:execute | task:store_outputs      of each task, call and creation
    ray.get, ray.wait                                                   of each wait that lasted

Every process remembers a bounded number of the last ones (history.py); this asks all of them and puts the answers into
Ray's form: "X" events with microseconds, "M" rows that name processes and threads. The events of a Ray
cluster are Ray's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..engines.base import Engine
from ..engines.current import running
from ..errors import SessionError
from ..runtime.questions import Question
from ..scheduling.machine import ADDRESS
from .attempts import attempts
from .rows import TaskState

#: Names of Chrome's colours, those that Ray gives the same events.
_COLOURS = {
    "task:deserialize_arguments": "rail_load",
    "task:execute": "rail_animation",
    "task:store_outputs": "rail_idle",
    "ray.get": "good",
    "ray.wait": "vsync_highlight_color",
}
_MOST = 1_000_000


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """What the session's processes have done lately, as Chrome trace events.

    Args:
      filename: where to write them as JSON; None gives them back.

    Raises:
      SessionError: there is no session.
    """
    engine = running()
    if engine is None:
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    events = engine.trace()
    if events is None:
        events = _surveyed(engine)
    if filename is None:
        return events
    Path(filename).write_text(json.dumps(events), encoding="utf-8")
    return None


def _surveyed(engine: Engine) -> list[dict[str, Any]]:
    """The events, of what every process tells."""
    here = engine.place()
    tasks, spans = (engine.survey(Question(subject, limit=_MOST)) for subject in ("tasks", "spans"))
    told = [row for rows in (tasks.facts, *tasks.answers.values()) for row in rows if "task_id" in row]
    waits = [row for rows in (spans.facts, *spans.answers.values()) for row in rows if "verb" in row]
    kinds = {row["worker_id"]: row["worker_type"].lower() for row in tasks.facts if "worker_type" in row}
    ran = [task for task in attempts(told, job_id=here.job_id.hex(), node_id=here.node_id.hex()) if task.profiling_data]
    return trace(ran, waits, kinds)


def trace(
    tasks: Iterable[TaskState], waits: Iterable[Mapping[str, Any]], kinds: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Chrome's events, in order of time, after the rows that name processes and threads.

    Args:
      tasks: attempts that have run.
      waits: rows of spans (history.py).
      kinds: "driver" or "worker" by worker id; the dead are workers.
    """
    events = []
    names: dict[str | None, TaskState] = {}
    for task in tasks:
        names[task.task_id] = task
        for phase, (since_ms, until_ms) in (task.profiling_data or {}).items():
            name = task.name if phase == "task:execute" else phase
            events.append(_event(phase, name, _thread(task.worker_id, kinds), since_ms, until_ms, _arguments(task)))
    for row in waits:
        category = f"ray.{row['verb']}"
        waiter = names.get(row["task_id"])
        arguments = {"task_id": row["task_id"]} if waiter is None else _arguments(waiter)
        thread = _thread(row["worker_id"], kinds)
        events.append(_event(category, category, thread, row["start_time_ms"], row["end_time_ms"], arguments))
    events.sort(key=lambda event: event["ts"])
    threads = dict.fromkeys(event["tid"] for event in events)
    labels = [{"name": "process_name", "ph": "M", "pid": ADDRESS, "args": {"name": f"Node {ADDRESS}"}}]
    labels += [{"name": "thread_name", "ph": "M", "pid": ADDRESS, "tid": tid, "args": {"name": tid}} for tid in threads]
    return [*labels, *events]


def _event(
    category: str, name: str, thread: str, since_ms: float, until_ms: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "cat": category,
        "name": name,
        "pid": ADDRESS,
        "tid": thread,
        "ts": since_ms * 1e3,
        "dur": max(0.0, until_ms - since_ms) * 1e3,
        "ph": "X",
        "cname": _COLOURS[category],
        "args": arguments,
    }


def _arguments(task: TaskState) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "job_id": task.job_id,
        "attempt_number": task.attempt_number,
        "func_or_class_name": task.func_or_class_name,
        "actor_id": task.actor_id,
    }


def _thread(worker_id: str | None, kinds: Mapping[str, str]) -> str:
    return f"{kinds.get(worker_id or '', 'worker')}:{worker_id}"
