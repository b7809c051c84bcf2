"""Spaces as plain values: what a client must know of a policy's observations and actions, without gymnasium.

``space_form`` makes them of gymnasium's. A leaf's name in requests is the path to it, as in ``envs/columns.py``:
"camera", "state/position", "0" for the first part of a tuple, and "observation" for a space that is not nested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import gymnasium

#: Name of the only column of a space that is not nested (``envs.columns.ONLY``).
ONLY = "observation"


def told(description: str) -> dict[str, str]:
    """Metadata of a field: the sentence that the OpenAPI document says about it."""
    return {"description": description}


@dataclass(frozen=True, kw_only=True)
class LeafSpace:
    """One array of an observation or of an action. Bounds, choices and starts are flat, in C order; bounds and starts
    have length 1 where all elements have the same.
    """

    kind: Literal["box", "discrete", "multi_discrete", "multi_binary"] = field(
        metadata=told("box: numbers within bounds; the others: choices")
    )
    shape: tuple[int, ...] = field(metadata=told("Of one observation or action; empty for a single choice"))
    dtype: str = field(metadata=told("Of its elements, as numpy names it: float32, uint8, int64"))
    low: tuple[float | None, ...] = field(default=(), metadata=told("box: least values; null is unbounded"))
    high: tuple[float | None, ...] = field(default=(), metadata=told("box: greatest values; null is unbounded"))
    nvec: tuple[int, ...] = field(default=(), metadata=told("Choices of each element"))
    start: tuple[int, ...] = field(default=(), metadata=told("Number of the first choice"))


@dataclass(frozen=True, kw_only=True)
class NestedSpace:
    """A dict or a tuple of spaces."""

    kind: Literal["dict", "tuple"] = field(metadata=told("Whether the parts have names or places"))
    parts: dict[str, Space] = field(metadata=told('By name, in order; those of a tuple are called "0", "1", ...'))


Space: TypeAlias = LeafSpace | NestedSpace


def leaves(space: Space, path: str = "") -> Iterator[tuple[str, LeafSpace]]:
    """The leaves by their path, in order; a space that is not nested is one leaf with the path ""."""
    if isinstance(space, LeafSpace):
        yield path, space
        return
    for name, part in space.parts.items():
        yield from leaves(part, f"{path}/{name}" if path else name)


def columns_of(space: Space) -> dict[str, LeafSpace]:
    """The columns of an observation space, by name."""
    return {path or ONLY: leaf for path, leaf in leaves(space)}


def num_choices(space: Space) -> int:
    """Choices of all categorical leaves together: the width of an action mask."""
    return sum(sum(leaf.nvec) for _, leaf in leaves(space))


def choice_groups(space: Space) -> tuple[int, ...]:
    """How many choices each categorical element has, side by side as in a mask."""
    return tuple(count for _, leaf in leaves(space) for count in leaf.nvec)


def space_form(space: gymnasium.Space[Any]) -> Space:
    """A space of gymnasium as plain values.

    Raises:
      ValueError: it is, or has a part, of a kind that no policy here acts in.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return NestedSpace(kind="dict", parts={name: space_form(part) for name, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return NestedSpace(kind="tuple", parts={str(i): space_form(part) for i, part in enumerate(space.spaces)})
    shape, dtype = tuple(space.shape or ()), str(space.dtype)
    if isinstance(space, spaces.Box):
        return LeafSpace(kind="box", shape=shape, dtype=dtype, low=_bounds(space.low), high=_bounds(space.high))
    if isinstance(space, spaces.Discrete):
        return LeafSpace(kind="discrete", shape=(), dtype=dtype, nvec=(int(space.n),), start=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        start = _folded(_whole(space.start))
        return LeafSpace(kind="multi_discrete", shape=shape, dtype=dtype, nvec=_whole(space.nvec), start=start)
    if isinstance(space, spaces.MultiBinary):
        return LeafSpace(kind="multi_binary", shape=shape, dtype=dtype, nvec=(2,) * math.prod(shape), start=(0,))
    raise ValueError(f"spaces of kind {type(space).__name__} are not served: {space}")


def _bounds(values: np.ndarray) -> tuple[float | None, ...]:
    bounds = [float(value) for value in values.ravel()]
    return _folded(tuple(value if math.isfinite(value) else None for value in bounds))


def _whole(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in np.ravel(values))


def _folded(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values[:1] if len(set(values)) == 1 else values
