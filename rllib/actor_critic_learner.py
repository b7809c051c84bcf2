"""Which learner takes the gradient steps of a policy and its critic, made: numpy where that is able to and faster.

What algorithms with such nets share. Each hands in its loss twice, for autograd and with its derivatives written out;
the rest is in the settings that all algorithms have. Torch is imported only where it is what learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import numpy_learner, streams, torch_learner
from .compilation import Loss
from .config import ConfigError, RolloutConfig
from .initial_weights import initial_weights
from .learner import Learner
from .modules import ActorCritic
from .policy_spec import PolicySpec

if TYPE_CHECKING:
    import torch


def actor_critic_learner(
    config: RolloutConfig,
    spec: PolicySpec,
    loss: Loss,
    gradients: numpy_learner.Loss,
    *,
    minibatch_size: int,
    learning_rate: float,
    adam_epsilon: float,
    max_grad_norm: float | None,
) -> Learner:
    """A learner with fresh weights, which Adam improves.

    Args:
      config: What computes, where, in what precision, and the seed of the weights.
      spec: The policy's shape.
      loss: For torch.
      gradients: The same loss with its derivatives, for numpy.
      minibatch_size: Rows of a gradient step.
      learning_rate: To begin with.
      adam_epsilon: Keeps Adam's steps finite where gradients vanish.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them.

    Raises:
      ConfigError: numpy is demanded where it is not able to, or the device is not there.
    """
    if numpy_learner.is_chosen(
        config.learner,
        spec,
        minibatch_size=minibatch_size,
        device=config.device,
        precision=config.precision,
        compiles=config.compile,
    ):
        return numpy_learner.NumpyLearner(
            spec,
            initial_weights(spec, streams.weight_seed(config.seed)),
            gradients,
            learning_rate=learning_rate,
            epsilon=adam_epsilon,
            max_grad_norm=max_grad_norm,
        )
    try:
        device = torch_learner.resolve_device(config.device, config.precision)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        # fused: one kernel for all parameters, 0.15 ms of a step's 0.95 ms less.
        return torch.optim.Adam(parameters, lr=learning_rate, eps=adam_epsilon, fused=True)

    policy = ActorCritic(spec, streams.weight_seed(config.seed), config.precision)
    torch_learner.use_threads(policy, minibatch_size)
    return torch_learner.TorchLearner(
        policy,
        loss,
        adam,
        device=device,
        max_grad_norm=max_grad_norm,
        compiled_rows=minibatch_size if config.compile else None,
    )
