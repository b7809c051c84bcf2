"""The one global: the engine that this process speaks to. Set by ``init`` (in a driver) or at birth (in a worker),
cleared by ``shutdown``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .base import Engine

_engine: Engine | None = None
_parents: list[Engine] = []
#: Held while a session is started: the first calls of several threads must not start one each.
starting = threading.RLock()
_start: Callable[[], object] | None = None


def on_demand(start: Callable[[], object]) -> None:
    """Have `engine` call `start` when there is no engine: ``init`` with its defaults."""
    global _start
    _start = start


def engine() -> Engine:
    """The current engine; starts a session with default settings if there is none, as Ray does."""
    if _engine is None and _start is not None:
        with starting:
            if _engine is None:
                _start()
    assert _engine is not None, "init sets it or raises"
    return _engine


def running() -> Engine | None:
    """The current engine, if there is one."""
    return _engine


def forget_in_fork() -> None:
    """In a forked process there is no engine. The parent's is kept, unused: nothing of it is to be taken down here."""
    global _engine
    if _engine is not None:
        _parents.append(_engine)
        _engine = None


def before_fork() -> Engine | None:
    """The engine that the process had which this one was forked from; None if it had none, or this is no fork."""
    return _parents[-1] if _parents else None


def set_engine(engine: Engine | None) -> None:
    """Make `engine` the current one; None: there is none."""
    global _engine
    _engine = engine
