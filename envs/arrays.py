"""The arrays of a vector environment: N rows each, in this process's memory or laid side by side in one block.

One block that several processes map is how ``ParallelVectorEnv`` moves everything without a copy: each process writes
the rows of its own copies in place. Where an array lies follows from the spaces and N alone, so only a file descriptor
needs to be handed over.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .actions import ActionLayout
from .columns import Columns, column_specs

if TYPE_CHECKING:
    import gymnasium

#: Arrays begin at whole cache lines, so that no array's end and another's beginning share one.
_ALIGNMENT = 64
#: Name, shape and dtype of one array.
_Line = tuple[str, tuple[int, ...], np.dtype[Any]]


@dataclass
class Arrays:
    """What a vector environment shows (see ``VectorEnv``), and what its parts must tell each other."""

    observations: Columns
    final_observations: Columns
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    action_masks: np.ndarray  #: [N, num_choices] bool; there also where the environment gives no masks
    actions: np.ndarray  #: [N, W] of the next step
    episodes: np.ndarray  #: [N] int64, number of the episode under way
    final_returns: np.ndarray  #: [N] float64, of the episodes that ended in the last step
    final_lengths: np.ndarray  #: [N] int64, of the episodes that ended in the last step; 0 where only a life was lost

    @classmethod
    def allocate(
        cls, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], num_envs: int
    ) -> Arrays:
        """In this process's own memory."""
        table = list(_table(observation_space, action_space, num_envs))
        arrays = cls._in(bytearray(_size(table)), table)
        arrays.valid[:] = True
        return arrays

    @classmethod
    def map(
        cls,
        descriptor: int,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        num_envs: int,
    ) -> Arrays:
        """In a block that other processes map too, which is made as large as it must be. The mapping lives as long as
        any of the arrays.

        Args:
          descriptor: See ``open_block``.
          observation_space, action_space, num_envs: what lies in the block; the same for all who map it.
        """
        table = list(_table(observation_space, action_space, num_envs))
        os.ftruncate(descriptor, _size(table))
        return cls._in(mmap.mmap(descriptor, _size(table)), table)

    def rows(self, part: slice) -> Arrays:
        """Views of some rows."""
        return Arrays(
            {name: column[part] for name, column in self.observations.items()},
            {name: column[part] for name, column in self.final_observations.items()},
            *(getattr(self, name)[part] for name in _PLAIN),
        )

    @classmethod
    def _in(cls, buffer: bytearray | mmap.mmap, table: Sequence[_Line]) -> Arrays:
        made: dict[str, Any] = {"observations": {}, "final_observations": {}}
        offset = 0
        for name, shape, dtype in table:
            array: np.ndarray = np.ndarray(shape, dtype, buffer, offset)
            kind, separator, column = name.partition("/")
            if separator:  # a part of a Dict may be called ""
                made[kind][column] = array
            else:
                made[kind] = array
            offset += _aligned(array.nbytes)
        return cls(**made)


#: The fields that are one array each, in their order.
_PLAIN = tuple(name for name in Arrays.__dataclass_fields__ if not name.endswith("observations"))


def open_block() -> int:
    """A descriptor of an empty file in memory, without a name: it is gone when the last process that has it is."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shoal-environments")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _table(
    observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], num_envs: int
) -> Iterator[_Line]:
    layout = ActionLayout.of(action_space)
    for kind in ("observations", "final_observations"):
        for name, spec in column_specs(observation_space).items():
            yield f"{kind}/{name}", (num_envs, *spec.shape), spec.dtype
    yield "rewards", (num_envs,), np.dtype(np.float32)
    for name in ("terminated", "truncated", "valid"):
        yield name, (num_envs,), np.dtype(np.bool_)
    yield "action_masks", (num_envs, layout.num_choices), np.dtype(np.bool_)
    yield "actions", (num_envs, layout.width), layout.dtype
    yield "episodes", (num_envs,), np.dtype(np.int64)
    yield "final_returns", (num_envs,), np.dtype(np.float64)
    yield "final_lengths", (num_envs,), np.dtype(np.int64)


def _size(table: Sequence[_Line]) -> int:
    return sum(_aligned(math.prod(shape) * dtype.itemsize) for _, shape, dtype in table)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
