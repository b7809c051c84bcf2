"""Copies in other processes: the same numbers as in one process, and nothing that a process does can harm the rest."""

import functools
import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium import spaces

from shoal.envs import registry
from shoal.envs.columns import UnsupportedSpace
from shoal.envs.copies import LIFE_KEY
from shoal.envs.parallel import ParallelVectorEnv
from shoal.envs.probes import FailsToStart, Fragile, KillsItsProcess
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import MAX_FAILURES, SerialVectorEnv
from shoal.envs.vector import EnvFailure, Episode

SEEDS = EpisodeSeeds(1)


@pytest.fixture
def opened():
    """Makes parallel environments, and closes them."""
    made = []

    def make(env, env_indices=range(4), *, num_processes=2, **kwargs):
        made.append(ParallelVectorEnv(env, env_indices, SEEDS, num_processes=num_processes, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def steps(envs, *actions):
    for action in actions:
        envs.step(np.broadcast_to(action, (envs.num_envs,)))


def children():
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.fixture
def wait_until_gone(has_ended):
    def wait(pids, deadline_s=10.0):
        until = time.monotonic() + deadline_s
        while not all(map(has_ended, pids)):
            assert time.monotonic() < until, "still there"
            time.sleep(0.01)

    return wait


def zoo():
    """An environment with nested observations, a mask, both kinds of ends, and actions of two parts."""

    class Zoo(gymnasium.Env):
        observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (3, 3), np.uint8), "state": spaces.Tuple((spaces.Discrete(9, start=2),))}
        )
        action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,), np.float32)))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self._left = int(self.np_random.integers(2, 7))
            return self._shown()

        def step(self, action):
            self._left -= 1
            observation, info = self._shown()
            over = self._left == 0
            return observation, float(action[1].sum() + action[0]), over, bool(self.np_random.random() < 0.1), info

        def _shown(self):
            image = self.np_random.integers(0, 256, (3, 3), np.uint8)
            mask = np.array([1, self._left % 2, 1])
            return {"image": image, "state": (self._left + 2,)}, {"action_mask": (mask, None)}

    return Zoo()


@pytest.mark.parametrize(("num_processes", "num_groups"), [(1, 1), (2, 1), (3, 2), (1, 3)])
def test_processes_and_groups_change_nothing_to_the_last_bit(opened, num_processes, num_groups):
    indices = [3, 1, 4, 15, 9, 2, 6]
    alone = SerialVectorEnv(zoo, indices, SEEDS)
    apart = opened(zoo, indices, num_processes=num_processes, num_groups=num_groups)
    alone.reset()
    apart.reset()
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(40):
        np.testing.assert_array_equal(alone.action_masks, apart.action_masks)
        actions = np.concatenate([rng.integers(3, size=(7, 1)), rng.uniform(-1, 1, (7, 2))], axis=1)
        alone.step(actions)
        apart.step(actions)
        for name in ("rewards", "terminated", "truncated", "valid"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(apart, name))
        rows = alone.terminated | alone.truncated
        for name in alone.observations:
            np.testing.assert_array_equal(alone.observations[name], apart.observations[name])
            np.testing.assert_array_equal(alone.final_observations[name][rows], apart.final_observations[name][rows])
        assert alone.finished == apart.finished
        ended += len(alone.finished)
    assert ended > 30


def test_a_state_may_be_restored_with_any_number_of_processes(opened):
    make = functools.partial(registry.make, "CartPole-v1")
    rng = np.random.default_rng(0)
    alone = SerialVectorEnv(make, range(5), SEEDS)
    alone.reset()
    for _ in range(50):
        alone.step(rng.integers(2, size=5))
    apart = opened(make, range(5), num_processes=2, num_groups=2)
    assert apart.restore(alone.state()) == 0
    for _ in range(50):
        actions = rng.integers(2, size=5)
        alone.step(actions)
        apart.step(actions)
        np.testing.assert_array_equal(alone.observations["observation"], apart.observations["observation"])
    mine, its = alone.state(), apart.state()
    assert mine.keys() == its.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, its[name])


def test_groups_are_stepped_apart_in_the_order_in_which_they_were_sent(opened):
    envs = opened(functools.partial(Fragile, 3), num_groups=2)
    with pytest.raises(RuntimeError, match="reset the environments before the first step"):
        envs.step_async(0, np.zeros(2, int))
    envs.reset()
    envs.step_async(0, np.zeros(2, int))
    envs.step_async(1, np.zeros(2, int))
    with pytest.raises(RuntimeError, match="group 1 is being stepped already"):
        envs.step_async(1, np.zeros(2, int))
    with pytest.raises(RuntimeError, match=r"group 1 is not the next to be waited for; in flight are \[0, 1\]"):
        envs.step_wait(1)
    with pytest.raises(RuntimeError, match=r"groups \[0, 1\] are being stepped: wait for them first"):
        envs.state()
    envs.step_wait(0)
    assert envs.observations["observation"][envs.groups[0], 0].tolist() == [1, 1]
    for _ in range(2):
        envs.step_async(0, np.zeros(2, int))
        envs.step_wait(1)
        envs.step_async(1, np.zeros(2, int))
        envs.step_wait(0)
    assert envs.finished == [Episode(0, 3.0, 3), Episode(1, 3.0, 3)]
    envs.step_wait(1)
    assert envs.finished == [Episode(2, 3.0, 3), Episode(3, 3.0, 3)]


@pytest.mark.parametrize(("fate", "told"), [(2, "was ended by SIGSEGV"), (3, "hung")])
def test_a_process_that_dies_or_hangs_is_replaced_and_its_step_is_no_transition(opened, fate, told):
    envs = opened(Fragile, [6, 7, 8, 9], worker_index=1, step_deadline_s=0.5)
    before = children()
    envs.reset()
    steps(envs, 0, [fate, 0, 0, 0])
    assert envs.valid.tolist() == [False, False, True, True]
    assert envs.rewards.tolist() == [0, 0, 1, 1]
    assert not (envs.terminated | envs.truncated).any()
    assert envs.observations["observation"][:, 0].tolist() == [0, 0, 2, 2]
    assert envs.replaced == 2
    assert envs.incidents == [f"worker 1, environments 6, 7: their process {told}; it was replaced"]
    steps(envs, 0, 0, 0)
    assert envs.valid.all()
    assert envs.finished == [Episode(8, 5.0, 5), Episode(9, 5.0, 5)]
    assert envs.state()["episode"].tolist() == [1, 1, 1, 1]
    assert len(children() - before) == 1


def test_both_groups_in_flight_are_lost_with_their_process(opened):
    envs = opened(Fragile, num_processes=1, num_groups=2)
    envs.reset()
    steps(envs, 0)
    envs.step_async(0, np.array([2, 0]))
    envs.step_async(1, np.zeros(2, int))
    envs.step_wait(0)
    assert envs.valid.tolist() == [False, False, True, True]
    envs.step_wait(1)
    assert not envs.valid.any()
    assert not envs.observations["observation"].any()
    steps(envs, 0)
    assert envs.valid.all()
    assert envs.observations["observation"][:, 0].tolist() == [1, 1, 1, 1]


def test_a_group_at_rest_loses_its_next_step_with_its_process(opened):
    """What the policy saw of it belongs to an episode that is gone."""
    envs = opened(Fragile, num_processes=1, num_groups=2)
    envs.reset()
    steps(envs, 0)
    envs.step_async(0, np.array([2, 0]))
    envs.step_wait(0)
    envs.step_async(1, np.zeros(2, int))
    envs.step_wait(1)
    assert not envs.valid[envs.groups[1]].any()
    assert not envs.observations["observation"][envs.groups[1]].any()


def test_a_process_that_somebody_kills_between_two_steps_is_replaced(opened, wait_until_gone):
    before = children()
    envs = opened(Fragile, num_processes=1)
    envs.reset()
    steps(envs, 0, 0, 0, 0, 0)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    wait_until_gone([pid])
    steps(envs, 0)
    assert not envs.valid.any()
    assert envs.incidents == ["environments 0, 1, 2, 3: their process was ended by SIGKILL; it was replaced"]
    assert envs.state()["episode"].tolist() == [2, 2, 2, 2]


def test_a_process_that_dies_again_and_again_is_given_up(opened, wait_until_gone):
    before = children()
    envs = opened(KillsItsProcess, [5], num_processes=1)
    envs.reset()
    with pytest.raises(EnvFailure, match=r"^environment 5: their process was ended by SIGKILL, 3 times without finish"):
        steps(envs, *[0] * 10)
    wait_until_gone(children() - before)


def test_a_finished_episode_shows_that_its_process_works_and_a_lost_life_finishes_none(opened):
    class Mortal(Fragile):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            lost = self._position == 2
            return observation, reward, terminated or lost, truncated, {**info, LIFE_KEY: lost}

    envs = opened(Mortal, num_processes=1)
    envs.reset()
    (process,) = envs._processes
    process.failures = MAX_FAILURES - 1
    told = []
    for _ in range(5):
        steps(envs, 0)
        told.append((envs.terminated.all(), len(envs.finished), process.failures))
    assert told == [(False, 0, 2), (True, 0, 2), (False, 0, 2), (False, 0, 2), (True, 4, 0)]
    assert envs.finished == [Episode(i, 5.0, 5) for i in range(4)]


def test_an_exception_replaces_one_copy_only_and_is_told_by_its_process(opened):
    envs = opened(Fragile)
    envs.reset()
    steps(envs, 0, [0, 1, 0, 0])
    assert envs.valid.tolist() == [True, False, True, True]
    assert envs.observations["observation"][:, 0].tolist() == [2, 0, 2, 2]
    told = (
        "environment 1: its step raised ZeroDivisionError: the physics blew up (step 2 of episode 0); it was replaced"
    )
    assert (envs.replaced, envs.incidents) == (1, [told])
    steps(envs, 0)
    assert (envs.replaced, envs.incidents) == (1, [told])


def test_numbers_that_no_learner_can_use_are_told_with_copy_and_step_and_end_everything(opened, wait_until_gone):
    before = children()
    envs = opened(Fragile, [4, 5, 6, 7], worker_index=3)
    envs.reset()
    with pytest.raises(EnvFailure, match=r"^worker 3, environment 6: its step 3 gave the reward nan"):
        steps(envs, 0, 0, [0, 0, 4, 0])
    wait_until_gone(children() - before)
    with pytest.raises(RuntimeError, match="reset"):
        steps(envs, 0)


def test_environments_that_cannot_be_made_are_told_with_their_own_traceback(opened):
    with pytest.raises(EnvFailure, match="worker 2, environment 0: its constructor raised OSError") as caught:
        opened(FailsToStart, worker_index=2)
    assert "probes.py" in str(caught.value)

    def kills():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EnvFailure, match="environments 0, 1: their process was ended by SIGKILL while the environment"):
        opened(kills)
    with pytest.raises(EnvFailure, match="environments 0, 1: their process hung while the environments were made"):
        opened(lambda: time.sleep(60), start_deadline_s=0.5)


def test_unsupported_spaces_and_impossible_splits_are_refused(opened):
    class Words(Fragile):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Text(3)

    with pytest.raises(UnsupportedSpace, match="spaces of kind Text are not supported"):
        opened(Words)
    with pytest.raises(ValueError, match="4 environments cannot be split into 2 groups in 3 processes"):
        opened(Fragile, num_processes=3, num_groups=2)


def test_closing_ends_the_processes_and_leaves_no_descriptors(opened, wait_until_gone):
    before, descriptors = children(), psutil.Process().num_fds()
    envs = opened(Fragile)
    envs.reset()
    mine = children() - before
    assert len(mine) == 2
    envs.close()
    envs.close()
    wait_until_gone(mine)
    del envs
    assert psutil.Process().num_fds() <= descriptors + 1  # the block's mapping holds its own until the arrays go


def test_environments_are_closed_with_their_process(opened, tmp_path):
    class Tidy(Fragile):
        def close(self):
            (tmp_path / "closed").touch()

    envs = opened(Tidy, [0], num_processes=1)
    envs.close()
    assert (tmp_path / "closed").exists()


def test_an_environment_that_fails_to_close_disturbs_nobody(opened, capfd, wait_until_gone):
    class Stuck(Fragile):
        def close(self):
            raise OSError("device busy")

    before = children()
    envs = opened(Stuck)
    envs.reset()
    mine = children() - before
    envs.close()
    wait_until_gone(mine)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("doing", ["sleep", "hang", "spin"])
def test_processes_die_with_a_parent_that_is_killed(doing, tmp_path, wait_until_gone):
    program = f"""
import functools, os, time
import numpy as np
from shoal.envs.parallel import ParallelVectorEnv
from shoal.envs.probes import Fragile
from shoal.envs.seeds import EpisodeSeeds

class Spins(Fragile):
    def step(self, action):
        sum(range(10**15))  # one call of native code that holds the interpreter

envs = ParallelVectorEnv(Spins if {doing!r} == "spin" else Fragile, range(2), EpisodeSeeds(0), num_processes=2)
envs.reset()
print("ready", flush=True)
if {doing!r} != "sleep":
    envs.step(np.full((2, 1), 3))
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        mine = {process.pid for process in psutil.Process(parent.pid).children()}
        assert len(mine) == 2
    finally:
        parent.kill()
        parent.wait(10)
        parent.stdout.close()
    wait_until_gone(mine)


def test_nobody_spins_while_a_step_takes_its_time(opened):
    class Slow(Fragile):
        def step(self, action):
            time.sleep(0.4)
            return super().step(action)

    before = children()
    envs = opened(Slow, range(2))
    envs.reset()
    watched = [psutil.Process(), *map(psutil.Process, children() - before)]
    used = [sum(process.cpu_times()[:2]) for process in watched]
    steps(envs, 0, 0)
    for process, earlier in zip(watched, used, strict=True):
        assert sum(process.cpu_times()[:2]) - earlier < 0.3
