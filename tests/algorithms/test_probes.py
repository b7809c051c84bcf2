"""PPO on the environments that isolate one fault of a learner each: the first that fails says where to look."""

import numpy as np
import pytest

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig

GAMMA = 0.5


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(engine="inline")
    yield
    shoal.shutdown()


@pytest.fixture
def trained():
    """Trains on a probe for some iterations."""
    made = []

    def train(env, iterations, **settings):
        defaults = {
            "num_workers": 1,
            "num_envs": 4,
            "rollout_steps": 32,
            "num_epochs": 4,
            "minibatch_size": 64,
            "hidden_sizes": (16,),
            "gamma": GAMMA,
            "learning_rate": 0.02,
            "learning_rate_schedule": "constant",
            "max_grad_norm": 10.0,
            "device": "cpu",
        }
        algorithm = PPO(PPOConfig(env=f"shoal.envs.probes:{env}", **{**defaults, **settings}))
        made.append(algorithm)
        for _ in range(iterations):
            algorithm.step()
        return algorithm

    yield train
    for algorithm in made:
        algorithm.close()


def values(algorithm, *observations):
    return algorithm.policy_from(algorithm.checkpoint()).values(np.array(observations, np.float32)[:, None])


def test_the_value_of_a_constant(trained):
    assert values(trained("ConstantReward", 20), 0.0) == pytest.approx([1.0], abs=0.02)


def test_the_value_of_an_observation(trained):
    assert values(trained("SignedReward", 30), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.05)


def test_the_value_of_what_comes_later(trained):
    assert values(trained("Delay", 40), 0.0, 1.0) == pytest.approx([GAMMA, 1.0], abs=0.05)


def test_the_better_of_two_actions(trained):
    assert trained("Advice", 15).evaluate(10).mean == 1.0


@pytest.mark.parametrize(
    ("env", "vector"),
    [
        ("Standstill", "serial"),
        ("standstill_next_step", "gymnasium"),
        ("standstill_same_step", "gymnasium"),
        ("standstill_disabled", "gymnasium"),
    ],
)
def test_the_value_behind_a_time_limit_in_every_autoreset_mode(trained, env, vector):
    value = values(trained(env, 40, vector=vector), 1.0)
    assert value == pytest.approx([1 / (1 - GAMMA)], rel=0.04)  # about 1.8 if a cut were taken for an end


def test_what_was_shown_before_is_remembered_and_without_a_memory_it_is_not(trained):
    settings = {"gamma": 0.95, "num_envs": 8, "learning_rate": 0.005, "minibatch_size": 128}
    assert trained("Recall", 20, recurrent="gru", recurrent_size=32, **settings).evaluate(20).mean == 1.0
    assert abs(trained("Recall", 5, **settings).evaluate(100).mean) < 0.5


def test_what_is_to_be_seen_in_an_image(trained):
    settings = {"network": "impala_cnn", "learning_rate": 0.001, "num_envs": 8, "minibatch_size": 64}
    assert trained("Lamp", 12, **settings).evaluate(30).mean >= 0.9


def test_masks_that_change_with_every_step(trained):
    """A learner that sampled or learned without them would meet the exception, or mistake what earned the reward."""
    assert trained("OneWay", 30).evaluate(10).mean == 8.0
