"""The rule of episode ends, on environments small enough to say by hand what must happen."""

import re

import gymnasium
import numpy as np
import pytest

from shoal.envs.copies import LIFE_KEY, EnvCopy
from shoal.envs.probes import Choice, Corridor, EndlessCorridor, FailsInStep, FailsToStart
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import MAX_FAILURES, SerialVectorEnv
from shoal.envs.vector import Checks, EnvFailure, Episode

SEEDS = EpisodeSeeds(1)


def opened(make, env_indices=(0,), **kwargs):
    envs = SerialVectorEnv(make, env_indices, SEEDS, **kwargs)
    envs.reset()
    return envs


def column(envs):
    return envs.observations["observation"]


def step(envs, action=0):
    envs.step(np.full((envs.num_envs, envs.layout.width), action))


class BothFlags(Corridor):
    def step(self, action):
        observation, reward, over, _, info = super().step(action)
        return observation, reward, over, over, info


def test_an_episode_that_ends_is_reset_in_the_same_step_and_no_row_is_an_ignored_action():
    envs = opened(lambda: Corridor(length=3))
    seen = []
    for _ in range(7):
        before = column(envs)[0, 0].item()
        step(envs)
        seen.append((before, envs.rewards[0].item(), envs.terminated[0].item(), column(envs)[0, 0].item()))
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
        step(envs)
    assert (envs.terminated[0], envs.truncated[0]) == (False, True)
    assert envs.final_observations["observation"][0] == 3
    assert column(envs)[0] == 0


def test_terminated_wins_when_an_environment_reports_both_flags():
    envs = opened(lambda: BothFlags(length=1))
    step(envs)
    assert (envs.terminated[0], envs.truncated[0]) == (True, False)


def test_a_cut_in_the_step_of_a_lost_life_ends_the_episode():
    class Mortal(EndlessCorridor):
        def step(self, action):
            observation, reward, _, truncated, _ = super().step(action)
            lost = self._position in (2, 5)
            return observation, reward, lost, truncated, {LIFE_KEY: lost}

    envs = opened(Mortal, [0])
    told = []
    for _ in range(5):
        step(envs)
        told.append((bool(envs.terminated[0]), bool(envs.truncated[0]), len(envs.finished)))
    assert told == [(False, False, 0), (True, False, 0), (False, False, 0), (False, False, 0), (True, False, 1)]


def test_episodes_are_told_with_return_length_and_the_copy_they_ran_in():
    lengths = iter((2, 3))
    envs = opened(lambda: Corridor(next(lengths)), [7, 9])
    told = []
    for _ in range(6):
        step(envs)
        told.append(envs.finished)
    short, long = Episode(7, 2.0, 2), Episode(9, 3.0, 3)
    assert told == [[], [short], [long], [short], [], [short, long]]


def test_a_copy_depends_on_its_seed_and_actions_only_and_not_on_its_neighbours():
    def signs(env_indices, row):
        envs = opened(Choice, env_indices)
        signs_seen = []
        for _ in range(50):
            signs_seen.append(column(envs)[row, 0].item())
            step(envs)
        return signs_seen

    alone = signs([5], 0)
    assert signs([1, 2, 5], 2) == alone
    assert signs([1, 2, 6], 2) != alone


def test_reset_forgets_the_episodes_under_way():
    envs = opened(lambda: Corridor(length=3))
    step(envs)
    envs.reset()
    for _ in range(3):
        step(envs)
    assert envs.finished == [Episode(0, 3.0, 3)]


def test_gymnasiums_time_limit_is_a_cut_and_the_pole_that_falls_is_an_end():
    cut = opened(lambda: gymnasium.make("CartPole-v1", max_episode_steps=3))
    for action in (0, 1, 0):
        step(cut, action)
    assert (cut.terminated[0], cut.truncated[0]) == (False, True)
    fallen = opened(lambda: gymnasium.make("CartPole-v1"))
    while not fallen.finished:
        step(fallen, 1)
    assert (fallen.terminated[0], fallen.truncated[0]) == (True, False)
    # 12 degrees is where CartPole ends; the last observation is beyond it, the reset's is near upright.
    assert abs(fallen.final_observations["observation"][0, 2]) > 0.2
    assert abs(column(fallen)[0, 2]) <= 0.05


def test_a_constructor_that_raises_names_worker_and_copy_and_shows_the_environments_traceback():
    with pytest.raises(EnvFailure) as caught:
        SerialVectorEnv(FailsToStart, [4], SEEDS, worker_index=2)
    text = str(caught.value)
    assert text.startswith("worker 2, environment 4: its constructor raised OSError: the level file is missing\n")
    assert "probes.py" in text
    assert isinstance(caught.value.__cause__, OSError)


class FailsSometimes(Corridor):
    """Raises in the third step of the episodes that are told."""

    def __init__(self, failing):
        super().__init__(length=4)
        self._failing = failing

    def step(self, action):
        if self._position == 2 and next(self._failing):
            raise ZeroDivisionError("the physics blew up")
        return super().step(action)


def test_a_copy_that_crashes_is_replaced_and_its_row_is_no_transition():
    failing = iter([True, False, False])
    envs = opened(lambda: FailsSometimes(failing), [6, 7], worker_index=1)
    step(envs)
    step(envs)
    step(envs)
    assert envs.valid.tolist() == [False, True]
    assert envs.rewards.tolist() == [0, 1]
    assert not (envs.terminated | envs.truncated).any()
    assert column(envs)[:, 0].tolist() == [0, 3]
    assert envs.replaced == 1
    told = "worker 1, environment 6: its step raised ZeroDivisionError: the physics blew up (step 3 of episode 0)"
    assert envs.incidents == [f"{told}; it was replaced"]
    assert envs.state()["begins"].tolist() == [True, False]
    step(envs)
    assert envs.valid.all()
    assert envs.state()["begins"].tolist() == [False, True]
    assert envs.finished == [Episode(7, 4.0, 4)]


def test_a_step_is_quiet_where_nothing_ends_and_nobody_crashes():
    failing = iter([True, False, False, False])
    envs = opened(lambda: FailsSometimes(failing), [6, 7])
    seen = []
    for _ in range(9):
        step(envs)
        quiet = envs.valid.all() and not (envs.terminated | envs.truncated).any() and not envs.finished
        assert envs.is_quiet == quiet
        seen.append(envs.is_quiet)
    assert seen == [True, True, False, False, True, True, False, False, True]


class MasksByPosition(FailsSometimes):
    """At the start only action 0 is allowed, later only action 1."""

    def reset(self, **kwargs):
        observation, _ = super().reset(**kwargs)
        return observation, self._mask()

    def step(self, action):
        observation, *outcome, _ = super().step(action)
        return observation, *outcome, self._mask()

    def _mask(self):
        return {"action_mask": np.array([self._position == 0, self._position > 0])}


def test_after_a_crash_the_mask_is_that_of_the_new_episode():
    failing = iter([False, True])
    envs = opened(lambda: MasksByPosition(failing), [0, 1])
    for expected in ([1, 1], [1, 1], [1, 0], [0, 1]):
        step(envs)
        assert envs.action_masks.argmax(axis=1).tolist() == expected
    assert envs.replaced == 1


def test_a_copy_that_crashes_again_and_again_without_finishing_an_episode_is_given_up_with_its_traceback():
    envs = opened(FailsInStep, [8, 9], worker_index=1)
    with pytest.raises(EnvFailure, match="worker 1, environment 8: its step raised ZeroDivisionError") as caught:
        step_until_it_fails(envs, 3 * MAX_FAILURES)
    assert 'raise ZeroDivisionError("the physics blew up")' in str(caught.value)
    assert str(caught.value).endswith("It was replaced 2 times before, and no episode has ended since.")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_crashes_with_finished_episodes_between_them_go_on_for_ever():
    failing = iter([True, True, False] * 10)
    envs = opened(lambda: FailsSometimes(failing))
    for _ in range(100):
        step(envs)
    assert envs.replaced == 20


def test_a_copy_that_cannot_be_reset_is_replaced_too():
    made = []

    class Unlucky(Corridor):
        def __init__(self):
            super().__init__(length=1)
            made.append(self)

        def reset(self, *, seed=None, options=None):
            if self is made[0] and self._position:
                raise OSError("device busy")
            return super().reset(seed=seed, options=options)

    envs = opened(Unlucky)
    step(envs)
    assert len(made) == 2
    assert envs.valid.all()
    assert envs.finished == [Episode(0, 1.0, 1)]
    assert envs.replaced == 1


def test_an_observation_of_the_wrong_shape_is_a_failure_of_the_environment():
    class Wrong(Corridor):
        def step(self, action):
            return np.zeros(3, np.float32), 0.0, False, False, {}

    envs = opened(Wrong)
    with pytest.raises(EnvFailure, match=r"environment 0: its step gave what cannot be used: observation of shape \(3"):
        step(envs)


def test_as_many_actions_as_copies_and_whole_numbers():
    envs = opened(Corridor, range(2))
    with pytest.raises(ValueError, match=r"actions of shape \(1, 1\); 2 environments take \(2, 1\)"):
        envs.step(np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match="actions of float64; these environments take whole numbers"):
        envs.step(np.zeros((2, 1)))


def test_stepping_before_the_first_reset_is_refused():
    envs = SerialVectorEnv(Corridor, [0], SEEDS)
    with pytest.raises(RuntimeError, match="reset the environments before the first step"):
        step(envs)


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
        ({"observation": np.float32(0)}, "its step gave what cannot be used: observation of shape (); the space says"),
        ({"reward": "1.5"}, "its step gave the reward '1.5', which is no number"),
        ({"reward": None}, "its step gave the reward None, which is no number"),
        ({"reward": np.array([1.0])}, "its step gave the reward array([1.]), which is no number"),
    ],
)
@pytest.mark.parametrize("worker_index", [1, None])
def test_what_no_learner_can_use_is_refused_with_worker_copy_and_step(spoilt, told, worker_index):
    makes = iter((Corridor, lambda: Spoilt(**spoilt)))
    envs = opened(lambda: next(makes)(), [6, 7], worker_index=worker_index)
    with pytest.raises(EnvFailure) as caught:
        step_until_it_fails(envs)
    where = "" if worker_index is None else f"worker {worker_index}, "
    assert str(caught.value).startswith(f"{where}environment 7: {told}")


def step_until_it_fails(envs, steps=3):
    for _ in range(steps):
        step(envs)


@pytest.mark.parametrize("length", [5, 3])
def test_a_number_that_is_infinite_to_a_net_is_refused(length):
    class Double(Spoilt):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)

    envs = opened(lambda: Double(observation=np.array([1e39]), length=length))
    with pytest.raises(EnvFailure, match=r"its step 3 gave an observation that is not finite in float32: \[1.e\+39\]"):
        step_until_it_fails(envs)


@pytest.mark.parametrize(
    ("call", "outcome", "told"),
    [
        ("reset", np.zeros(1), "array([0.]), not observation, info: gymnasium's interface wants 2 values"),
        ("reset", (np.zeros(1), None), "the info None, which is no dict"),
        ("reset", (np.zeros(1), {}, 1), "3 values, not observation, info: gymnasium's interface wants 2 values"),
        ("step", (np.zeros(1), 0.0, False, {}), "4 values, not observation, reward, terminated, truncated, info: "),
        ("step", (np.zeros(1), 0.0, False, False, [1]), "the info [1], which is no dict"),
        ("step", None, "None, not observation, reward, terminated, truncated, info: gymnasium's interface wants 5"),
        ("step", (np.array(["a"]), 0.0, False, False, {}), "what cannot be used: could not convert string to float"),
    ],
)
def test_what_is_no_outcome_is_told_in_one_line_without_the_traceback_of_whoever_read_it(call, outcome, told):
    class Old(Corridor):
        def reset(self, *, seed=None, options=None):
            return outcome if call == "reset" else super().reset(seed=seed, options=options)

        def step(self, action):
            return outcome

    with pytest.raises(EnvFailure) as caught:
        step(opened(Old))
    assert str(caught.value).startswith(f"environment 0: its {call} gave {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (None, "None, which is no environment: it has no observation_space"),
        (gymnasium.Env, "which is no environment: it has no observation_space"),
    ],
)
def test_what_is_no_environment_is_told_in_one_line(made, told):
    with pytest.raises(EnvFailure, match="environment 4: its constructor gave ") as caught:
        EnvCopy(lambda: made if made is None else made(), 4)
    assert str(caught.value).endswith(told)


def test_an_exception_whose_text_cannot_be_told_and_one_that_is_no_exception_are_failures_of_the_environment():
    class Silent(Exception):  # noqa: N818
        def __str__(self):
            raise ValueError

    class Panic(BaseException):
        """As those of libraries that are written in Rust."""

    for raised, told in ((Silent(), "its step raised Silent: .a Silent whose text"), (Panic("oh"), "raised Panic: oh")):
        envs = opened(failing_with(raised), worker_index=0)
        step(envs)
        assert re.search(told, envs.incidents[0])
        assert envs.replaced == 1


def failing_with(raised):
    class Fails(Corridor):
        def step(self, action):
            raise raised

    return Fails


def test_a_choice_that_there_is_not_is_refused_and_not_taken_for_another():
    class Elsewhere(Corridor):
        seen = 1

        def __init__(self, length):
            super().__init__(length)
            self.observation_space = gymnasium.spaces.Discrete(5, start=1)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed, options=options)
            return 1, {}

        def step(self, action):
            _, *rest = super().step(action)
            return self.seen, *rest

    for seen, length in ((0, 5), (6, 5), (6, 1)):
        Elsewhere.seen = seen
        envs = opened(lambda length=length: Elsewhere(length))
        with pytest.raises(EnvFailure, match=rf"step 1 gave an observation outside its space .from 1 to 5.: {seen}"):
            step(envs)
        step(opened(lambda length=length: Elsewhere(length), checks=Checks(finite=False)))


def test_a_mask_where_there_is_nothing_to_choose_is_refused():
    class Masked(Corridor):
        def __init__(self):
            super().__init__()
            self.action_space = gymnasium.spaces.Box(-1, 1)

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed, options=options)[0], {"action_mask": self.mask}

    for mask in (np.ones(1), np.ones(0), {}):
        Masked.mask = mask
        with pytest.raises(EnvFailure, match=r"environment 0: reset: (action mask of size 1|there is an action mask)"):
            opened(Masked)


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
        step_until_it_fails(opened(Leaves, worker_index=2))
    assert "in leave" in str(caught.value)


def test_ctrl_c_in_the_users_own_process_stays_ctrl_c():
    class Interrupted(Corridor):
        def step(self, action):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(opened(Interrupted))


def test_every_episode_starts_from_a_seed_of_its_own():
    given = []

    class Listens(Corridor):
        def reset(self, *, seed=None, options=None):
            given.append(seed)
            return super().reset(seed=seed, options=options)

    envs = SerialVectorEnv(lambda: Listens(length=1), [3, 5], lambda index, episode: 10 * index + episode)
    envs.reset()
    step(envs)
    envs.reset()
    assert given == [30, 50, 31, 51, 32, 52]


@pytest.mark.parametrize(("value", "told"), [(np.array([7.0]), r"\[7.\]"), (np.array([-0.5]), r"\[-0.5\]")])
def test_an_observation_outside_its_space_is_refused_if_asked_for(value, told):
    make = lambda: Spoilt(observation=value)  # noqa: E731
    step_until_it_fails(opened(make))
    with pytest.raises(EnvFailure, match="its step 3 gave an observation outside its space .from 0. to 5..: " + told):
        step_until_it_fails(opened(make, checks=Checks(bounds=True)))


def test_a_last_observation_outside_its_space_is_refused_if_asked_for():
    make = lambda: Spoilt(observation=np.array([7.0]), length=3)  # noqa: E731
    with pytest.raises(EnvFailure, match=r"its step 3 gave an observation outside its space \(from 0\. to 3\.\)"):
        step_until_it_fails(opened(make, checks=Checks(bounds=True)))


def test_numbers_that_are_not_finite_pass_if_nobody_is_to_look():
    envs = opened(lambda: Spoilt(observation=np.array([np.nan])), checks=Checks(finite=False))
    step_until_it_fails(envs)
    assert np.isnan(column(envs)).all()


def test_a_copy_that_fails_to_close_leaves_no_other_open():
    closed = []

    class Stuck(Corridor):
        def close(self):
            closed.append(self)
            raise OSError("device busy")

    envs = opened(Stuck, range(3))
    with pytest.raises(EnvFailure, match="its close raised OSError"):
        envs.close()
    assert len(closed) == 3
    envs.close()
