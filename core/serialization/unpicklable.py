"""Finds what in a value cannot be pickled, to say so in the error.

Walks from the value to the part that fails, one step at a time: it pickles every child and follows the first that
fails (`describe_culprit`), or all of them (`Search`). That repeats work and runs only once an error is certain. It
knows nothing of picklers: the caller says how to try.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import CellType, FunctionType, MethodType

_MAX_DEPTH = 12
_MAX_CHILDREN = 200


def describe_root(value: object) -> str:
    """How the value itself is called."""
    return f"function {value.__qualname__}" if isinstance(value, (FunctionType, type)) else "value"


def describe_culprit(value: object, is_picklable: Callable[[object], bool]) -> str:
    """Where the part of `value` is that cannot be pickled, and its type: ``value.pool['db'] (a _thread.lock)``."""
    path = describe_root(value)
    visited = {id(value)}
    for _ in range(_MAX_DEPTH):
        children = islice(_children(value), _MAX_CHILDREN)
        found = next((pair for pair in children if id(pair[1]) not in visited and not is_picklable(pair[1])), None)
        if found is None:
            break
        path += found[0]
        value = found[1]
        visited.add(id(value))
    return f"{path} (a {_type_name(type(value))})"


@dataclass(frozen=True, eq=False)
class FailureTuple:
    """A part of a value that cannot be pickled although all its own parts can be: one that is to blame.

    obj: the part.
    path: the steps to it, the value's own name first.
    parent: what holds it; None if it is the value itself.
    """

    obj: object
    path: tuple[str, ...]
    parent: object

    @property
    def name(self) -> str:
        """The last step."""
        return self.path[-1]

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [path={' -> '.join(self.path)}, a {_type_name(type(self.obj))}])"


class Search:
    """All parts that are to blame, and a drawing of the way to them.

    Args:
      reason: why something cannot be pickled; "" if it can.
      most: stop after so many.
    """

    def __init__(self, reason: Callable[[object], str], *, most: int = _MAX_CHILDREN) -> None:
        self._reason = reason
        self._most = most
        self._visited: set[int] = set()
        self.failures: list[FailureTuple] = []
        self.lines: list[str] = []

    def look(self, value: object, path: tuple[str, ...], parent: object = None, *, depth: int = _MAX_DEPTH) -> None:
        """Go through `value`, which cannot be pickled, and `depth` steps into it."""
        self._visited.add(id(value))
        indent = "    " * (len(path) - 1)
        self.lines.append(f"{indent}{path[-1]}: a {_type_name(type(value))}: {self._reason(value)}")
        children = islice(_children(value), _MAX_CHILDREN) if depth > 0 else ()
        bad = [(step, part) for step, part in children if id(part) not in self._visited and self._reason(part)]
        if not bad:
            self.failures.append(FailureTuple(value, path, parent))
        for step, part in bad:
            if len(self.failures) < self._most:
                self.look(part, (*path, step.removeprefix(".").removeprefix(" -> ")), value, depth=depth - 1)


def _type_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _children(value: object) -> Iterator[tuple[str, object]]:
    """The parts that pickling `value` would pickle, each with how to write the step to it."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f".{{{item!r}}}", item) for item in value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from _captured(value)
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items() if not name.startswith("__"))
        if "__init__" in vars(value):
            yield ".__init__", vars(value)["__init__"]
    elif not _refuses(value):
        yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())


def _refuses(value: object) -> bool:
    """Whether an object refuses by itself: what it holds is not to blame, and may be large (the engine, a store)."""
    try:
        value.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    except Exception:  # noqa: BLE001  this is the question
        return True
    return False


def _captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != CellType():  # a variable that is not assigned yet
            yield f" -> captured variable {name!r}", cell.cell_contents
    for name in code.co_names:
        if name in function.__globals__:
            yield f" -> global {name!r}", function.__globals__[name]
    for index, default in enumerate(function.__defaults__ or ()):
        yield f" -> default {index}", default
