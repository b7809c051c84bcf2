"""What a call is held against: a function's parameters, less the one that a method is given its object by. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def parameters_of(function: Callable[..., Any], *, bound: bool) -> list[inspect.Parameter]:
    """Those that a caller sets.

    Args:
      bound: the function is a method, which is given its object or class first: in a parameter of its own, or as one of
        ``*args``, as the wrappers of decorators have it.

    Raises:
      ValueError: nobody knows them, as of some builtins.
    """
    parameters = list(inspect.signature(function).parameters.values())
    has_its_own = bound and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
    return parameters[1:] if has_its_own else parameters
