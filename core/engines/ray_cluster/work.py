"""What runs in Ray's processes: the user's function or class, after `begin`, which gives shoal an engine there.

The wrappers are made anew for each function, so Ray's serialiser takes them by value, and `begin`, which belongs to a
module, by reference: loading one imports that module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def task(function: Callable[..., Any], begin: Callable[[], None]) -> Callable[..., Any]:
    """The function that Ray runs in place of the user's."""
    if inspect.isgeneratorfunction(function):

        def run(*args: Any, **kwargs: Any) -> Any:
            begin()
            yield from function(*args, **kwargs)

    else:

        def run(*args: Any, **kwargs: Any) -> Any:
            begin()
            return function(*args, **kwargs)

    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__doc__, run.__module__ = function.__doc__, function.__module__
    return run


def actor_class(cls: type, begin: Callable[[], None]) -> type:
    """The class that Ray makes the actor of: the user's, with a constructor that begins."""
    construct: Callable[..., None] = inspect.getattr_static(cls, "__init__")

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  it is one
        begin()
        construct(self, *args, **kwargs)

    members = {name: getattr(cls, name) for name in ("__module__", "__doc__", "__qualname__")}
    members["__init__"] = __init__
    return type(cls)(cls.__name__, (cls,), members)
