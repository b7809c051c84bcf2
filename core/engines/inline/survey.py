"""What goes on in an inline session, told in the words of `runtime.inspecting`: rows from this process's own tables.

There is one process, so there is nobody to ask: the same subjects, answered at once. Called with the session's lock
held (turns.py sees to it).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

from ... import ids
from ...runtime.history import ACTOR_CREATION_TASK, ACTOR_TASK, NORMAL_TASK, History, Row, task_identity
from ...runtime.questions import Question
from ...scheduling.machine import ADDRESS
from ...serialization import values
from ...serialization.values import FAILURE
from ..base import Survey
from .session import InlineSession
from .work import Actor, Work

_STATES = {"IDLE": "ALIVE", "BUSY": "ALIVE", "DEAD": "DEAD"}


class InlineInspector:
    """Answers for an inline session."""

    def __init__(
        self, tables: InlineSession, history: History, node_id: bytes, metrics: Callable[[], list[Row]]
    ) -> None:
        self._tables = tables
        self._history = history
        self._node_id = node_id
        self._metrics = metrics
        self._began_ms = time.time() * 1e3

    def survey(self, question: Question) -> Survey:
        """The answer to a question."""
        subject = question.subject
        subjects: dict[str, Callable[[bytes], list[Row]]] = {
            "tasks": self._tasks,
            "counts": self._counts,
            "spans": lambda _: [self._here(row) for row in self._history.span_rows()],
            "objects": self._objects,
            "store": lambda _: self._tables.objects.stored(),
            "metrics": lambda _: self._metrics(),
        }
        if subject == "actors":
            return Survey([self._actor(a) for a in self._tables.schedule.actors.values()], {}, [], is_all=True)
        if subject == "placement_groups":
            return Survey(self._tables.groups.facts(), {}, [], is_all=True)
        if subject not in subjects:
            return Survey([self._driver()] if subject == "workers" else [], {}, [], is_all=True)
        rows = subjects[subject](question.key)
        told, is_all = rows[: question.limit], len(rows) <= question.limit
        return Survey([self._driver()], {self._tables.me: told}, [], is_all=is_all)

    def _driver(self) -> Row:
        return {
            "worker_id": self._tables.me.hex(),
            "is_alive": True,
            "worker_type": "DRIVER",
            "exit_type": None,
            "exit_detail": None,
            "node_id": self._node_id.hex(),
            "ip": ADDRESS,
            "pid": os.getpid(),
            "start_time_ms": self._began_ms,
            "end_time_ms": None,
        }

    def _here(self, row: Row) -> Row:
        row["worker_id"], row["worker_pid"] = self._tables.me.hex(), os.getpid()
        return row

    def _tasks(self, key: bytes) -> list[Row]:
        waiting = [
            {**identity_of(work), "state": state_of(work), "required_resources": work.demand.parts()}
            for work in self._tables.schedule.unfinished()
            if work.life.state == "WAITING"
        ]
        rows = [*waiting, *(self._here(row) for row in self._history.rows())]
        return [row for row in rows if not key or row["task_id"] == key.hex()]

    def _counts(self, _key: bytes) -> list[Row]:
        rows = [row for row in self._tasks(b"") if "start_time_ms" not in row]
        found = Counter((row["name"], row["type"], row["state"]) for row in rows)
        return [{"name": name, "type": kind, "state": state, "count": n} for (name, kind, state), n in found.items()]

    def _actor(self, actor: Actor) -> Row:
        pending = "RESTARTING" if actor.restarts else "PENDING_CREATION"
        died = None
        if actor.failure is not None:
            died = str(values.deserialize(actor.failure.kind, actor.failure.data, actor.failure.buffers))
        return {
            "actor_id": actor.actor_id.hex(),
            "class_name": actor.class_name,
            "state": _STATES.get(actor.life.state, pending),
            "name": actor.name,
            "ray_namespace": actor.namespace,
            "pid": 0 if actor.is_dead else os.getpid(),
            "worker_id": actor.worker_id.hex(),
            "owner_id": actor.creator.hex(),
            "required_resources": dict(actor.equipment.shape),
            "death_cause": died,
            "is_detached": actor.detached,
            "num_restarts": actor.restarts,
        }

    def _objects(self, key: bytes) -> list[Row]:
        rows = []
        for object_id, entry in self._tables.objects.entries():
            if key and key != object_id:
                continue
            value = entry.value
            status = "PENDING" if value is None else "FAILED" if value.kind == FAILURE else "FINISHED"
            rows.append(
                {
                    "object_id": object_id.hex(),
                    "object_size": -1 if value is None else value.nbytes,
                    "task_status": status,
                    "reference_type": "ACTOR_HANDLE" if self._tables.is_handle(object_id) else "LOCAL_REFERENCE",
                    "call_site": "disabled",
                    "type": "DRIVER",
                    "pid": os.getpid(),
                    "ip": ADDRESS,
                    "worker_id": self._tables.me.hex(),
                    "owner_id": object_id[: ids.WORKER_BYTES].hex(),
                    "is_stored": bool(entry.weight_bytes),
                }
            )
        return rows


def identity_of(work: Work) -> Row:
    """The part of its row in a list of tasks that never changes."""
    actor = work.actor
    if actor is None:
        return task_identity(work.task_id, work.name, NORMAL_TASK, b"", work.owner)
    if work.is_call:
        return task_identity(work.task_id, work.name, ACTOR_TASK, actor.actor_id, work.owner)
    return task_identity(b"", work.name, ACTOR_CREATION_TASK, actor.actor_id, work.owner)


def state_of(work: Work) -> str:
    """Ray's word for where waiting work stands."""
    if work.missing:
        return "PENDING_ARGS_AVAIL"
    if work.is_call and work.actor is not None and work.actor.life.state != "PENDING":
        return "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
    return "PENDING_NODE_ASSIGNMENT"
