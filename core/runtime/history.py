"""What a process has run lately, and what it runs and waits for now. Told only when somebody asks.

    running    work under way, by a number of its own
    finished   the last pieces of work, a ring of fixed length: a tuple each, of clock readings that are there anyway
    waiting    waits under way in get and wait, by a number of their own
    spans      the last waits that are over, another ring
    failed     the last submissions of this process that failed without an answer, and attempts that a worker's death
               has ended: nobody else knows of them

Nothing here is sent by itself: a program that asks nothing pays a tuple and a dictionary entry for each task.
(`history_tasks` of the configuration is the length of the rings.) A worker that is told to leave hands its rows to the
head; those of one that is killed are lost.

Times are of `time.perf_counter`, which takes 40 ns to read; rows have the time of day, in ms. Entries are plain tuples,
because a NamedTuple costs nine times as much to make (0.37 us); the aliases say what stands in them.

Threads: every use is one atomic operation on a dictionary or a deque, in any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

from .. import ids
from ..protocol.specs import WireRef

NORMAL_TASK, ACTOR_CREATION_TASK, ACTOR_TASK = "NORMAL_TASK", "ACTOR_CREATION_TASK", "ACTOR_TASK"
#: States of work whose thread waits, by verb.
_BLOCKED = {"get": "RUNNING_IN_RAY_GET", "wait": "RUNNING_IN_RAY_WAIT"}

#: (task id, empty for an actor's creation; name; actor id; owner; when it began).
Running: TypeAlias = tuple[bytes, str, bytes, bytes, float]
#: As `Running`; then when its arguments were there, its code had ended, its results were kept; class of its exception.
Finished: TypeAlias = tuple[bytes, str, bytes, bytes, float, float, float, float, str]
#: (get or wait; task id, empty in the driver; (id, owner) of what is wanted; since when).
Waiting: TypeAlias = tuple[str, bytes, Sequence[WireRef], float]
#: (get or wait; task id; from when; until when).
Span: TypeAlias = tuple[str, bytes, float, float]
#: A row of a list, as it travels: its fields by name.
Row: TypeAlias = dict[str, Any]


class History:
    """Of one process."""

    def __init__(self, length: int) -> None:
        """
        Args:
          length: of each ring.
        """
        self.running: dict[int, Running] = {}
        self.finished: deque[Finished] = deque(maxlen=length)
        self.waiting: dict[int, Waiting] = {}
        self.spans: deque[Span] = deque(maxlen=length)
        self.failed: deque[Row] = deque(maxlen=length)
        self._waits = count(1)
        self._runs = count(1)

    def begin(self, task_id: bytes, name: str, actor_id: bytes, owner: bytes) -> Run:
        """Work begins. (`execution.py` writes the same entries itself: calls would cost as much as the entries.)"""
        return Run(self, next(self._runs), (task_id, name, actor_id, owner, time.perf_counter()))

    def begin_wait(self, verb: str, task_id: bytes, wanted: Sequence[WireRef]) -> int:
        """A wait begins; returns its number."""
        number = next(self._waits)
        self.waiting[number] = (verb, task_id, wanted, time.perf_counter())
        return number

    def end_wait(self, number: int) -> None:
        """It is over."""
        verb, task_id, _, since_s = self.waiting.pop(number)
        self.spans.append((verb, task_id, since_s, time.perf_counter()))

    # ---- rows, when somebody asks

    def rows(self) -> list[Row]:
        """What runs here, and what has: a row of a list of tasks each."""
        offset_s = wall_offset_s()
        blocked = {task_id: verb for verb, task_id, _, _ in list(self.waiting.values()) if task_id}
        rows = [
            {
                **_identity(task_id, name, actor_id, owner),
                "state": _BLOCKED.get(blocked.get(task_id, ""), "RUNNING"),
                "start_time_ms": _ms(started_s + offset_s),
            }
            for task_id, name, actor_id, owner, started_s in list(self.running.values())
        ]
        for task_id, name, actor_id, owner, started_s, loaded_s, ended_s, stored_s, error in list(self.finished):
            code_from_s, code_until_s = _phases(started_s, loaded_s, ended_s, stored_s, failed=bool(error))
            rows.append(
                {
                    **_identity(task_id, name, actor_id, owner),
                    "state": "FAILED" if error else "FINISHED",
                    "error_type": "TASK_EXECUTION_EXCEPTION" if error else None,
                    "error_message": f"raised {error}" if error else None,
                    "start_time_ms": _ms(started_s + offset_s),
                    "end_time_ms": _ms(stored_s + offset_s),
                    "profiling_data": {
                        "task:deserialize_arguments": [_ms(t + offset_s) for t in (started_s, code_from_s)],
                        "task:execute": [_ms(t + offset_s) for t in (code_from_s, code_until_s)],
                        "task:store_outputs": [_ms(t + offset_s) for t in (code_until_s, stored_s)],
                    },
                }
            )
        return [*rows, *self.failed]

    def span_rows(self) -> list[Row]:
        """The waits that are over."""
        offset_s = wall_offset_s()
        return [
            {
                "verb": verb,
                "task_id": task_id.hex() or None,
                "start_time_ms": _ms(started_s + offset_s),
                "end_time_ms": _ms(ended_s + offset_s),
            }
            for verb, task_id, started_s, ended_s in list(self.spans)
        ]

    def fail(self, identity: Row, error_type: str, message: str, *, submitted_s: float, worker_id: bytes = b"") -> None:
        """A submission of this process has come to nothing, or an attempt at it: at `worker_id`, if it was sent."""
        offset_s = wall_offset_s()
        self.failed.append(
            {
                **identity,
                "state": "FAILED",
                "error_type": error_type,
                "error_message": message,
                "worker_id": worker_id.hex() or None,
                "creation_time_ms": _ms(submitted_s + offset_s),
                "end_time_ms": _ms(time.perf_counter() + offset_s),
            }
        )


class Run:
    """Work under way, as `History.begin` gives it."""

    def __init__(self, history: History, number: int, entry: Running) -> None:
        self._history = history
        self._number = number
        self._entry = entry
        self._loaded_s = self._ended_s = entry[-1]
        history.running[number] = entry

    def loaded(self) -> None:
        """Its arguments are there."""
        self._loaded_s = time.perf_counter()

    def ended(self) -> None:
        """The user's code has returned."""
        self._ended_s = time.perf_counter()

    def over(self, error: BaseException | None) -> None:
        """Its results are kept, or `error` was raised."""
        del self._history.running[self._number]
        raised = "" if error is None else type(error).__name__
        self._history.finished.append((*self._entry, self._loaded_s, self._ended_s, time.perf_counter(), raised))


def task_identity(task_id: bytes, name: str, kind: str, actor_id: bytes, owner: bytes) -> Row:
    """The part of a task's row that is so from its submission on."""
    return {
        # A creation has no task of its own on the wire; its actor's id, filled up, is as good a name.
        "task_id": (task_id or actor_id.ljust(ids.TASK_BYTES, b"\0")).hex(),
        "name": name,
        "func_or_class_name": name,
        "type": kind,
        "actor_id": actor_id.hex() or None,
        "owner_id": owner.hex(),
    }


def wall_offset_s() -> float:
    """What to add to a reading of `time.perf_counter` to have seconds since the epoch."""
    return time.time() - time.perf_counter()


def wall_ms(reading_s: float) -> float:
    """A reading of `time.perf_counter` as the time of day."""
    return _ms(reading_s + wall_offset_s())


def _identity(task_id: bytes, name: str, actor_id: bytes, owner: bytes) -> Mapping[str, Any]:
    kind = NORMAL_TASK if not actor_id else ACTOR_TASK if task_id else ACTOR_CREATION_TASK
    return task_identity(task_id, name, kind, actor_id, owner)


def _phases(started_s: float, loaded_s: float, ended_s: float, stored_s: float, *, failed: bool) -> tuple[float, float]:
    """When the user's code ran. What had no reading, because something was raised before, was over at the end."""
    if not failed:
        return loaded_s, ended_s
    if loaded_s == started_s:
        return stored_s, stored_s  # its arguments could not be had
    return loaded_s, ended_s if ended_s > loaded_s else stored_s


def _ms(wall_s: float) -> float:
    return round(wall_s * 1e3, 3)
