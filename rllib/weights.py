"""The numbers of a policy, with their shape and the version that tells them apart. Immutable: newer is another object.

The learner makes one after each update, the driver puts it into the object store once, and every rollout worker gets
the same reference. ``PolicySpec`` is all that acting and learning must agree on: ``policy.py`` builds the net in numpy
from it, ``modules.py`` in torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .distributions import Categorical, DiagonalGaussian, Distribution
from .normalization import ObservationNormalizer


@dataclass(frozen=True)
class PolicySpec:
    """The shape of a policy: all that is needed besides the weights."""

    observation_size: int  #: D
    distribution: Distribution
    hidden_sizes: tuple[int, ...]  #: widths of the tanh layers, of the policy's and the critic's net alike

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every array that ``Weights.arrays`` of this spec holds."""
        shapes: dict[str, tuple[int, ...]] = {}
        for net, num_outputs in (("policy", self.distribution.num_outputs), ("value", 1)):
            widths = (self.observation_size, *self.hidden_sizes, num_outputs)
            for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
                # The activations between the layers are counted too.
                shapes[f"{net}.{2 * layer}.weight"] = (outputs, inputs)
                shapes[f"{net}.{2 * layer}.bias"] = (outputs,)
        if isinstance(self.distribution, DiagonalGaussian):
            shapes["log_stds"] = (self.distribution.size,)
        return shapes

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; an infinite bound becomes None."""
        fields: dict[str, Any] = {"observation_size": self.observation_size, "hidden_sizes": list(self.hidden_sizes)}
        if isinstance(self.distribution, Categorical):
            return fields | {"num_actions": self.distribution.num_actions, "start": self.distribution.start}
        return fields | {
            "low": [None if math.isinf(bound) else bound for bound in self.distribution.low],
            "high": [None if math.isinf(bound) else bound for bound in self.distribution.high],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PolicySpec:
        """The inverse of ``to_dict``."""
        distribution: Distribution
        if "num_actions" in fields:
            distribution = Categorical(fields["num_actions"], fields["start"])
        else:
            distribution = DiagonalGaussian(
                tuple(-math.inf if bound is None else bound for bound in fields["low"]),
                tuple(math.inf if bound is None else bound for bound in fields["high"]),
            )
        return cls(fields["observation_size"], distribution, tuple(fields["hidden_sizes"]))


@dataclass(frozen=True)
class Weights:
    """Named arrays of one version of a policy."""

    version: int  #: number of iterations learned before
    spec: PolicySpec
    arrays: Mapping[str, np.ndarray]  #: float32; named as in the state_dict of ``modules.ActorCritic.nets``
    normalizer: ObservationNormalizer | None = None  #: what observations pass before the nets see them
