"""What every actor can do beside its own methods: Ray's ``__ray_ready__``, ``__ray_call__``, ``__ray_terminate__``; and
how it ends itself (`exit_actor`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from . import context


class ActorExit(SystemExit):
    """An actor ends itself: its process leaves with exit code 0, and it is not restarted."""


def exit_actor() -> NoReturn:
    """What `api.exit_actor` is in shoal's own processes. Raises TypeError: the caller is not in an actor."""
    task = context.current()
    if task is None or not task.actor_id:
        raise TypeError("exit_actor can only be called in a method of an actor")
    raise ActorExit(0)


def _ready(_actor: Any) -> bool:
    return True


def _call(actor: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(actor, *args, **kwargs)


def _terminate(_actor: Any) -> NoReturn:
    exit_actor()


#: name -> what is called with the instance and the arguments.
SPECIAL_METHODS: Mapping[str, Callable[..., Any]] = {
    "__ray_ready__": _ready,
    "__ray_call__": _call,
    "__ray_terminate__": _terminate,
}
