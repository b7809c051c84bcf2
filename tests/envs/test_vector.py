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
    with pytest.raises(EnvFailure, match=r"environment 0: its step raised ValueError: observation of shape \(3,\)"):
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


class Spoilt(Corridor):
    """Gives what it is told to at its third step, or at its second reset."""

    def __init__(self, *, observation=None, reward=1.0, at_reset=None, length=5):
        super().__init__(length)
        self._spoilt, self._reward, self._at_reset, self._resets = observation, reward, at_reset, 0

    def reset(self, *, seed=None, options=None):
        self._resets += 1
        observation, info = super().reset(seed=seed, options=options)
        return (self._at_reset if self._at_reset is not None and self._resets == 2 else observation), info

    def step(self, action):
        observation, reward, *rest = super().step(action)
        if self._position == 3:
            return observation if self._spoilt is None else self._spoilt, self._reward, *rest
        return observation, reward, *rest


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        ({"observation": np.array([np.nan], np.float32)}, "its step 3 gave an observation that is not finite: [nan]"),
        ({"observation": np.array([np.inf]), "length": 3}, "its step 3 gave an observation that is not finite: [inf]"),
        ({"reward": float("nan")}, "its step 3 gave the reward nan"),
        ({"reward": -np.inf, "length": 3}, "its step 3 gave the reward -inf"),
        ({"at_reset": np.array([np.nan]), "length": 2}, "its reset gave an observation that is not finite: [nan]"),
        ({"observation": np.float32(0)}, "its step raised ValueError: observation of shape (); the space says (1,)"),
        ({"reward": "1.5"}, "its step raised TypeError: the reward '1.5' is a str and not a number"),
        ({"reward": None}, "its step raised TypeError: "),
    ],
)
@pytest.mark.parametrize("worker_index", [1, None])
def test_what_no_learner_can_use_is_refused_with_worker_copy_and_step(spoilt, told, worker_index):
    makes = iter((Corridor, lambda: Spoilt(**spoilt)))
    envs = VectorEnv(lambda: next(makes)(), [6, 7], worker_index=worker_index)
    envs.reset([0, 0])
    with pytest.raises(EnvFailure) as caught:
        step_until_it_fails(envs)
    where = "" if worker_index is None else f"worker {worker_index}, "
    assert str(caught.value).startswith(f"{where}environment 7: {told}")


def step_until_it_fails(envs):
    for _ in range(3):
        envs.step([0, 0])


def test_a_first_observation_that_is_not_finite_is_refused():
    class Lost(Corridor):
        def reset(self, *, seed=None, options=None):
            return np.array([np.nan], np.float32), {}

    with pytest.raises(EnvFailure, match="environment 0: its reset gave an observation that is not finite"):
        opened(Lost)


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("call", ["constructor", "reset", "step"])
def test_environment_code_that_wants_to_leave_a_worker_is_a_failure_of_the_environment(leaving, call):
    class Leaves(Corridor):
        def __init__(self):
            super().__init__()
            self.leave("constructor")

        def leave(self, now):
            if now == call:
                raise leaving(3)

        def reset(self, *, seed=None, options=None):
            self.leave("reset")
            return super().reset(seed=seed, options=options)

        def step(self, action):
            self.leave("step")
            return super().step(action)

    with pytest.raises(EnvFailure, match=f"worker 2, environment 0: its {call} raised {leaving.__name__}: 3") as caught:
        opened(Leaves, worker_index=2).step([0])
    assert "in leave" in str(caught.value)


def test_ctrl_c_in_the_users_own_process_stays_ctrl_c():
    class Interrupted(Corridor):
        def step(self, action):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(Interrupted).step([0])
