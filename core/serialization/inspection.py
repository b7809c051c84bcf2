"""``ray.util.inspect_serializability``: whether a value can be sent, and if not, which parts of it are to blame."""

from __future__ import annotations

from typing import Any, TextIO

from .unpicklable import FailureTuple, Search
from .values import why_not

__all__ = ["FailureTuple", "inspect_serializability"]


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 12, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Look for what in a value cannot be pickled, and print the way to it.

    Args:
      base_obj: a value, function or class.
      name: what to call it.
      depth: how many steps to look into it.
      print_file: where to print; stdout by default.

    Returns:
      Whether it can be sent as it is; the parts that are to blame.

    Example:
      >>> inspect_serializability({"db": lock})
      value: a dict: cannot pickle '_thread.lock' object
          ['db']: a _thread.lock: cannot pickle '_thread.lock' object
      (False, {FailTuple(['db'] [path=value -> ['db'], a _thread.lock])})
    """
    title = name or getattr(base_obj, "__qualname__", None) or "value"
    if not why_not(base_obj):
        return True, set()
    search = Search(why_not)
    search.look(base_obj, (title,), depth=depth)
    for line in search.lines:
        print(line, file=print_file)
    return False, set(search.failures)
