"""The spaces of a policy of which nothing but its shape is known, and actions in the structure of their space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from ..rllib.policies.policy_spec import PolicySpec
from ..rllib.policies.spaces import ActionSpec, InputColumn
from .requests import Actions
from .spaces import ONLY, LeafSpace, NestedSpace, Space, leaves

#: See ``nesting``.
Nesting: TypeAlias = "Callable[[np.ndarray], Actions]"


def spaces_of(spec: PolicySpec) -> tuple[Space, Space]:
    """Observation and action space of a policy, as far as its shape tells: columns by their names, bounds of actions.

    Actions that were nested are one array; choices and real numbers side by side a tuple of arrays.
    """
    columns: dict[str, Space] = {column.name: _leaf_of(column) for column in spec.observations.columns}
    observations = columns[ONLY] if [*columns] == [ONLY] else NestedSpace(kind="dict", parts=columns)
    return observations, _action_space(spec.actions)


def nesting(space: Space) -> Nesting:
    """What turns actions [N, W] into arrays with N rows, nested as their space is; worked out once for a space.
    Arrays are not copied where the dtypes are the same.
    """
    if isinstance(space, LeafSpace):
        return _leaf_nesting(space)
    parts: list[tuple[str, slice, Nesting]] = []
    place = 0
    for name, part in space.parts.items():
        width = sum(math.prod(leaf.shape) for _, leaf in leaves(part))
        parts.append((name, slice(place, place + width), nesting(part)))
        place += width
    is_dict = space.kind == "dict"

    def nested(actions: np.ndarray) -> Actions:
        named = {name: nest(actions[:, columns]) for name, columns, nest in parts}
        return named if is_dict else tuple(named.values())

    return nested


def _leaf_nesting(leaf: LeafSpace) -> Nesting:
    dtype, shape, is_single = np.dtype(leaf.dtype), leaf.shape, leaf.kind == "discrete"

    def nested(actions: np.ndarray) -> Actions:
        rows = actions[:, 0] if is_single else actions.reshape(len(actions), *shape)
        return rows if rows.dtype == dtype else rows.astype(dtype)

    return nested


def rows_of(actions: Actions, start: int, stop: int) -> Actions:
    """Some of the rows, with the same nesting."""
    if isinstance(actions, dict):
        return {name: rows_of(part, start, stop) for name, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(rows_of(part, start, stop) for part in actions)
    return actions[start:stop]


def _action_space(actions: ActionSpec) -> Space:
    choices = zip(actions.sizes, actions.starts, strict=True)
    bounds = zip(actions.low, actions.high, strict=True)
    parts: dict[str, Space] = {}
    for is_choice, neighbours in itertools.groupby(actions.is_choice):
        count = len(list(neighbours))
        if is_choice:
            nvec, start = zip(*itertools.islice(choices, count), strict=True)
            leaf = _choices(nvec, start)
        else:
            low, high = zip(*itertools.islice(bounds, count), strict=True)
            leaf = LeafSpace(kind="box", shape=(count,), dtype="float32", low=_finite(low), high=_finite(high))
        parts[str(len(parts))] = leaf
    return parts["0"] if len(parts) == 1 else NestedSpace(kind="tuple", parts=parts)


def _choices(nvec: tuple[int, ...], start: tuple[int, ...]) -> LeafSpace:
    if len(nvec) == 1:
        return LeafSpace(kind="discrete", shape=(), dtype="int64", nvec=nvec, start=start)
    return LeafSpace(kind="multi_discrete", shape=(len(nvec),), dtype="int64", nvec=nvec, start=start)


def _leaf_of(column: InputColumn) -> LeafSpace:
    if column.kind == "choices" and column.shape == ():
        return LeafSpace(kind="discrete", shape=(), dtype="int64", nvec=column.sizes, start=column.starts)
    if column.kind == "choices":
        return LeafSpace(
            kind="multi_discrete", shape=column.shape, dtype="int64", nvec=column.sizes, start=column.starts
        )
    dtype = "uint8" if column.divisor != 1.0 else "float32"
    return LeafSpace(kind="box", shape=column.shape, dtype=dtype, low=(None,), high=(None,))


def _finite(bounds: Iterable[float]) -> tuple[float | None, ...]:
    return tuple(bound if math.isfinite(bound) else None for bound in bounds)
