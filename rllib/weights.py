"""The numbers of a policy, with their shape and the version that tells them apart. Immutable: newer is another object.

The learner makes one after each update, the driver puts it into the object store once, and every rollout worker gets
the same reference.
"""

from __future__ import annotations

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
