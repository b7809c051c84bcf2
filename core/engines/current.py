"""The one global: the engine that this process speaks to. Set by ``init`` (in a driver) or at birth (in a worker), cleared by ``shutdown``."""

from __future__ import annotations

from collections.abc import Callable

from .base import Engine

_engine: Engine | None = None
#: ``init`` with its defaults; set by the module that has it.
start_on_demand: Callable[[], object]


def engine() -> Engine:
    """The current engine; starts a session with default settings if there is none, as Ray does."""
    if _engine is None:
        start_on_demand()
    assert _engine is not None, "init sets it or raises"
    return _engine


def running() -> Engine | None:
    """The current engine, if there is one."""
    return _engine


def set_engine(engine: Engine | None) -> None:
    global _engine
    _engine = engine
