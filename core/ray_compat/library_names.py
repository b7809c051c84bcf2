"""Small things that libraries on top of Ray import from it, and nothing in the core uses.

Decorators that say how stable a name is, constants, the address of the node, and names of living actors.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from ..engines import current
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
    """The address of this machine, as `nodes` tells it; of the engine's own machine where there is no session."""
    running = current.running()
    if running is None:
        return ADDRESS
    here = running.place().node_id
    return next((node.address for node in running.nodes() if node.node_id == here), ADDRESS)


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:  # noqa: FBT001, FBT002
    """Names of living actors.

    Args:
      all_namespaces: not only the caller's.

    Returns:
      Names; with `all_namespaces` a dict with name and namespace for each.
    """
    living = current.engine().named_actors()
    if living is None:
        rows = [row for row in list_actors(limit=10_000) if row.name and row.state != "DEAD"]
        living = [(row.ray_namespace, row.name) for row in rows]
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in living]
    here = get_runtime_context().namespace
    return [name for namespace, name in living if namespace == here]

