"""A policy that acts in torch, for inference actors on a GPU: the learner's nets with fixed weights.

``Policy`` acts in blocks of few rows, so that a row's bits are its own; that is what a GPU is worst at. Here all rows
go through the nets at once, and a row's last digits may depend on the rows beside it. Both nets are computed in each
step, as the critic's costs next to nothing then: values come with the step. Without recurrence: the learner's nets see
whole sequences, and no state between two steps.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from ..config import ConfigError
from .acting import Acted
from .devices import moved, resolve_device
from .modules import OBSERVATIONS, ActorCritic
from .normalization import normalized
from .policy import Observations
from .policy_spec import PolicySpec
from .weights import Weights

if TYPE_CHECKING:
    import torch


class TorchPolicies:
    """Makes policies on one device. Imports torch.

    Args:
      device: Torch's name of it, or "auto".

    Raises:
      ConfigError: it is not there.
    """

    def __init__(self, device: str) -> None:
        try:
            self.device = resolve_device(device)
        except ValueError as error:
            raise ConfigError(f"inference_device: {error}") from error
        self._nets: ActorCritic | None = None  # of the last spec: initial weights, which are thrown away, take a while

    def __call__(self, weights: Weights) -> TorchPolicy:
        """The policy of these weights.

        Raises:
          ConfigError: it is recurrent.
        """
        if weights.spec.is_recurrent:
            raise ConfigError("inference_device must be cpu for recurrent policies, not " + self.device.type)
        if self._nets is None or self._nets.spec != weights.spec:
            self._nets = ActorCritic(weights.spec, seed=0)
        nets = copy.copy(self._nets)
        nets.nets = copy.deepcopy(self._nets.nets)
        return TorchPolicy(nets, weights, self.device)


class TorchPolicy:
    """A policy and its critic, with fixed weights. What it can be asked is as in ``Policy``.

    Args:
      nets: Its own; moved to the device.
      weights: Their numbers.
      device: Where to compute.
    """

    def __init__(self, nets: ActorCritic, weights: Weights, device: torch.device) -> None:
        import torch

        # Copies: arrays from the object store are read-only, and torch warns of those.
        nets.nets.load_state_dict({name: torch.tensor(array) for name, array in weights.arrays.items()})
        nets.nets.to(device).requires_grad_(requires_grad=False)
        self.spec: PolicySpec = weights.spec
        self.version = weights.version
        self._nets, self._device = nets, device
        self._normalizers = weights.normalizers

    def step(self, observations: Observations, states: np.ndarray) -> Acted:
        """See ``Policy.step``; values always come along."""
        parameters, values = self._forward(observations)
        return Acted(parameters, values, states)

    def values(self, observations: Observations, _states: np.ndarray | None = None) -> np.ndarray:
        """See ``Policy.values``; in a policy without memory states mean nothing."""
        return self._forward(observations)[1]

    def _forward(self, observations: Observations) -> tuple[np.ndarray, np.ndarray]:
        import torch

        if self._normalizers:
            observations = normalized(observations, self._normalizers)
        with torch.inference_mode():
            rows = {
                f"{OBSERVATIONS}{name}": moved(torch.tensor(column), self._device)
                for name, column in observations.items()
            }
            parameters, values = self._nets.forward(rows)
            return parameters.float().cpu().numpy(), values.float().cpu().numpy()
