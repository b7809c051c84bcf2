"""A policy's weights as one vector: what evolution strategies search in.

Only what acts is in it, the tower and the head of the policy; ``PolicySpec`` has a critic too, and the deviation of
continuous actions, which take no part in the likeliest action. In the arrays of a checkpoint, which are PPO's, these
are what they were at the start: 0, and the deviation that the settings say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..policies.policy_spec import PolicySpec


class ParameterVector:
    """Where each array of the acting net lies in the vector.

    Args:
      spec: The policy's shape.

    Attributes:
      shapes: name -> shape, in the order of the vector.
      offsets: name -> where it begins.
      size: P, numbers of all of them.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._others = {name: shape for name, shape in spec.array_shapes().items() if not name.startswith("policy.")}
        self._initial_log_std = spec.network.initial_log_std
        self.shapes = {name: shape for name, shape in spec.array_shapes().items() if name.startswith("policy.")}
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = self.size
            self.size += math.prod(shape)

    def arrays(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """All arrays of the policy, float32, copies."""
        arrays = {name: np.zeros(shape, np.float32) for name, shape in self._others.items()}
        if "log_stds" in arrays:
            arrays["log_stds"][:] = self._initial_log_std
        for name, shape in self.shapes.items():
            start = self.offsets[name]
            arrays[name] = flat[start : start + math.prod(shape)].astype(np.float32).reshape(shape)
        return arrays

    def flat(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """[P] float32 of these arrays; others are passed over."""
        return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name in self.shapes])
