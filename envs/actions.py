"""Actions as one array for all leaves of their space, and which of them are allowed.

An array of actions is [N, W]: the leaves of the action space side by side in the space's own order, in the numbers of
the environment (a Discrete that starts at 3 gets 3, 4, ...). ``ActionLayout`` says which columns of it are what, and
turns a row into what ``env.step`` takes. Action masks are rows of ``num_choices`` bools: the choices of the categorical
leaves side by side in the same order; True is allowed.

Actions may be what observations may be (``columns.py``), but for Boxes of integers. Nothing here calls an environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import Kind, UnsupportedSpace, flat_tuple, leaves_of, name_of

if TYPE_CHECKING:
    import gymnasium

#: Key of a Dict observation, or of an info, that holds the action mask.
MASK_KEY = "action_mask"


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
        for path, leaf in leaves_of(space, space):
            part = _action_part(name_of(path, "action"), leaf, space, column, choice)
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
        if isinstance(actions, np.ndarray) and actions.dtype == self.dtype and actions.shape == (num_envs, self.width):
            return actions
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
        kind, nvec, start = "multi_discrete", flat_tuple(leaf.nvec), flat_tuple(leaf.start)
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
