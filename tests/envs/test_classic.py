"""The equations against gymnasium's own environments: from the same state, each step the same to rounding."""

import gymnasium
import numpy as np
import pytest

from shoal.envs.classic import CLASSIC, CartPole, Pendulum


@pytest.mark.parametrize("name", CLASSIC)
def test_spaces_and_time_limit_are_gymnasiums(name):
    dynamics, theirs = CLASSIC[name](), gymnasium.make(name)
    assert dynamics.observation_space == theirs.observation_space
    assert dynamics.action_space == theirs.action_space
    assert dynamics.time_limit == theirs.spec.max_episode_steps


def follow(name, dynamics, steps):
    """One episode of gymnasium's beside one copy among five, from the copy's first state."""
    rng = np.random.default_rng(1)
    theirs = gymnasium.make(name)
    theirs.action_space.seed(1)
    states = dynamics.start(np.arange(100, 105))
    theirs.reset(seed=0)
    theirs.unwrapped.state = states[:, 2].copy()
    seen = np.zeros((5, *dynamics.observation_space.shape), np.float32)
    for _ in range(steps):
        theirs.unwrapped.state = states[:, 2].copy()
        action = theirs.action_space.sample() if rng.random() < 0.5 else theirs.action_space.sample() * 0
        actions = np.stack([np.reshape(theirs.action_space.sample(), -1) for _ in range(5)])
        actions[2] = action
        rewards, terminated = dynamics.step(states, actions)
        dynamics.observe(states, seen)
        observation, reward, over, _, _ = theirs.step(np.reshape(action, theirs.action_space.shape)[()])
        np.testing.assert_allclose(states[:, 2], theirs.unwrapped.state, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(seen[2], observation, rtol=1e-6, atol=1e-7)
        assert rewards[2] == pytest.approx(reward, rel=1e-12)
        assert terminated[2] == over
        if over:
            return True
    return False


def test_cartpole_steps_like_gymnasiums_to_the_fall():
    assert follow("CartPole-v1", CartPole(), 500)


def test_pendulum_steps_like_gymnasiums_also_with_torques_that_must_be_cut():
    follow("Pendulum-v1", Pendulum(), 400)
    dynamics = Pendulum()
    states = dynamics.start(np.arange(2))
    same = states.copy()
    dynamics.step(states, np.array([[5.0], [-7.0]], np.float32))
    dynamics.step(same, np.array([[2.0], [-2.0]], np.float32))
    np.testing.assert_array_equal(states, same)


@pytest.mark.parametrize(("name", "highest"), [("CartPole-v1", [0.05] * 4), ("Pendulum-v1", [np.pi, 1.0])])
def test_episodes_start_where_gymnasiums_do(name, highest):
    """Both uniform: same bounds, means and deviations."""
    states = CLASSIC[name]().start(np.arange(20_000))
    highest = np.array(highest)
    assert (np.abs(states) <= highest[:, None]).all()
    np.testing.assert_allclose(states.mean(axis=1) / highest, 0.0, atol=0.02)
    np.testing.assert_allclose(states.std(axis=1) / highest, 3**-0.5, atol=0.01)
    theirs = gymnasium.make(name).unwrapped
    for seed in range(200):
        theirs.reset(seed=seed)
        assert (np.abs(theirs.state) <= highest).all()
