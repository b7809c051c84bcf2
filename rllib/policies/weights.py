"""The numbers of a policy, with their shape and the version that tells them apart. Immutable: newer is another object.

The learner makes one after each update, the driver puts it into the object store once, and every rollout worker gets
the same reference.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .normalization import ObservationNormalizer
from .policy_spec import PolicySpec


@dataclass(frozen=True)
class Weights:
    """Named arrays of one version of a policy."""

    version: int  #: number of iterations learned before
    spec: PolicySpec
    arrays: Mapping[str, np.ndarray]  #: float32; named as in the state_dict of ``modules.ActorCritic.nets``
    #: by column: what observations pass before the nets see them
    normalizers: Mapping[str, ObservationNormalizer] = field(default_factory=dict)


def by_name(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A vector [P] as arrays of these shapes, one behind the other; they share its memory."""
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes.values()))
    parts = np.split(flat, ends[:-1])
    return {name: part.reshape(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def flattened(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Arrays of exactly these shapes as a new vector [P] float32, the opposite of ``by_name``.

    Raises:
      RuntimeError: names or shapes are others.
    """
    its = {name: array.shape for name, array in arrays.items()}
    if its != dict(shapes):
        raise RuntimeError(f"the policy has arrays {dict(shapes)}, not {its}")
    return np.concatenate([np.asarray(arrays[name], np.float32).reshape(-1) for name in shapes])
