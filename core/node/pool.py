"""The worker processes of a node: which exist, and what each is doing. Pure.

    STARTING --registered--> IDLE --assigned--> BUSY --returned--> IDLE
        any of them --reaped--> DEAD

Not here: forking (zygote.py), what a busy worker is busy with (leases.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from ..lifecycle import Life, Lifecycle

WORKER = Lifecycle(
    "worker",
    start="STARTING",
    moves={
        ("STARTING", "registered"): "IDLE",
        ("IDLE", "assigned"): "BUSY",
        ("BUSY", "returned"): "IDLE",
        ("STARTING", "reaped"): "DEAD",
        ("IDLE", "reaped"): "DEAD",
        ("BUSY", "reaped"): "DEAD",
    },
)


@dataclass(slots=True)
class WorkerRecord:
    """A worker process and what it is doing."""

    worker_id: bytes
    life: Life
    idle_since_s: float = 0.0
    #: It has been asked to leave, and gets no work until it says that it stays.
    leaving: bool = False


class WorkerPool:
    """The node's workers. Takes the idle worker that ran last: its memory is warm."""

    def __init__(self) -> None:
        self._records: dict[bytes, WorkerRecord] = {}
        self._idle: list[bytes] = []
        self._starting = 0

    def __contains__(self, worker_id: object) -> bool:
        return worker_id in self._records

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._records.values())

    @property
    def starting(self) -> int:
        return self._starting

    def started(self, worker_id: bytes) -> None:
        """A fork has been asked for."""
        self._records[worker_id] = WorkerRecord(worker_id, WORKER.begin())
        self._starting += 1

    def registered(self, worker_id: bytes, now_s: float) -> None:
        record = self._records[worker_id]
        record.life.on("registered")
        self._starting -= 1
        self._now_idle(record, now_s)

    def take_idle(self) -> bytes | None:
        """An idle worker, now BUSY."""
        if not self._idle:
            return None
        worker_id = self._idle.pop()
        self._records[worker_id].life.on("assigned")
        return worker_id

    def put_back(self, worker_id: bytes, now_s: float) -> None:
        """The worker has nothing to do any more. One that is dead or leaving is ignored."""
        record = self._records.get(worker_id)
        if record is not None and not record.leaving:
            record.life.on("returned")
            self._now_idle(record, now_s)

    def surplus(self, keep: int, idle_before_s: float) -> list[bytes]:
        """Idle workers beyond `keep` that have been idle since before `idle_before_s`: they are LEAVING from now on."""
        leaving = []
        for worker_id in self._idle[: max(0, len(self._idle) - keep)]:
            record = self._records[worker_id]
            if record.idle_since_s <= idle_before_s:
                record.leaving = True
                leaving.append(worker_id)
        self._idle = [worker_id for worker_id in self._idle if worker_id not in leaving]
        return leaving

    def stays(self, worker_id: bytes, now_s: float) -> None:
        """A worker that was to leave owns something: it is idle again."""
        record = self._records.get(worker_id)
        if record is not None and record.leaving:
            record.leaving = False
            self._now_idle(record, now_s)

    def reaped(self, worker_id: bytes) -> WorkerRecord | None:
        record = self._records.pop(worker_id, None)
        if record is None:
            return None
        if record.life.state == "STARTING":
            self._starting -= 1
        if worker_id in self._idle:
            self._idle.remove(worker_id)
        record.life.on("reaped")
        return record

    def _now_idle(self, record: WorkerRecord, now_s: float) -> None:
        record.idle_since_s = now_s
        self._idle.append(record.worker_id)


def describe_status(status: int) -> str:
    """A wait status in words: ``exit code 3``, ``signal SIGKILL (9)``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name} ({-code})"
    except ValueError:
        return f"signal {-code}"
