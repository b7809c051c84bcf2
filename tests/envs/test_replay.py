"""Going back to a state, by playing the episodes again."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import replay
from shoal.envs.probes import Corridor
from shoal.envs.replay import ActionLog, join_states, split_state
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv

SEEDS = EpisodeSeeds(3)


def cartpoles(env_indices=range(4)):
    return SerialVectorEnv(lambda: gymnasium.make("CartPole-v1"), env_indices, SEEDS)


def walk(envs, steps, seed):
    """What random actions lead to, by step; actions belong to the copies."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        envs.step(rng.integers(2, size=(4, 1))[: envs.num_envs])
        ended = [(episode.env_index, episode.episode_return, episode.length) for episode in envs.finished]
        seen.append((envs.observations["observation"].tobytes(), envs.rewards.tobytes(), ended))
    return seen


def test_a_restored_run_goes_on_bit_for_bit_like_one_that_was_never_stopped():
    whole = cartpoles()
    whole.reset()
    walk(whole, 75, seed=1)
    state = whole.state()
    resumed = cartpoles()
    assert resumed.restore(state) == 0
    np.testing.assert_array_equal(resumed.observations["observation"], whole.observations["observation"])
    assert walk(resumed, 75, seed=2) == walk(whole, 75, seed=2)


def test_a_state_may_be_restored_by_other_numbers_of_copies_each():
    whole = cartpoles()
    whole.reset()
    walk(whole, 75, seed=1)
    left, right = cartpoles([0]), cartpoles([1, 2, 3])
    for part, state in zip((left, right), split_state(whole.state(), [1, 3]), strict=True):
        assert part.restore(state) == 0
    joined = join_states([left.state(), right.state()])
    for name, array in whole.state().items():
        np.testing.assert_array_equal(joined[name], array)


def test_a_state_does_not_move_with_the_environments():
    envs = cartpoles()
    envs.reset()
    walk(envs, 10, seed=1)
    state = envs.state()
    kept = {name: array.copy() for name, array in state.items()}
    walk(envs, 10, seed=1)
    for name, array in kept.items():
        np.testing.assert_array_equal(state[name], array)


class Drifts(Corridor):
    """Not a function of seed and actions: every life of the class sees other numbers."""

    lives = 0

    def __init__(self):
        super().__init__(length=5)
        Drifts.lives += 1
        self._life = Drifts.lives

    def _observation(self):
        return np.array([self._position + (0.001 * self._life if self._position else 0.0)], np.float32)


def test_an_episode_that_cannot_be_repeated_is_dropped_for_a_new_one_and_told():
    envs = SerialVectorEnv(Drifts, [0, 1], SEEDS)
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros((2, 1), np.int64))
    resumed = SerialVectorEnv(Drifts, [0, 1], SEEDS)
    assert resumed.restore(envs.state()) == 2
    assert resumed.incidents[1] == (
        "environment 1: a new episode, as the one under way led elsewhere when it was repeated: "
        "it is not a function of seed and actions"
    )
    assert resumed.state()["episode"].tolist() == [1, 1]
    assert not resumed.state()["length"].any()
    assert resumed.state()["begins"].all()


def test_an_episode_that_ends_early_when_it_is_repeated_is_dropped():
    envs, shorter = (SerialVectorEnv(lambda length=length: Corridor(length), [0], SEEDS) for length in (5, 2))
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros((1, 1), np.int64))
    assert shorter.restore(envs.state()) == 1
    assert "ended in step 2 when it was repeated" in shorter.incidents[0]


def test_an_episode_longer_than_what_is_kept_is_dropped(monkeypatch):
    monkeypatch.setattr(replay, "MAX_STEPS", 100)
    envs, resumed = (SerialVectorEnv(lambda: Corridor(10_000), [0], SEEDS) for _ in range(2))
    envs.reset()
    for _ in range(101):
        envs.step(np.zeros((1, 1), np.int64))
    state = envs.state()
    assert len(state["actions"]) == 0
    assert resumed.restore(state) == 1
    assert "is too long to be repeated" in resumed.incidents[0]


def test_a_state_of_other_copies_or_spaces_is_refused():
    envs = cartpoles()
    envs.reset()
    with pytest.raises(ValueError, match="a state of 4 environments; there are 2"):
        cartpoles(range(2)).restore(envs.state())
    other = SerialVectorEnv(Corridor, range(4), SEEDS)
    with pytest.raises(ValueError, match=r"a state of observations 'observation' \(4, 4\); these have \(4, 1\)"):
        other.restore(envs.state())


@pytest.mark.parametrize("most", [200, 10_000])
def test_the_log_holds_the_actions_of_every_copys_own_episode(monkeypatch, most):
    """Against a plain list per copy."""
    monkeypatch.setattr(replay, "MAX_STEPS", most)
    rng = np.random.default_rng(0)
    log, naive = ActionLog(3, 2, np.dtype(np.int64)), [[], [], []]
    for _ in range(1_000):
        actions = rng.integers(1_000, size=(3, 2))
        log.record(actions)
        for i in range(3):
            naive[i].append(actions[i].tolist())
            if rng.random() < (0.02, 0.002, 0.3)[i]:
                log.restart(i)
                naive[i] = []
            if rng.random() < 0.005:
                other = rng.integers(1_000, size=(rng.integers(0, 190), 2))
                log.load(i, other)
                naive[i] = other.tolist()
        assert log.lengths.tolist() == [log.length(i) for i in range(3)] == [len(own) for own in naive]
        for i in (0, 2):
            kept = naive[i] if len(naive[i]) <= most else []
            assert log.of(i).tolist() == kept
    assert log.of(1).tolist() == (naive[1] if len(naive[1]) <= most else [])


class Masked(gymnasium.Env):
    """Allows only the action that the step number picks; the mask comes with the info or with the observation."""

    def __init__(self, among):
        self._among, self._count = among, 0
        box = spaces.Box(0.0, 10.0, (1,), np.float32)
        masked = spaces.Dict({"position": box, "action_mask": spaces.MultiBinary(3)})
        self.observation_space = masked if among == "observations" else box
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._count = 0
        return self._shown()

    def step(self, action):
        assert action == self._count % 3
        self._count += 1
        observation, info = self._shown()
        return observation, 1.0, self._count == 4, False, info

    def _shown(self):
        position, mask = np.array([self._count], np.float32), np.arange(3) == self._count % 3
        if self._among == "observations":
            return {"position": position, "action_mask": mask.astype(np.int8)}, {}
        return position, {"action_mask": mask} if self._among == "infos" else {}


@pytest.mark.parametrize("among", ["infos", "observations"])
def test_masks_are_found_at_the_first_reset_and_belong_to_the_observations_beside_them(among):
    envs = SerialVectorEnv(lambda: Masked(among), [0, 1], SEEDS)
    assert envs.action_masks is None
    envs.reset()
    assert list(envs.observations) == (["position"] if among == "observations" else ["observation"])
    for _ in range(10):
        (column,) = envs.observations.values()
        np.testing.assert_array_equal(envs.action_masks, np.arange(3) == column % 3)
        envs.step(envs.action_masks.argmax(axis=1)[:, None])
    resumed = SerialVectorEnv(lambda: Masked(among), [0, 1], SEEDS)
    assert resumed.restore(envs.state()) == 0
    np.testing.assert_array_equal(resumed.action_masks, envs.action_masks)


def test_without_masks_there_are_none():
    envs = SerialVectorEnv(lambda: Masked("nowhere"), [0], SEEDS)
    envs.reset()
    assert envs.action_masks is None
