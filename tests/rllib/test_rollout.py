"""Rollouts on toy MDPs: every row must be a true transition with the value of its true successor."""

import numpy as np
import pytest

from shoal.envs.probes import Choice, Corridor, EndlessCorridor, Target
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.rllib import spaces, streams
from shoal.rllib.advantages import gae
from shoal.rllib.modules import ActorCritic
from shoal.rllib.policy import Policy
from shoal.rllib.rollout import collect
from shoal.rllib.weights import Weights

GAMMA = 0.9


class ExactCritic(Policy):
    """A random policy that knows the values."""

    def __init__(self, weights, value_of):
        super().__init__(weights)
        self._value_of = value_of

    def values(self, observations):
        return np.array([self._value_of(row[0]) for row in observations], np.float32)


def weights_for(envs, version=0):
    spec = spaces.policy_spec("toy", envs.observation_space, envs.action_space, (16,))
    nets = ActorCritic(spec, seed=1).nets
    return Weights(version, spec, {name: tensor.numpy() for name, tensor in nets.state_dict().items()})


def opened(make, count=2):
    envs = SerialVectorEnv(make, range(count), EpisodeSeeds(0))
    envs.reset()
    return envs


def action_streams(envs, iteration=0):
    return [streams.action_stream(0, index, iteration) for index in range(envs.num_envs)]


@pytest.mark.parametrize("num_steps", [1, 4, 5, 13])
def test_with_the_exact_values_of_a_walk_that_ends_no_advantage_is_left(num_steps):
    envs = opened(lambda: Corridor(length=5))
    policy = ExactCritic(weights_for(envs), lambda position: (1 - GAMMA ** (5 - position)) / (1 - GAMMA))
    for iteration in range(3):
        batch = collect(envs, policy, num_steps, action_streams(envs, iteration))
        flags = batch.terminated, batch.truncated
        advantages, _ = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=GAMMA, lam=0.7)
        np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 4, 5, 13])
def test_with_the_exact_values_of_a_walk_that_is_cut_no_advantage_is_left(num_steps):
    envs = opened(lambda: EndlessCorridor(length=5))
    policy = ExactCritic(weights_for(envs), lambda _: 1 / (1 - GAMMA))
    for iteration in range(3):
        batch = collect(envs, policy, num_steps, action_streams(envs, iteration))
        flags = batch.terminated, batch.truncated
        advantages, _ = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=GAMMA, lam=0.7)
        np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


def test_a_cut_takes_the_value_of_the_last_observation_and_not_of_the_reset_that_followed():
    envs = opened(lambda: EndlessCorridor(length=3), 1)
    policy = ExactCritic(weights_for(envs), lambda position: 100.0 + position)
    batch = collect(envs, policy, 7, action_streams(envs))
    assert batch.values[:, 0].tolist() == [100, 101, 102, 100, 101, 102, 100]
    assert batch.next_values[:, 0].tolist() == [101, 102, 103, 101, 102, 103, 101]
    assert batch.truncated[:, 0].tolist() == [False, False, True, False, False, True, False]
    assert not batch.terminated.any()


def test_an_end_has_no_successor():
    envs = opened(lambda: Corridor(length=3), 1)
    batch = collect(envs, ExactCritic(weights_for(envs), lambda position: 100.0 + position), 4, action_streams(envs))
    assert batch.next_values[:, 0].tolist() == [101, 102, 0, 101]
    assert batch.terminated[:, 0].tolist() == [False, False, True, False]


def test_the_next_rollout_goes_on_where_the_last_one_stopped():
    envs = opened(lambda: Corridor(length=5), 1)
    policy = Policy(weights_for(envs))
    positions = [collect(envs, policy, 3, action_streams(envs, i)).observations[:, 0, 0].tolist() for i in range(3)]
    assert positions == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_log_probs_belong_to_the_stored_actions_before_clipping():
    envs = opened(Target, 3)
    policy = Policy(weights_for(envs))
    batch = collect(envs, policy, 40, action_streams(envs))
    flat = batch.actions.reshape(-1, 1)
    assert np.abs(flat).max() > 1.0  # the environment refuses such actions, so it was sent clipped ones
    parameters = policy.parameters(batch.observations.reshape(-1, 1))
    expected = policy.spec.distribution.log_prob(parameters, flat)
    np.testing.assert_array_equal(batch.log_probs.reshape(-1), expected)


def test_one_rollout_of_four_copies_is_two_of_two_side_by_side_to_the_last_bit():
    def rollout(indices):
        envs = SerialVectorEnv(Choice, indices, streams.environment_seeds(0, 0, 0))
        envs.reset()
        return collect(envs, Policy(weights_for(envs)), 20, [streams.action_stream(0, index, 0) for index in indices])

    whole, left, right = rollout([0, 1, 2, 3]), rollout([0, 1]), rollout([2, 3])
    for name in ("observations", "actions", "log_probs", "rewards", "values", "next_values"):
        joined = np.concatenate([getattr(left, name), getattr(right, name)], axis=1)
        np.testing.assert_array_equal(getattr(whole, name), joined, err_msg=name)


def test_a_batch_tells_the_version_that_acted_its_size_and_its_episodes_by_step():
    envs = opened(lambda: Corridor(length=2), 3)
    batch = collect(envs, Policy(weights_for(envs, version=12)), 4, action_streams(envs))
    assert batch.version == 12
    assert batch.num_steps == 12
    assert [finished.step for finished in batch.episodes] == [1, 1, 1, 3, 3, 3]
