"""Small things that libraries on top of Ray import from it, and nothing in the core uses.

Decorators that say how stable a name is, constants, the address of the node, and names of living actors.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from ..observing.listings import list_actors
from ..runtime_context import get_runtime_context
from ..scheduling.machine import ADDRESS

T = TypeVar("T")

#: What a process is, in Ray's numbers.
SCRIPT_MODE = 0
WORKER_MODE = 1

_told: set[str] = set()
_told_lock = threading.Lock()


class RayDeprecationWarning(DeprecationWarning):
    """A name of Ray's that is to go."""


def PublicAPI(*args: Any, **_stability: Any) -> Any:  # noqa: N802  Ray's name
    """Marks a stable name: a decorator, with or without arguments, which changes nothing."""
    return args[0] if len(args) == 1 and callable(args[0]) else _unchanged


DeveloperAPI = PublicAPI
Deprecated = PublicAPI


def _unchanged(decorated: T) -> T:
    return decorated


def log_once(key: str) -> bool:
    """Whether this process asks for `key` for the first time."""
    with _told_lock:
        if key in _told:
            return False
        _told.add(key)
        return True


def get_node_ip_address() -> str:
    """The address of this machine, as `nodes` tells it."""
    return ADDRESS


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:  # noqa: FBT001, FBT002
    """Names of living actors.

    Args:
      all_namespaces: not only the caller's.

    Returns:
      Names; with `all_namespaces` a dict with name and namespace for each.
    """
    living = [row for row in list_actors(limit=10_000) if row.name and row.state != "DEAD"]
    if all_namespaces:
        return [{"name": row.name, "namespace": row.ray_namespace} for row in living]
    here = get_runtime_context().namespace
    return [row.name for row in living if row.ray_namespace == here]

