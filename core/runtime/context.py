"""What the calling thread, or asyncio task, is doing: which task or actor call it runs, if any."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from .equipment import BARE, Equipment


@dataclass(slots=True)
class TaskContext:
    """The work in progress, and what it holds. `actor_id` is empty in a task; `releases_cpu`: it gives its CPU back
    while it waits. Never changed; `frozen=True` would cost 0.5 us for each piece of work.
    """

    task_id: bytes
    name: str
    actor_id: bytes
    releases_cpu: bool
    equipment: Equipment = BARE


_current: ContextVar[TaskContext | None] = ContextVar("shoal task", default=None)


def current() -> TaskContext | None:
    """The work that the calling thread runs; None in the driver's own code and in threads that users have started."""
    return _current.get()


def enter(task: TaskContext | None) -> None:
    """The calling thread begins (or, with None, ends) a piece of work."""
    _current.set(task)
