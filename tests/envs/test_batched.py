"""Copies stepped as arrays keep the same rule as copies stepped one by one."""

import numpy as np
import pytest

from shoal.envs.batched import BatchedVectorEnv, uniform
from shoal.envs.classic import CartPole, Pendulum
from shoal.envs.replay import join_states, split_state
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.vector import EnvFailure, Episode

SEEDS = EpisodeSeeds(5)


def opened(kind=CartPole, env_indices=range(7), seeds=SEEDS, **kwargs):
    envs = BatchedVectorEnv(kind(), env_indices, seeds, **kwargs)
    envs.reset()
    return envs


def walk(envs, steps, seed=0):
    """What actions that belong to the copies lead to, by copy and step."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        if isinstance(envs._dynamics, CartPole):
            actions = rng.integers(2, size=(100, 1))
        else:
            actions = rng.uniform(-3, 3, (100, 1)).astype(np.float32)
        envs.step(actions[envs._env_indices])
        rows = np.column_stack([envs.rewards, envs.terminated, envs.truncated, envs.observations["observation"]])
        seen.append(rows)
    return np.stack(seen)


@pytest.mark.parametrize("kind", [CartPole, Pendulum])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 13, 31])
def test_a_copy_is_the_same_to_the_last_bit_in_a_batch_of_any_size(kind, count):
    whole = walk(opened(kind, range(40)), 60)
    part = walk(opened(kind, range(40 - count, 40)), 60)
    np.testing.assert_array_equal(part, whole[:, 40 - count :])


def test_an_episode_that_ends_is_reset_in_the_same_step_and_its_last_observation_kept():
    envs = opened(env_indices=[3, 9, 4])
    lengths, returns = np.zeros(3, int), np.zeros(3)
    ended_once = 0
    for _ in range(300):
        before = envs.observations["observation"].copy()
        envs.step(np.ones((3, 1), np.int64))
        lengths += 1
        returns += envs.rewards
        ended = envs.terminated | envs.truncated
        assert envs.finished == [Episode([3, 9, 4][i], returns[i], lengths[i]) for i in np.flatnonzero(ended)]
        lengths[ended], returns[ended] = 0, 0.0
        np.testing.assert_array_equal(envs.state()["begins"], ended)
        # A last observation is a step away from the one before, a first one is near the middle.
        final = envs.final_observations["observation"][ended]
        assert (np.abs(final[:, 2]) > 0.2).all()
        np.testing.assert_allclose(final[:, 0], before[ended, 0] + 0.02 * before[ended, 1], rtol=1e-5)
        assert (np.abs(envs.observations["observation"][ended]) <= 0.05).all()
        ended_once += len(envs.finished)
    assert ended_once > 60
    assert envs.valid.all()


def test_a_time_limit_is_a_cut_unless_the_task_ends_in_the_same_step():
    envs = opened(Pendulum, range(3))
    flags = walk(envs, 200)[:, :, 1:3]
    assert not flags[:199].any()
    assert flags[199].tolist() == [[0, 1]] * 3

    class Short(CartPole):
        time_limit = 9

    short = walk(opened(Short, range(50)), 40, seed=3)
    assert not (short[:, :, 1] * short[:, :, 2]).any()
    assert short[8, :, 2].any()


def test_a_restored_batch_goes_on_bit_for_bit_also_in_parts():
    whole = opened()
    walk(whole, 50)
    state = whole.state()
    parts = [BatchedVectorEnv(CartPole(), indices, SEEDS) for indices in (range(3), range(3, 7))]
    for part, its in zip(parts, split_state(state, [3, 4]), strict=True):
        assert part.restore(its) == 0
    np.testing.assert_array_equal(
        np.concatenate([part.observations["observation"] for part in parts]), whole.observations["observation"]
    )
    later = walk(whole, 50, seed=9)
    np.testing.assert_array_equal(np.concatenate([walk(part, 50, seed=9) for part in parts], axis=1), later)
    for name, array in join_states([part.state() for part in parts]).items():
        np.testing.assert_array_equal(array, whole.state()[name])


def test_a_state_of_ordinary_environments_is_refused():
    with pytest.raises(ValueError, match=r"physics of shape \(0,\); these batched environments have \(7, 4\)"):
        opened().restore({"episode": np.zeros(7), "length": np.zeros(7)})


def test_episodes_start_from_their_seeds_however_these_are_given():
    one_by_one = opened(seeds=lambda index, episode: SEEDS(index, episode))
    np.testing.assert_array_equal(walk(one_by_one, 60), walk(opened(), 60))
    first = opened().observations["observation"]
    again = opened()
    again.reset()
    assert (again.observations["observation"] != first).any(axis=1).all()


def test_the_counter_based_numbers_are_uniform_and_independent_between_seeds_and_counters():
    numbers = uniform(np.arange(20_000), 4)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    for row in numbers:
        counts = np.histogram(row, 50, (0.0, 1.0))[0]
        # chi-squared with 49 degrees of freedom: 99.99 % are below 97
        assert ((counts - 400) ** 2 / 400).sum() < 97
    assert np.abs(np.corrcoef(numbers) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(numbers[0, :-1], numbers[0, 1:])[0, 1]) < 0.03


def test_an_action_that_is_no_number_is_told_with_copy_and_step():
    envs = opened(Pendulum, [4, 5, 6], worker_index=2)
    envs.step(np.zeros((3, 1), np.float32))
    with pytest.raises(
        EnvFailure, match=r"^worker 2, environment 5: its step 2 gave the reward nan and the observation"
    ):
        envs.step(np.array([[0.0], [np.nan], [0.0]], np.float32))


@pytest.mark.parametrize("action", [2, -1])
def test_an_action_that_is_none_is_refused(action):
    with pytest.raises(ValueError, match=f"action {action} is none of CartPole's"):
        opened().step(np.array([0, 1, 0, action, 0, 1, 1]))


def test_stepping_before_the_first_reset_is_refused():
    with pytest.raises(RuntimeError, match="reset the environments before the first step"):
        BatchedVectorEnv(CartPole(), [0], SEEDS).step(np.zeros((1, 1), np.int64))
