"""What can be asked about what goes on in a session: `outlook.py` and the engines answer it, `observing` asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """What goes on?"""

    #: tasks, counts (of tasks without a result), actors, objects, workers, jobs, placement_groups, spans, metrics or
    #: store; the rows of `observing.rows` are made of the answers
    subject: str
    key: bytes = b""  #: only what concerns this task, object or actor
    target: bytes | None = None  #: the one process to ask; empty: none but the head; None: all. On Ray of no meaning
    limit: int = 10_000  #: rows from each process at most
    timeout_s: float | None = None  #: how long one may take to answer; a second at most, on engines of shoal's own
