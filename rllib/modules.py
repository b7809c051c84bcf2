"""The learner's side of a policy: the network of ``policy.py`` in torch, layer for layer.

Two separate nets, policy and critic: on simple control a shared trunk is clearly worse (Andrychowicz et al. 2021).
Orthogonal initial weights, gain sqrt(2) in hidden layers, 0.01 at the policy's head, so that the first policy is nearly
uniform, and 1 at the critic's; biases 0 (PPO's details 2 and 13 in Huang et al. 2022).

Used by the learner only; torch is imported when the first network is built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .distributions import Categorical
from .weights import PolicySpec

if TYPE_CHECKING:
    import torch

_HIDDEN_GAIN, _POLICY_GAIN, _VALUE_GAIN = math.sqrt(2.0), 0.01, 1.0


class ActorCritic:
    """A policy and a critic that can learn.

    Args:
      spec: Their shape.
      seed: Decides the initial weights; torch's global generator is neither read nor moved.

    Attributes:
      nets: Modules ``policy`` and ``value``, and the parameter ``log_stds`` [A] where actions are continuous. The names
        in its state_dict are those of ``Weights.arrays``.
    """

    def __init__(self, spec: PolicySpec, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.spec = spec
        with _one_thread():
            self._policy = _net(spec, spec.distribution.num_outputs, _POLICY_GAIN, generator)
            self._value = _net(spec, 1, _VALUE_GAIN, generator)
        self.nets = torch.nn.ModuleDict({"policy": self._policy, "value": self._value})
        if not isinstance(spec.distribution, Categorical):
            self.nets.register_parameter("log_stds", torch.nn.Parameter(torch.zeros(spec.distribution.size)))

    def evaluate_actions(
        self, observations: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the networks think of actions that were taken.

        Args:
          observations: [N, D] float32.
          actions: [N] int64 or [N, A] float32, as sampled.

        Returns:
          log_probs [N], entropies [N], values [N].
        """
        outputs = self._policy(observations)
        values = self._value(observations).squeeze(1)
        if isinstance(self.spec.distribution, Categorical):
            log_probabilities = outputs.log_softmax(1)
            chosen = log_probabilities.gather(1, actions.unsqueeze(1)).squeeze(1)
            return chosen, -(log_probabilities.exp() * log_probabilities).sum(1), values
        log_stds = self.nets.get_parameter("log_stds")
        scaled = (actions - outputs) * (-log_stds).exp()
        constant = 0.5 * math.log(2.0 * math.pi) * self.spec.distribution.size
        log_probs = (-0.5 * scaled.square() - log_stds).sum(1) - constant
        entropy = (log_stds + 0.5 * math.log(2.0 * math.pi * math.e)).sum()
        return log_probs, entropy.expand_as(log_probs), values


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch computes with one thread: the factorisation behind orthogonal weights has other last bits with more, and a
    seed must give the same weights on any machine, whatever the process has done before.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _net(spec: PolicySpec, num_outputs: int, head_gain: float, generator: torch.Generator) -> torch.nn.Sequential:
    import torch

    widths = (spec.observation_size, *spec.hidden_sizes, num_outputs)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        # Left empty: torch's own initialisation would draw from the global generator.
        linear = torch.nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        is_head = len(layers) == 2 * len(spec.hidden_sizes)
        torch.nn.init.orthogonal_(linear.weight, head_gain if is_head else _HIDDEN_GAIN, generator)
        torch.nn.init.zeros_(linear.bias)
        layers += [linear] if is_head else [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers)
