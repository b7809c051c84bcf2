"""What a process tells about itself when the head asks for somebody: rows, made at that moment from its own tables.

    Survey (asker -> head) -> Inspect (head -> every process, or one) -> Inspected -> Answer

    tasks     submissions of this process that have no result; what it runs and has run
    counts    how many of its submissions that have no result are in which state
    spans     the waits of this process that are over
    objects   what it owns or borrows, with sizes and counts
    store     the objects that it owns in shared memory: all of them in one row, then the largest
    object    facts of one object: is it there, who makes it, what does that wait for (key: its id)
    creation  facts of an actor that this process creates (key: its id)
    running   what it runs, since when, and what that waits for
    metrics   its counters, gauges and histograms

Only the driver of the loop comes here, so a process that computes answers within a few ms, from its background thread.
Not here: how rows of several processes become one list (listings.py), or a reason (reasons.py).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from .. import ids
from ..protocol import messages as m
from ..protocol.specs import Value, WireRef
from ..scheduling.machine import ADDRESS
from ..serialization.values import FAILURE
from ..store.client import Location
from ..transport.loop import Loop
from .groups import Groups
from .history import History, Row, wall_ms
from .holdings import Holdings
from .references import Reference
from .submitting import Submitter
from .tasks import Submission

#: Rows of each subject that a leaving worker hands to the head: to read them costs it 10 us each.
_BEQUEATHED = 1_000
#: The largest objects that a row of the store names.
_LARGEST = 3


class Inspector:
    """Answers for one process."""

    def __init__(
        self,
        loop: Loop,
        me: bytes,
        kind: str,
        *,
        head: bytes,
        history: History,
        holdings: Holdings,
        submitter: Submitter,
        groups: Groups,
        metrics: Callable[[], list[Row]],
    ) -> None:
        """
        Args:
          kind: "driver" or "worker".
          metrics: what user code of this process has measured.
        """
        self._loop = loop
        self._me = me
        self._kind = kind
        self._head = head
        self._history = history
        self._holdings = holdings
        self._submitter = submitter
        self._groups = groups
        self._subjects: dict[str, Callable[[bytes], Iterable[Row]]] = {
            "tasks": self._tasks,
            "counts": self._counts,
            "spans": self._spans,
            "objects": self._objects,
            "store": self._store,
            "object": self._object,
            "creation": self._creation,
            "running": self._running,
            "metrics": lambda _: metrics(),
        }
        loop.on(m.Inspect, self._inspect)

    def _inspect(self, peer: bytes, message: m.Inspect) -> None:
        # One more than wanted tells that there are more; a million queued tasks must not be told one by one.
        rows = list(islice(self._subjects[message.subject](message.key), message.limit + 1))
        self._loop.send(
            self._head, m.Inspected(message.number, rows[: message.limit], is_all=len(rows) <= message.limit)
        )

    def farewell(self) -> dict[str, list[Row]]:
        """What the head is to remember of this process when it is gone."""
        return {
            "tasks": [self._ran_here(row) for row in self._history.rows()][-_BEQUEATHED:],
            "spans": list(self._spans(b""))[-_BEQUEATHED:],
        }

    # ---- tasks

    def _tasks(self, key: bytes) -> Iterable[Row]:
        hexed = key.hex()
        for submission, state, worker_id in self._submitter.live():
            row = submission.identity(self._me)
            if key and row["task_id"] != hexed:
                continue
            row["state"] = state
            row["worker_id"] = worker_id.hex() or None
            row["creation_time_ms"] = wall_ms(submission.submitted_s)
            row["required_resources"] = dict(self._submitter.resources(submission))
            yield row
        for row in self._history.rows():
            if not key or row["task_id"] == hexed:
                yield self._ran_here(row)

    def _counts(self, _key: bytes) -> Iterable[Row]:
        found = Counter((submission.name, submission.kind, state) for submission, state, _ in self._submitter.live())
        return [{"name": name, "type": kind, "state": state, "count": n} for (name, kind, state), n in found.items()]

    def _spans(self, _key: bytes) -> Iterable[Row]:
        return [self._ran_here(row) for row in self._history.span_rows()]

    def _ran_here(self, row: Row) -> Row:
        if "start_time_ms" in row:
            row["worker_id"], row["worker_pid"] = self._me.hex(), os.getpid()
        return row

    def _running(self, _key: bytes) -> Iterable[Row]:
        now_s = time.perf_counter()
        waits: dict[bytes, tuple[str, list[WireRef]]] = {}
        for verb, task_id, wanted, _ in list(self._history.waiting.values()):
            waits.setdefault(task_id, (verb, []))[1].extend(wanted)  # a coroutine may wait for many at once
        return [
            {
                "task_id": task_id,
                "actor_id": actor_id,
                "name": name,
                "for_s": now_s - started_s,
                "verb": waits[task_id][0] if task_id in waits else "",
                "wanted": list(waits[task_id][1]) if task_id in waits else [],
            }
            for task_id, name, actor_id, _, started_s in list(self._history.running.values())
        ]

    # ---- objects

    def _objects(self, key: bytes) -> Iterable[Row]:
        for object_id, record in list(self._holdings.references):
            if key and object_id != key:
                continue
            value = self._holdings.objects.value(object_id)
            yield {
                "object_id": object_id.hex(),
                "object_size": -1 if value is None else value_bytes(value),
                "task_status": _task_status(value),
                "reference_type": _reference_type(record, is_actor=object_id in self._holdings.guarded),
                "call_site": "disabled",
                "type": self._kind.upper(),
                "pid": os.getpid(),
                "ip": ADDRESS,
                "worker_id": self._me.hex(),
                "owner_id": (record.owner or self._me).hex(),
                "is_stored": value is not None and value.stored,
            }

    def _store(self, _key: bytes) -> Iterable[Row]:
        """One row: the bytes of this process's own objects in shared memory, and the largest of them."""
        stored = []
        for object_id, record in list(self._holdings.references):
            value = self._holdings.objects.value(object_id)
            if not record.owner and value is not None and value.stored:
                stored.append((value_bytes(value), object_id))
        stored.sort(reverse=True)
        if not stored:
            return []
        return [
            {
                "worker_id": self._me.hex(),
                "type": self._kind,
                "pid": os.getpid(),
                "nbytes": sum(size for size, _ in stored),
                "objects": len(stored),
                "largest": [[object_id, size] for size, object_id in stored[:_LARGEST]],
            }
        ]

    def _object(self, key: bytes) -> Iterable[Row]:
        """Facts for `reasons.py`."""
        value = self._holdings.objects.value(key)
        if value is not None:
            return [{"state": "failed" if value.kind == FAILURE else "ready"}]
        if key not in self._holdings.objects:
            return [{"state": "unknown"}]
        task_id = ids.task_of(key)
        for submission, state, worker_id in self._submitter.live():
            if not submission.is_creation and submission.task_id == task_id:
                return [{"state": "pending", **self._maker(submission, state, worker_id)}]
        group_id = self._groups.awaited_by(key)
        if group_id:
            return [{"state": "pending", "group_id": group_id}]
        is_actor = key in self._holdings.guarded
        return [{"state": "actor" if is_actor else "pending"}]

    def _creation(self, key: bytes) -> Iterable[Row]:
        return [
            self._maker(submission, state, worker_id)
            for submission, state, worker_id in self._submitter.live()
            if submission.is_creation and submission.actor_id == key
        ]

    def _maker(self, submission: Submission, state: str, worker_id: bytes) -> Row:
        objects = self._holdings.objects
        ahead = []
        line = self._submitter.line(submission.actor_id) if submission.actor_id else None
        if line is not None and not submission.is_creation:
            for call, _ in line:
                if call is submission:
                    break
                ahead.append(call)
        blocking = next((call for call in ahead if call.missing), submission)
        return {
            "task_id": b"" if submission.is_creation else submission.task_id,
            "name": submission.name,
            "task_state": state,
            "worker_id": worker_id,
            "actor_id": submission.actor_id,
            "for_s": time.perf_counter() - submission.submitted_s,
            "resources": dict(self._submitter.resources(submission)),
            # Calls go in order: what the first one that has not all its arguments waits for holds up the others.
            "missing": [list(ref) for ref in blocking.dependencies if objects.value(ref[0]) is None][:10],
            "behind": blocking.name if blocking is not submission else "",
            "same_shape_at_work": self._submitter.workers_at_work(submission),
        }


def value_bytes(value: Value) -> int:
    """Size of a value's content."""
    if value.stored:
        return Location.from_wire(value.payload).nbytes
    return len(value.payload) + sum(len(buffer) for buffer in value.buffers)


def _task_status(value: Value | None) -> str:
    if value is None:
        return "PENDING"
    return "FAILED" if value.kind == FAILURE else "FINISHED"


def _reference_type(record: Reference, *, is_actor: bool) -> str:
    """Ray's word for why a process needs an object, the strongest reason first."""
    if is_actor:
        return "ACTOR_HANDLE"
    if record.submitted:
        return "USED_BY_PENDING_TASK"
    if record.local:
        return "LOCAL_REFERENCE"
    return "CAPTURED_IN_OBJECT" if record.contained else "PINNED_IN_MEMORY"
