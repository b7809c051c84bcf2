"""What the calling thread is doing: which task or actor call it runs, if any."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The work in progress. `actor_id` is empty in a task; `releases_cpu`: it gives its CPU back while it waits."""

    task_id: bytes
    name: str
    actor_id: bytes
    releases_cpu: bool


class _Current(threading.local):
    task: TaskContext | None = None


_current = _Current()


def current() -> TaskContext | None:
    """The work that the calling thread runs; None in the driver's own code and in threads that users have started."""
    return _current.task


def enter(task: TaskContext | None) -> None:
    """The calling thread begins (or, with None, ends) a piece of work."""
    _current.task = task
