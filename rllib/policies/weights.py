"""The numbers of a policy, with their shape and the version that tells them apart. Immutable: newer is another object.

The learner makes one after each update, the driver puts it into the object store once, and every rollout worker gets
the same reference.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .normalization import ObservationNormalizer
from .policy_spec import PolicySpec


@dataclass(frozen=True)
class Weights:
    """Named arrays of one version of a policy."""

    __shoal_plain__: ClassVar[bool] = True  # see ``core/serialization/values.py``

    version: int  #: number of iterations learned before
    spec: PolicySpec
    arrays: Mapping[str, np.ndarray]  #: float32; named as in the state_dict of ``modules.ActorCritic.nets``
    #: by column: what observations pass before the nets see them
    normalizers: Mapping[str, ObservationNormalizer] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        # Small nets travel in each iteration, and to pickle and load a dozen arrays takes 35 us: so as one vector.
        shapes = {name: array.shape for name, array in self.arrays.items()}
        is_whole = shapes == self.spec.array_shapes() and all(
            array.dtype == np.float32 for array in self.arrays.values()
        )
        if not is_whole:
            return Weights, (self.version, self.spec, dict(self.arrays), dict(self.normalizers))
        flat = flattened(self.arrays, self.spec.array_shapes())
        return _from_flat, (self.version, self.spec, flat, dict(self.normalizers))


def _from_flat(
    version: int, spec: PolicySpec, flat: np.ndarray, normalizers: Mapping[str, ObservationNormalizer]
) -> Weights:
    return Weights(version, spec, by_name(flat, spec.array_shapes()), normalizers)


def by_name(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A vector [P] as arrays of these shapes, one behind the other; they share its memory."""
    ends = itertools.accumulate(map(math.prod, shapes.values()), initial=0)
    # Not np.split, which takes four times as long.
    return {
        name: flat[begin:end].reshape(shape)
        for (begin, end), (name, shape) in zip(itertools.pairwise(ends), shapes.items(), strict=True)
    }


def flattened(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Arrays of exactly these shapes as a new vector [P] float32, the opposite of ``by_name``.

    Raises:
      RuntimeError: names or shapes are others.
    """
    its = {name: array.shape for name, array in arrays.items()}
    if its != dict(shapes):
        raise RuntimeError(f"the policy has arrays {dict(shapes)}, not {its}")
    return np.concatenate([np.asarray(arrays[name], np.float32).reshape(-1) for name in shapes])
