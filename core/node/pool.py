"""The worker processes of a node: which exist, and what each is doing. Pure.

    STARTING --registered--> IDLE --assigned--> BUSY --returned--> IDLE
        any of them --reaped--> DEAD

A worker is started in an environment (bytes, empty as a rule) and serves only demands of that. Where workers of one die
while they start, again and again, somebody has to give up: `failed_starts` and `interrupted_starts` count.

Not here: forking (zygote.py), what a busy worker is busy with (leases.py).
"""

from __future__ import annotations

import os
import signal
from collections import Counter
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
    environment: bytes = b""
    idle_since_s: float = 0.0
    #: It has had work.
    used: bool = False
    #: It has been asked to leave, and gets no work until it says that it stays.
    leaving: bool = False
    #: It must never be used again: it lives as long as something is needed that it owns, or is being killed.
    retired: bool = False


class WorkerPool:
    """The node's workers. Takes the idle worker that ran last: its memory is warm."""

    def __init__(self) -> None:
        self._records: dict[bytes, WorkerRecord] = {}
        self._idle: list[bytes] = []
        self._starting: Counter[bytes] = Counter()
        self._failed_starts: Counter[bytes] = Counter()
        self._interrupted_starts: Counter[bytes] = Counter()

    def __contains__(self, worker_id: object) -> bool:
        return worker_id in self._records

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._records.values())

    def starting(self, environment: bytes = b"") -> int:
        """Workers of an environment that have been asked for and have not registered."""
        return self._starting[environment]

    def is_starting(self, worker_id: bytes) -> bool:
        record = self._records.get(worker_id)
        return record is not None and record.life.state == "STARTING"

    def failed_starts(self, environment: bytes) -> int:
        """Workers of an environment that have ended by themselves while starting, since the last that has come up."""
        return self._failed_starts[environment]

    def interrupted_starts(self, environment: bytes) -> int:
        """Workers of an environment that somebody has killed while they started, since the last that has come up."""
        return self._interrupted_starts[environment]

    def forget_failed_starts(self, environment: bytes) -> None:
        """What waited for the environment has been told: who asks again may try again. Or a worker has come up."""
        del self._failed_starts[environment]
        del self._interrupted_starts[environment]

    def started(self, worker_id: bytes, environment: bytes = b"") -> None:
        """A fork has been asked for."""
        self._records[worker_id] = WorkerRecord(worker_id, WORKER.begin(), environment)
        self._starting[environment] += 1

    def registered(self, worker_id: bytes, now_s: float) -> None:
        record = self._records[worker_id]
        record.life.on("registered")
        self._no_longer_starting(record)
        self.forget_failed_starts(record.environment)
        self._now_idle(record, now_s)

    def take_idle(self, environment: bytes = b"", *, unused: bool = False) -> bytes | None:
        """An idle worker of the environment, now BUSY; one that has never had work, if it must be."""
        for worker_id in reversed(self._idle):
            record = self._records[worker_id]
            if record.environment == environment and not (unused and record.used):
                self._idle.remove(worker_id)
                record.life.on("assigned")
                record.used = True
                return worker_id
        return None

    def put_back(self, worker_id: bytes, now_s: float) -> None:
        """The worker has nothing to do any more. One that is dead or leaving is ignored."""
        record = self._records.get(worker_id)
        if record is not None and not record.leaving:
            record.life.on("returned")
            self._now_idle(record, now_s)

    def surplus(self, keep: int, idle_before_s: float) -> list[bytes]:
        """Idle workers beyond `keep` that have been idle since before `idle_before_s`: they are leaving from now on."""
        beyond = self._idle[: max(0, len(self._idle) - keep)]
        return self._leave([w for w in beyond if self._records[w].idle_since_s <= idle_before_s])

    def displaced(self, environment: bytes, fresh: int, keep: int) -> list[bytes]:
        """`fresh` workers of an environment are on their way: as many idle ones of others, beyond those that would be
        kept anyway, are leaving from now on.
        """
        others = [w for w in self._idle if self._records[w].environment != environment]
        return self._leave(others[: max(0, min(fresh, len(self._idle) + fresh - keep))])

    def _leave(self, workers: list[bytes]) -> list[bytes]:
        for worker_id in workers:
            self._records[worker_id].leaving = True
        self._idle = [worker_id for worker_id in self._idle if worker_id not in workers]
        return workers

    def retire(self, worker_id: bytes) -> None:
        """The worker gets nothing to do again, wherever it stands. It is to be asked to leave, or is being killed."""
        record = self._records.get(worker_id)
        if record is not None:
            record.leaving = record.retired = True
            if worker_id in self._idle:
                self._idle.remove(worker_id)

    def is_retired(self, worker_id: bytes) -> bool:
        record = self._records.get(worker_id)
        return record is not None and record.retired

    def stays(self, worker_id: bytes, now_s: float) -> None:
        """A worker that was to leave owns something: it is idle again."""
        record = self._records.get(worker_id)
        if record is not None and record.leaving and not record.retired:
            record.leaving = False
            self._now_idle(record, now_s)

    def reaped(self, worker_id: bytes, *, interrupted: bool = False) -> WorkerRecord | None:
        """A worker has ended. `interrupted`: not by itself and not by us."""
        record = self._records.pop(worker_id, None)
        if record is None:
            return None
        if record.life.state == "STARTING":
            self._no_longer_starting(record)
            counts = self._interrupted_starts if interrupted else self._failed_starts
            counts[record.environment] += 1
        if worker_id in self._idle:
            self._idle.remove(worker_id)
        record.life.on("reaped")
        return record

    def _no_longer_starting(self, record: WorkerRecord) -> None:
        self._starting[record.environment] -= 1
        if not self._starting[record.environment]:
            del self._starting[record.environment]

    def _now_idle(self, record: WorkerRecord, now_s: float) -> None:
        record.idle_since_s = now_s
        if not record.retired:
            self._idle.append(record.worker_id)


#: Signals that a process brings upon itself, or by abort().
_OWN_FAULTS = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
)


def was_sent(status: int) -> bool:
    """Whether a wait status tells of a signal that comes from elsewhere: SIGKILL, SIGTERM, not a fault of its own."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) not in _OWN_FAULTS


def describe_end(status: int, *, killed_because: str | None, last_words: str) -> str:
    """How a worker ended, in words that can stand at the end of a sentence.

    Args:
      killed_because: why we have killed it; None: we have not.
      last_words: the last lines of its stderr.
    """
    how = describe_status(status)
    if killed_because is not None and os.WIFSIGNALED(status):
        how += f", which shoal sent because {killed_because}"
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        how += ", which shoal did not send: somebody did, or the kernel when memory ran out"
    return f"{how}. The last lines of its stderr:\n{last_words}" if last_words else how


def describe_status(status: int) -> str:
    """A wait status in words: ``exit code 3``, ``signal SIGKILL (9)``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name} ({-code})"
    except ValueError:
        return f"signal {-code}"
