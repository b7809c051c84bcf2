"""Observations of (nested) spaces as columns: one array per leaf.

Everything above the environments sees a batch of observations as ``Columns``, a dict of arrays whose rows are the
environment copies, whatever the space looks like. A column's name is the path to its leaf, joined by "/": "camera",
"state/position", "0" for the first part of a Tuple. A space that is not nested has one column, ``"observation"``.

Observations may be Box, Discrete, MultiDiscrete and MultiBinary, in Dicts and Tuples of any depth. All else is refused
with ``UnsupportedSpace``. Actions cross the border the other way (``actions.py``). Nothing here calls an environment.
"""

from __future__ import annotations

from collections.abc import Callable
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
#: Keys that lead to a leaf.
Path = tuple[str | int, ...]


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
    return {name_of(path): _column_spec(leaf, space) for path, leaf in leaves_of(space, space)}


class ColumnWriter:
    """Stores observations into columns, one copy at a time.

    Args:
      space: What the observations are of. Parts of an observation that the space does not name are left alone.

    Raises:
      UnsupportedSpace: see ``column_specs``.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.specs = column_specs(space)
        self._paths = [path for path, _ in leaves_of(space, space)]
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
          ValueError: a part is missing, has another shape, or numbers that its space has not.
        """
        for name, path, is_whole in zip(self._names, self._paths, self._are_whole, strict=True):
            part = np.asarray(_part_of(values, path, name))
            if part.shape != columns[name].shape:
                raise ValueError(f"observations {name!r} of shape {part.shape}; they have {columns[name].shape}")
            if is_whole:
                _whole_numbers(part[which], columns[name].dtype, f"observations {name!r}")
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


def _part_of(value: Any, path: Path, name: str) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"the observation has no part {name!r}, which the space names") from error
    return value


def leaves_of(space: Any, whole: gymnasium.Space[Any], path: Path = ()) -> list[tuple[Path, Any]]:
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
        where = f" (part {name_of(path)!r} of {whole})" if path else ""
        if not isinstance(space, spaces.Space):
            kind = f"{type(space).__module__}.{type(space).__qualname__}".removeprefix("builtins.")
            raise UnsupportedSpace(f"a {kind} is no space of gymnasium{where}")
        raise UnsupportedSpace(
            f"spaces of kind {type(space).__name__} are not supported{where}: supported are Box, Discrete, "
            f"MultiDiscrete, MultiBinary, and Dict and Tuple of these"
        )
    leaves = [leaf for key, part in parts for leaf in leaves_of(part, whole, (*path, key))]
    if not leaves and not path:
        raise UnsupportedSpace(f"the space {whole} is empty")
    names = [name_of(leaf_path) for leaf_path, _ in leaves]
    if len(set(names)) != len(names):
        raise UnsupportedSpace(f"two parts of {whole} have the same name, {max(names, key=names.count)!r}")
    return leaves


def name_of(path: Path, only: str = ONLY) -> str:
    """What a leaf is called; ``only``, if the space is not nested."""
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
        return ColumnSpec(shape, dtype, "multi_discrete", nvec=flat_tuple(leaf.nvec), start=_folded(leaf.start))
    return ColumnSpec(shape, dtype, "multi_binary")


def flat_tuple(values: np.ndarray) -> tuple[int, ...]:
    """Whole numbers of any shape in C order."""
    return tuple(np.asarray(values).ravel().tolist())
