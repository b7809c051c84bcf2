"""The rule of episode ends, on environments small enough to say by hand what must happen."""

import gymnasium
import numpy as np
import pytest

from shoal.envs.probes import Choice, Corridor, EndlessCorridor, FailsInStep, FailsToStart
from shoal.envs.vector import EnvCopy, EnvFailure, Episode, VectorEnv


def opened(make, num_envs=1, seeds=None, **kwargs):
    envs = VectorEnv(make, range(num_envs), **kwargs)
    envs.reset(seeds or range(num_envs))
    return envs


class BothFlags(Corridor):
    def step(self, action):
        observation, reward, over, _, info = super().step(action)
        return observation, reward, over, over, info


def test_an_episode_that_ends_is_reset_in_the_same_step_and_no_row_is_an_ignored_action():
    envs = opened(lambda: Corridor(length=3))
    seen = []
    for _ in range(7):
        before = envs.observations[0, 0].item()
        envs.step([0])
        seen.append((before, envs.rewards[0].item(), envs.terminated[0].item(), envs.observations[0, 0].item()))
    assert seen == [
        (0, 1, False, 1),
        (1, 1, False, 2),
        (2, 1, True, 0),
        (0, 1, False, 1),
        (1, 1, False, 2),
        (2, 1, True, 0),
        (0, 1, False, 1),
    ]


def test_the_true_last_observation_of_a_cut_episode_is_kept_beside_the_reset_one():
    envs = opened(lambda: EndlessCorridor(length=3))
    for _ in range(3):
        envs.step([0])
    assert (envs.terminated[0], envs.truncated[0]) == (False, True)
    assert envs.final_observations[0] == 3
    assert envs.observations[0] == 0


def test_terminated_wins_when_an_environment_reports_both_flags():
    envs = opened(lambda: BothFlags(length=1))
    envs.step([0])
    assert (envs.terminated[0], envs.truncated[0]) == (True, False)


def test_episodes_are_told_with_return_length_and_the_copy_they_ran_in():
    lengths = iter((2, 3))
    envs = VectorEnv(lambda: Corridor(next(lengths)), [7, 9])
    envs.reset([0, 0])
    told = []
    for _ in range(6):
        envs.step([0, 0])
        told.append(envs.finished)
    short, long = Episode(7, 2.0, 2), Episode(9, 3.0, 3)
    assert told == [[], [short], [long], [short], [], [short, long]]


def test_a_copy_depends_on_its_seed_and_actions_only_and_not_on_its_neighbours():
    def signs(seeds, row):
        envs = opened(Choice, len(seeds), seeds)
        signs_seen = []
        for _ in range(50):
            signs_seen.append(envs.observations[row, 0].item())
            envs.step([0] * len(seeds))
        return signs_seen

    alone = signs([5], 0)
    assert signs([1, 2, 5], 2) == alone
    assert signs([1, 2, 6], 2) != alone


def test_reset_starts_again_from_the_seeds_and_forgets_the_episodes_under_way():
    envs = opened(lambda: Corridor(length=3))
    envs.step([0])
    envs.reset([0])
    for _ in range(3):
        envs.step([0])
    assert envs.finished == [Episode(0, 3.0, 3)]


def test_gymnasiums_time_limit_is_a_cut_and_the_pole_that_falls_is_an_end():
    cut = opened(lambda: gymnasium.make("CartPole-v1", max_episode_steps=3))
    for action in (0, 1, 0):
        cut.step([action])
    assert (cut.terminated[0], cut.truncated[0]) == (False, True)
    fallen = opened(lambda: gymnasium.make("CartPole-v1"))
    while not fallen.finished:
        fallen.step([1])
    assert (fallen.terminated[0], fallen.truncated[0]) == (True, False)
    # 12 degrees is where CartPole ends; the last observation is beyond it, the reset's is near upright.
    assert abs(fallen.final_observations[0, 2]) > 0.2
    assert abs(fallen.observations[0, 2]) <= 0.05


def test_a_constructor_that_raises_names_worker_and_copy_and_shows_the_environments_traceback():
    with pytest.raises(EnvFailure) as caught:
        VectorEnv(FailsToStart, [4], worker_index=2)
    text = str(caught.value)
    assert text.startswith("worker 2, environment 4: its constructor raised OSError: the level file is missing\n")
    assert "probes.py" in text
    assert isinstance(caught.value.__cause__, OSError)


def test_a_step_that_raises_names_worker_and_copy_and_shows_the_environments_traceback():
    envs = VectorEnv(FailsInStep, [8, 9], worker_index=1)
    envs.reset([0, 0])
    envs.step([0, 0])
    envs.step([0, 0])
    with pytest.raises(EnvFailure, match="worker 1, environment 8: its step raised ZeroDivisionError") as caught:
        envs.step([0, 0])
    assert 'raise ZeroDivisionError("the physics blew up")' in str(caught.value)


def test_an_observation_that_would_be_spread_over_a_larger_space_is_refused():
    class Small(Corridor):
        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

    envs = VectorEnv(Small, [0])
    envs.observations = np.zeros((1, 3), np.float32)
    with pytest.raises(
        EnvFailure, match=r"its reset raised ValueError: observation of shape \(1,\); the space says \(3,\)"
    ):
        envs.reset([0])


def test_an_observation_of_the_wrong_shape_is_a_failure_of_the_environment():
    class Wrong(Corridor):
        def step(self, action):
            return np.zeros(3, np.float32), 0.0, False, False, {}

    envs = opened(Wrong)
    with pytest.raises(EnvFailure, match="environment 0: its step raised ValueError"):
        envs.step([0])


def test_as_many_actions_and_seeds_as_copies():
    envs = opened(Corridor, 2)
    with pytest.raises(ValueError, match="shorter"):
        envs.step([0])
    with pytest.raises(ValueError, match="shorter"):
        envs.reset([0])


def test_a_failing_close_is_told_like_any_other():
    class Stuck(Corridor):
        def close(self):
            raise OSError("device busy")

    copy = EnvCopy(Stuck, 3)
    with pytest.raises(EnvFailure, match="environment 3: its close raised OSError: device busy"):
        copy.close()
