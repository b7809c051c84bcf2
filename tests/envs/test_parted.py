"""Groups of copies in one process: what a copy does is what it does in a single ``SerialVectorEnv``."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest

from shoal.envs.columns import ONLY
from shoal.envs.opening import open_vector
from shoal.envs.parted import PartedVectorEnv
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.envs.vector import SteppedInParts

SEEDS = EpisodeSeeds(7)
INDICES = [3, 1, 4, 15, 9]


class Choosy(gymnasium.Env):
    """Walks until chance ends it; with masks; crashes at the beginning of copy 4's second episode, once."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    has_crashed: ClassVar[list[bool]] = [False]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        return self._shown(), {"action_mask": np.array([1, 0, 1], np.int8)}

    def step(self, action):
        self.steps += 1
        if self.seed == SEEDS(4, 1) and not self.has_crashed[0]:
            self.has_crashed[0] = True
            raise ValueError("a broken leg")
        over = bool(self.np_random.random() < 0.2)
        return self._shown(), float(action), over, False, {"action_mask": np.array([1, 1, self.steps % 2], np.int8)}

    def _shown(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


def both():
    """In groups, and not."""
    return PartedVectorEnv(Choosy, INDICES, SEEDS, num_groups=2), SerialVectorEnv(Choosy, INDICES, SEEDS)


def play(envs, steps):
    """All that is shown in so many steps."""
    rng, shown = np.random.default_rng(1), []
    for _ in range(steps):
        actions = 2 * rng.integers(2, size=envs.num_envs)
        envs.step(actions)
        rows = (envs.observations[ONLY], envs.rewards, envs.terminated, envs.valid, envs.action_masks)
        shown.append(([row.copy() for row in rows], list(envs.finished), envs.is_quiet, envs.replaced))
    return shown


def test_groups_change_nothing_to_the_last_bit():
    parted, serial = both()
    assert isinstance(parted, SteppedInParts)
    assert [each.stop - each.start for each in parted.groups] == [3, 2]
    told = []
    for envs in (parted, serial):
        Choosy.has_crashed[0] = False
        envs.reset()
        told.append((play(envs, 30), envs.incidents))
    np.testing.assert_equal(*told)
    assert len(parted.incidents) == 1
    assert parted.replaced == 1


def test_states_are_those_of_copies_that_are_not_in_groups():
    Choosy.has_crashed[0] = True  # no more
    parted, serial = both()
    for envs in (parted, serial):
        envs.reset()
        play(envs, 9)
    np.testing.assert_equal(parted.state(), serial.state())
    other = PartedVectorEnv(Choosy, INDICES, SEEDS, num_groups=3)
    assert other.restore(serial.state()) == 0
    np.testing.assert_equal(play(other, 9), play(serial, 9))


def test_more_groups_than_copies_are_refused():
    with pytest.raises(ValueError, match="2 environments cannot be split into 3 groups"):
        PartedVectorEnv(Choosy, [0, 1], SEEDS, num_groups=3)


def test_serial_in_groups_is_one_of_these():
    assert isinstance(open_vector("CartPole-v1", range(4), SEEDS, num_groups=2), PartedVectorEnv)
    assert isinstance(open_vector("CartPole-v1", range(4), SEEDS), SerialVectorEnv)
