"""Rollouts that everybody simulates alike: their lengths, their steps, and environments that sleep."""

import time

import numpy as np

from shoal.scripts.benchmarks.simulators import LONGEST, SHORTEST, Simulator, Sleeping, lengths


def test_lengths_are_uniform_and_of_a_seed_the_same_for_everybody():
    drawn = lengths(3, 20_000)
    assert drawn[:50] == lengths(3, 50)
    assert (min(drawn), max(drawn)) == (SHORTEST, LONGEST)
    assert abs(np.mean(drawn) - (SHORTEST + LONGEST) / 2) < 10.0


def test_a_rollout_is_an_episode_of_pendulum_with_the_same_torques_whoever_plays_it():
    simulator = Simulator(0.0)
    observations, rewards = simulator.play([(7, 400), (7, 300)])  # longer than gymnasium's own time limit
    assert (observations.shape, rewards.shape) == ((700, 3), (700,))
    assert np.array_equal(observations[:300], observations[400:])
    assert np.allclose(np.hypot(observations[:, 0], observations[:, 1]), 1.0, atol=1e-5)
    assert rewards.max() < 0.0
    assert not np.array_equal(observations, Simulator(0.0).play([(8, 700)])[0])


def test_who_is_woken_late_sleeps_the_less_for_it(monkeypatch):
    now, naps = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", naps.append)
    env = Sleeping(0.01)
    env.reset(seed=0)
    for _ in range(9):
        env.step(np.zeros(1))
    assert naps == []
    env.step(np.zeros(1))
    now[0] += 0.15  # the nap of 0.1 s took longer
    for _ in range(20):
        env.step(np.zeros(1))
    assert np.allclose(naps, [0.1, 0.05, 0.15])
