"""Which learner takes the gradient steps of a policy and its critic, made: numpy where that is able to and faster.

What algorithms with such nets share. Each hands in its loss twice, for autograd and with its derivatives written out;
the rest is in the settings that all algorithms have. Or many such learners, as one. Torch is imported only where it is
what learns.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from . import streams
from .config import ConfigError, RolloutConfig
from .learner_groups.all_reduce import AllReduceGroup
from .learner_groups.asynchronous_learners import AsynchronousLearners
from .learner_groups.learner_group import LearnerGroup
from .learner_groups.learner_settings import SharingSettings
from .learner_groups.summing_replica import OneProcessError
from .learning import numpy_learner, torch_learner
from .learning.compilation import Loss
from .learning.learner import GradientLearner, Learner
from .policies import devices
from .policies.initial_weights import initial_weights
from .policies.modules import ActorCritic
from .policies.policy_spec import PolicySpec

if TYPE_CHECKING:
    import torch

#: One learner.
ALONE = SharingSettings()


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
    sharing: SharingSettings = ALONE,
) -> Learner:
    """A learner with fresh weights, which Adam improves; or many that share the work, as one.

    Args:
      config: What computes, where, in what precision, and the seed of the weights.
      spec: The policy's shape.
      loss: For torch.
      gradients: The same loss with its derivatives, for numpy.
      minibatch_size: Rows of a gradient step.
      learning_rate: To begin with.
      adam_epsilon: Keeps Adam's steps finite where gradients vanish.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them.
      sharing: How many learn, and how they agree.

    Raises:
      ConfigError: numpy is demanded where it is not able to, the device is not there, the session's engine has no
        processes for several learners, or there is not memory enough.
    """
    spec.check_size()
    many = sharing.num_learners > 1
    waits = sharing.staleness == 0
    make = partial(
        single_learner,
        replace(config, device="cpu") if many else config,
        spec,
        loss,
        gradients,
        minibatch_size=-(-minibatch_size // sharing.num_learners) if waits else minibatch_size,
        learning_rate=learning_rate,
        adam_epsilon=adam_epsilon,
        max_grad_norm=max_grad_norm,
        most_threads=max(1, (os.cpu_count() or 1) // sharing.num_learners),
    )
    if not many:
        return make()
    _is_for_numpy(config, spec, minibatch_size)  # so that what cannot be is told here, and not by the death of an actor
    if sharing.sync == "allreduce":
        try:
            return AllReduceGroup(
                spec, make, sharing.num_learners, learning_rate=learning_rate, bucket_mb=sharing.bucket_mb
            )
        except OneProcessError as error:
            raise ConfigError(f"num_learners: {error}") from error
    made = LearnerGroup if waits else partial(AsynchronousLearners, staleness=sharing.staleness)
    return made(
        spec,
        initial_weights(spec, streams.weight_seed(config.seed)),
        make,
        sharing.num_learners,
        num_shards=sharing.num_shards,
        learning_rate=learning_rate,
        epsilon=adam_epsilon,
        max_grad_norm=max_grad_norm,
    )


def single_learner(
    config: RolloutConfig,
    spec: PolicySpec,
    loss: Loss,
    gradients: numpy_learner.Loss,
    *,
    minibatch_size: int,
    learning_rate: float,
    adam_epsilon: float,
    max_grad_norm: float | None,
    most_threads: int,
) -> GradientLearner:
    """A learner in this process.

    Args:
      most_threads: That torch may use on a CPU. All else as in ``actor_critic_learner``.

    Raises:
      ConfigError: as there.
    """
    if _is_for_numpy(config, spec, minibatch_size):
        return numpy_learner.NumpyLearner(
            spec,
            initial_weights(spec, streams.weight_seed(config.seed)),
            gradients,
            learning_rate=learning_rate,
            epsilon=adam_epsilon,
            max_grad_norm=max_grad_norm,
        )
    try:
        device = devices.resolve_device(config.device, config.precision)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        # fused: one kernel for all parameters, 0.15 ms of a step's 0.95 ms less.
        return torch.optim.Adam(parameters, lr=learning_rate, eps=adam_epsilon, fused=True)

    policy = ActorCritic(spec, streams.weight_seed(config.seed), config.precision)
    torch_learner.use_threads(policy, minibatch_size, most_threads)
    return torch_learner.TorchLearner(
        policy,
        loss,
        adam,
        device=device,
        max_grad_norm=max_grad_norm,
        compiled_rows=minibatch_size if config.compile else None,
    )


def _is_for_numpy(config: RolloutConfig, spec: PolicySpec, minibatch_size: int) -> bool:
    """Whether numpy learns.

    Raises:
      ConfigError: it is demanded, and not able to.
    """
    return numpy_learner.is_chosen(
        config.learner,
        spec,
        minibatch_size=minibatch_size,
        device=config.device,
        precision=config.precision,
        compiles=config.compile,
    )
