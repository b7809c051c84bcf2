"""Which learner is made, and that it is told all that the settings say."""

from dataclasses import dataclass

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib import streams
from shoal.rllib.actor_critic_learner import actor_critic_learner
from shoal.rllib.config import AlgorithmConfig, ConfigError, RolloutSettings
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

SPEC = policy_spec("toy", spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), NetworkSettings(hidden_sizes=(8,)))
ADAM = {"minibatch_size": 32, "learning_rate": 0.02, "adam_epsilon": 1e-3, "max_grad_norm": 0.125}


@dataclass(frozen=True, kw_only=True)
class Settings(RolloutSettings, AlgorithmConfig):
    """What a learner is told."""


def made(**settings):
    def never(*_):
        raise AssertionError("a loss is for gradient steps")

    return actor_critic_learner(Settings(**settings), SPEC, never, never, **ADAM)


@pytest.mark.parametrize("learner", ["numpy", "torch"])
def test_the_weights_are_those_of_the_seed_whatever_learns(learner):
    for seed in (0, 7):
        arrays = made(learner=learner, device="cpu", seed=seed).weights(0).arrays
        for name, array in initial_weights(SPEC, streams.weight_seed(seed)).items():
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_adam_is_the_one_of_the_settings():
    mine = made(learner="numpy")
    assert (mine._adam.learning_rate, mine._adam.epsilon, mine._max_grad_norm) == (0.02, 1e-3, 0.125)
    its = made(learner="torch", device="cpu")
    assert (its._optimizer.defaults["lr"], its._optimizer.defaults["eps"], its._max_grad_norm) == (0.02, 1e-3, 0.125)


def test_the_precision_is_the_one_of_the_settings():
    assert made(learner="torch", device="cpu").policy._precision == "float32"
    assert made(precision="bfloat16", device="cpu").policy._precision == "bfloat16"


def test_a_device_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used") as caught:
        made(device="cuda:99")
    assert "\n" not in str(caught.value)
