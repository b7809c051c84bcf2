"""Values of (nested) spaces as columns: one array per leaf; and actions as one array for all leaves.

Everything above the environments sees a batch of observations as ``Columns``, a dict of arrays whose rows are the
environment copies, whatever the space looks like. A column's name is the path to its leaf, joined by "/": "camera",
"state/position", "0" for the first part of a Tuple. A space that is not nested has one column, ``"observation"``.

Actions cross the border the other way, as one array [N, W]: the leaves of the action space side by side in the space's
own order, in the environment's own numbers (a Discrete that starts at 3 gets 3, 4, ...). ``ActionLayout`` says which
columns of it are what, and turns a row into what ``env.step`` takes. Action masks are rows of ``num_choices`` bools:
the choices of the categorical leaves side by side in the same order; True is allowed.

Observations may be Box, Discrete, MultiDiscrete and MultiBinary, in Dicts and Tuples of any depth; so may actions, but
for Boxes of integers. All else is refused with ``UnsupportedSpace``. Nothing here calls an environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import gymnasium

Columns = dict[str, np.ndarray]
#: One copy's place in each column, as writable views, in the order of the specs.
Row = tuple[np.ndarray, ...]
Kind = Literal["box", "discrete", "multi_discrete", "multi_binary"]

#: Name of the only column of a space that is not nested.
ONLY = "observation"
#: Key of a Dict observation that holds the action mask.
MASK_KEY = "action_mask"
_Path = tuple[str | int, ...]


class UnsupportedSpace(ValueError):  # noqa: N818 - reads as what it says
    """A space that has no columns, or that no action can be made for. One line: the space, and what is supported."""


@dataclass(frozen=True)
class ColumnSpec:
    """What one column of observations holds. Hashable, and plain enough for JSON.

    Bounds and starts are flat tuples in C order, of length 1 where all elements have the same.
    """

    shape: tuple[int, ...]  #: of one row; () for discrete
    dtype: np.dtype[Any]
    kind: Kind
    low: tuple[float, ...] = ()  #: box: least values, may be -inf
    high: tuple[float, ...] = ()  #: box: greatest values, may be inf
    nvec: tuple[int, ...] = ()  #: discrete (one), multi_discrete: number of choices of each element, flat
    start: tuple[int, ...] = ()  #: discrete, multi_discrete: the environment's number for choice 0

    @property
    def n(self) -> int:
        """Number of choices of a discrete column."""
        return self.nvec[0]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest legal value, each with the shape of a row or broadcasting to it."""
        if self.kind == "box":
            return _spread(self.low, self.shape), _spread(self.high, self.shape)
        if self.kind == "multi_binary":
            return np.zeros((), np.int64), np.ones((), np.int64)
        start = _spread(self.start, self.shape)
        return start, start + _spread(self.nvec, self.shape) - 1

    def empty(self, num_envs: int) -> np.ndarray:
        """A column of zeros, [num_envs, *shape]."""
        return np.zeros((num_envs, *self.shape), self.dtype)


def _spread(values: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values)
    return array.reshape(()) if len(values) == 1 else array.reshape(shape)


def _folded(values: np.ndarray) -> tuple[Any, ...]:
    flat = np.asarray(values).ravel()
    if flat.size and (flat == flat[0]).all():
        flat = flat[:1]
    return tuple(flat.tolist())


def column_specs(space: gymnasium.Space[Any]) -> dict[str, ColumnSpec]:
    """The columns of a space, by name, in the space's own order.

    Raises:
      UnsupportedSpace: the space, or a part of it, has no columns.
    """
    return {_name(path): _column_spec(leaf, space) for path, leaf in _leaves(space, space)}


def mask_is_observed(space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> bool:
    """Whether observations carry the action mask: a Dict with the key "action_mask" that has one number per choice."""
    from gymnasium import spaces

    if not isinstance(space, spaces.Dict) or MASK_KEY not in space.spaces or len(space.spaces) == 1:
        return False
    choices = ActionLayout.of(action_space).num_choices
    mask = space.spaces[MASK_KEY]
    return choices > 0 and mask.shape is not None and math.prod(mask.shape) == choices


def without_mask(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """A Dict observation space without its key "action_mask"."""
    from gymnasium import spaces

    assert isinstance(space, spaces.Dict)
    return spaces.Dict({name: part for name, part in space.spaces.items() if name != MASK_KEY})


class ColumnWriter:
    """Stores observations into columns, one copy at a time.

    Args:
      space: What the observations are of. Parts of an observation that the space does not name are left alone.

    Raises:
      UnsupportedSpace: see ``column_specs``.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.specs = column_specs(space)
        self._paths = [path for path, _ in _leaves(space, space)]
        self._names = list(self.specs)
        self._are_whole = tuple(spec.dtype.kind in "iub" for spec in self.specs.values())
        write_only = self._write_only_whole if self._are_whole[0] else self._write_only
        self.write: Callable[[Row, Any], None] = write_only if self._paths == [()] else self._write_all

    def allocate(self, num_envs: int) -> Columns:
        """Columns of zeros for N copies."""
        return {name: spec.empty(num_envs) for name, spec in self.specs.items()}

    def rows(self, columns: Columns) -> list[Row]:
        """Views of each copy's row, for ``write``: made once, because making a view costs as much as filling it."""
        num_envs = len(columns[self._names[0]])
        return [tuple(columns[name][i, ...] for name in self._names) for i in range(num_envs)]

    def write_batch(self, columns: Columns, values: Any, which: np.ndarray) -> None:
        """Store rows of a batch, which has the space's nesting with N rows in each leaf.

        Args:
          columns: where to; other rows are left alone.
          values: the batch.
          which: [N] bool, the rows to store.

        Raises:
          ValueError: a part is missing or has another shape.
        """
        for name, path in zip(self._names, self._paths, strict=True):
            part = np.asarray(_part_of(values, path, name))
            if part.shape != columns[name].shape:
                raise ValueError(f"observations {name!r} of shape {part.shape}; they have {columns[name].shape}")
            np.copyto(columns[name], part, where=which.reshape(-1, *[1] * (part.ndim - 1)), casting="unsafe")

    def _write_only(self, row: Row, value: Any) -> None:
        """Raises ValueError if the value has not the space's shape; assignment would spread a smaller array."""
        (place,) = row
        shape = value.shape if isinstance(value, np.ndarray) else np.shape(value)  # which takes four times as long
        if shape != place.shape:
            raise ValueError(f"observation of shape {shape}; the space says {place.shape}")
        place[...] = value

    def _write_only_whole(self, row: Row, value: Any) -> None:
        self._write_only(row, _whole_numbers(value, row[0].dtype, "observation"))

    def _write_all(self, row: Row, value: Any) -> None:
        for name, path, place, is_whole in zip(self._names, self._paths, row, self._are_whole, strict=True):
            part = _part_of(value, path, name)
            if np.shape(part) != place.shape:
                raise ValueError(f"observation {name!r} of shape {np.shape(part)}; the space says {place.shape}")
            place[...] = _whole_numbers(part, place.dtype, f"observation {name!r}") if is_whole else part


def _whole_numbers(value: Any, dtype: np.dtype[Any], what: str) -> np.ndarray:
    """Whole numbers as a column stores them. A picture of fractions in a space of bytes would become all zeros, and
    what is too large something else.

    Raises:
      ValueError: they are not whole, or do not fit.
    """
    array = np.asarray(value)
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):  # the comparison tells
        stored = array.astype(dtype)
    if not (stored == array).all():
        shown = np.array2string(array, threshold=8, separator=", ").replace("\n", "")
        raise ValueError(f"{what} of {array.dtype}, {shown}; the space says {dtype}")
    return stored


def _part_of(value: Any, path: _Path, name: str) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"the observation has no part {name!r}, which the space names") from error
    return value


@dataclass(frozen=True)
class ActionPart:
    """One leaf of an action space: which columns of the actions it has, and what may stand there."""

    name: str  #: path, as for observations; "action" for a space that is not nested
    kind: Kind
    columns: slice  #: its columns in [N, W]
    shape: tuple[int, ...]  #: of the leaf's value; () for discrete
    dtype: np.dtype[Any]  #: what the environment takes
    choices: slice  #: its choices in a mask row [num_choices]; empty for a box
    nvec: tuple[int, ...] = ()  #: choices of each column; 2 each for multi_binary; () for a box
    start: tuple[int, ...] = ()  #: the environment's number for choice 0 of each column; () for a box
    low: tuple[float, ...] = ()  #: box: least value of each column, may be -inf
    high: tuple[float, ...] = ()  #: box: greatest value of each column, may be inf

    @property
    def width(self) -> int:
        """Number of its columns."""
        return len(self.nvec or self.low)


class ActionLayout:
    """How actions lie in an array [N, W].

    Attributes:
      parts: the leaves, from left to right.
      width: W.
      dtype: float32 if any part is continuous, else int64.
      num_choices: categorical choices of all parts together; the width of a mask.
    """

    def __init__(self, parts: tuple[ActionPart, ...], rebuild: Callable[[Iterator[Any]], Any]) -> None:
        self.parts = parts
        self.width = parts[-1].columns.stop
        self.num_choices = parts[-1].choices.stop
        self.dtype = np.dtype(np.float32 if any(part.kind == "box" for part in parts) else np.int64)
        self._rebuild = rebuild
        self._is_plain = len(parts) == 1 and parts[0].name == "action"
        counts = [count for part in parts for count in part.nvec]
        self._groups = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0, np.int64)

    @classmethod
    def of(cls, space: gymnasium.Space[Any]) -> ActionLayout:
        """The layout of a space.

        Raises:
          UnsupportedSpace: no action can be made for it.
        """
        parts: list[ActionPart] = []
        column = choice = 0
        for path, leaf in _leaves(space, space):
            part = _action_part(_name(path, "action"), leaf, space, column, choice)
            parts.append(part)
            column, choice = part.columns.stop, part.choices.stop
        if column == 0:
            raise UnsupportedSpace(f"the action space {space} has no actions")
        return cls(tuple(parts), _rebuilder(space))

    def unflatten_all(self, actions: np.ndarray) -> list[Any]:
        """What each of N environments takes, of actions [N, W]: an integer, an array, or the space's nesting."""
        if self._is_plain and self.parts[0].kind == "discrete":
            # numpy's integers, as gymnasium's own samples are: its Discrete takes 2.5 us more to check a Python int.
            return list(actions[:, 0])
        leaves = [self._leaf(part, actions) for part in self.parts]
        if self._is_plain:
            return leaves[0]
        return [self._rebuild(iter(values)) for values in zip(*leaves, strict=True)]

    def unflatten_batch(self, actions: np.ndarray) -> Any:
        """What a vector environment of gymnasium's kind takes: the space's nesting of arrays with N rows each."""
        leaves = []
        for part in self.parts:
            values = actions[:, part.columns].astype(part.dtype)
            leaves.append(values.reshape(len(values), *part.shape))
        return leaves[0] if self._is_plain else self._rebuild(iter(leaves))

    def read(self, actions: Any, num_envs: int) -> np.ndarray:
        """Actions for N environments as this layout has them, from [N, W], or from [N] where W is 1.

        Raises:
          ValueError: another shape, or numbers that are not whole where they must be.
        """
        array = np.asarray(actions)
        if self.width == 1 and array.ndim == 1:
            array = array[:, None]
        if array.shape != (num_envs, self.width):
            raise ValueError(f"actions of shape {array.shape}; {num_envs} environments take {(num_envs, self.width)}")
        if self.dtype.kind == "i" and array.dtype.kind not in "iu":
            raise ValueError(f"actions of {array.dtype}; these environments take whole numbers")
        return array.astype(self.dtype, copy=False)

    def write_mask(self, mask: Any, into: np.ndarray) -> None:
        """Store one environment's mask.

        Args:
          mask: an array of ``num_choices`` numbers, or such arrays nested like the action space; not 0 is allowed.
          into: [num_choices] bool.

        Raises:
          ValueError: another size, or a part of the action without any allowed choice.
        """
        flat = mask if isinstance(mask, np.ndarray) and mask.ndim == 1 else _flat_mask(mask)
        if flat.shape != into.shape:
            raise ValueError(f"action mask of size {flat.size}; the actions have {into.size} choices")
        into[...] = flat
        if not flat.size:
            raise ValueError("there is an action mask, but the actions have nothing to choose from")
        if not np.logical_or.reduceat(into, self._groups).all():
            raise ValueError(f"the action mask allows no choice: {into.astype(int).tolist()}")

    def write_masks(self, masks: np.ndarray, into: np.ndarray, which: np.ndarray) -> None:
        """Store the masks of some of N copies.

        Args:
          masks: [N, num_choices]; not 0 is allowed.
          into: [N, num_choices] bool.
          which: [N] bool, the rows to store.

        Raises:
          ValueError: another shape, or a part of an action without any allowed choice.
        """
        if masks.shape != into.shape:
            raise ValueError(f"action masks of shape {masks.shape}; they have {into.shape}")
        np.copyto(into, masks != 0, where=which[:, None])
        if not np.logical_or.reduceat(into, self._groups, axis=1).all():
            raise ValueError("an action mask allows no choice")

    def _leaf(self, part: ActionPart, actions: np.ndarray) -> list[Any]:
        values = actions[:, part.columns]
        if part.kind == "discrete":
            return list(values[:, 0].astype(np.int64))
        return list(values.astype(part.dtype).reshape(len(values), *part.shape))


def _flat_mask(mask: Any) -> np.ndarray:
    parts = _flat_masks(mask)
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _flat_masks(mask: Any) -> list[np.ndarray]:
    if isinstance(mask, dict):
        return [array for part in mask.values() for array in _flat_masks(part)]
    if isinstance(mask, tuple | list) and any(isinstance(part, tuple | list | dict | np.ndarray) for part in mask):
        return [array for part in mask for array in _flat_masks(part)]
    return [] if mask is None else [np.ravel(mask)]


def _leaves(space: Any, whole: gymnasium.Space[Any], path: _Path = ()) -> list[tuple[_Path, Any]]:
    """Paths and leaf spaces in the space's own order.

    Raises:
      UnsupportedSpace: a leaf is of another kind, or two leaves would have the same name.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        parts: list[tuple[str | int, Any]] = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space.spaces))
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return [(path, space)]
    else:
        where = f" (part {_name(path)!r} of {whole})" if path else ""
        if not isinstance(space, spaces.Space):
            kind = f"{type(space).__module__}.{type(space).__qualname__}".removeprefix("builtins.")
            raise UnsupportedSpace(f"a {kind} is no space of gymnasium{where}")
        raise UnsupportedSpace(
            f"spaces of kind {type(space).__name__} are not supported{where}: supported are Box, Discrete, "
            f"MultiDiscrete, MultiBinary, and Dict and Tuple of these"
        )
    leaves = [leaf for key, part in parts for leaf in _leaves(part, whole, (*path, key))]
    if not leaves and not path:
        raise UnsupportedSpace(f"the space {whole} is empty")
    names = [_name(leaf_path) for leaf_path, _ in leaves]
    if len(set(names)) != len(names):
        raise UnsupportedSpace(f"two parts of {whole} have the same name, {max(names, key=names.count)!r}")
    return leaves


def _name(path: _Path, only: str = ONLY) -> str:
    return "/".join(map(str, path)) if path else only


def _column_spec(leaf: Any, whole: gymnasium.Space[Any]) -> ColumnSpec:
    from gymnasium import spaces

    shape, dtype = tuple(leaf.shape), np.dtype(leaf.dtype)
    if 0 in shape:
        raise UnsupportedSpace(f"observations of shape {shape} have no numbers, in {whole}: leave them away")
    if isinstance(leaf, spaces.Box):
        if dtype.kind not in "fiub":
            raise UnsupportedSpace(f"observations of {dtype} are not supported, in {whole}: numbers are")
        return ColumnSpec(shape, dtype, "box", low=_folded(leaf.low), high=_folded(leaf.high))
    if isinstance(leaf, spaces.Discrete):
        return ColumnSpec((), dtype, "discrete", nvec=(int(leaf.n),), start=(int(leaf.start),))
    if isinstance(leaf, spaces.MultiDiscrete):
        return ColumnSpec(shape, dtype, "multi_discrete", nvec=_whole(leaf.nvec), start=_folded(leaf.start))
    return ColumnSpec(shape, dtype, "multi_binary")


def _whole(values: np.ndarray) -> tuple[int, ...]:
    return tuple(np.asarray(values).ravel().tolist())


def _action_part(name: str, leaf: Any, whole: gymnasium.Space[Any], column: int, choice: int) -> ActionPart:
    from gymnasium import spaces

    shape, dtype = tuple(leaf.shape or ()), np.dtype(leaf.dtype)
    width = math.prod(shape)
    columns = slice(column, column + width)
    if isinstance(leaf, spaces.Box):
        if dtype.kind != "f":
            raise UnsupportedSpace(
                f"actions of {dtype} in a Box are not supported, in {whole}: a Box of real numbers is, "
                f"and Discrete, MultiDiscrete and MultiBinary for whole ones"
            )
        low, high = tuple(map(float, leaf.low.ravel())), tuple(map(float, leaf.high.ravel()))
        return ActionPart(name, "box", columns, shape, dtype, slice(choice, choice), low=low, high=high)
    kind: Kind = "multi_binary"
    nvec: tuple[int, ...] = (2,) * width
    start: tuple[int, ...] = (0,) * width
    if isinstance(leaf, spaces.Discrete):
        kind, nvec, start = "discrete", (int(leaf.n),), (int(leaf.start),)
    elif isinstance(leaf, spaces.MultiDiscrete):
        kind, nvec, start = "multi_discrete", _whole(leaf.nvec), _whole(leaf.start)
    choices = slice(choice, choice + sum(nvec))
    return ActionPart(name, kind, columns, shape, dtype, choices, nvec, start)


def _rebuilder(space: gymnasium.Space[Any]) -> Callable[[Iterator[Any]], Any]:
    """A function that takes the leaves' values, in order, and nests them as the space does."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        named = [(name, _rebuilder(part)) for name, part in space.spaces.items()]
        return lambda values: {name: rebuild(values) for name, rebuild in named}
    if isinstance(space, spaces.Tuple):
        parts = [_rebuilder(part) for part in space.spaces]
        return lambda values: tuple(rebuild(values) for rebuild in parts)
    return next
