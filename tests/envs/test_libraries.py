"""EnvPool and ALE as foreign vector environments.

ALE is real. EnvPool is a large library without which everything else works: here stands a stub with its interface, as
version 1.2.5 showed it, so that what is asked of it is pinned.
"""

import sys
import types

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.atari_options import AtariOptions
from shoal.envs.foreign import ForeignVectorEnv
from shoal.envs.libraries import AtariLearningEnvironment, EnvPool
from shoal.envs.registry import MissingLibrary
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.vector import Episode, NoStateError

SEEDS = EpisodeSeeds(2)


class StubPool:
    """Walks of 3 steps; like EnvPool it gives the last observation, then spends a step on the reset."""

    def __init__(self, num_envs, **options):
        self.options, self.num_envs, self.steps = options, num_envs, np.zeros(num_envs, int)
        self.observation_space, self.action_space = spaces.Box(0.0, 3.0, (1,), np.float32), spaces.Discrete(2)
        self.lives = np.full(num_envs, 2)
        self.closed = False

    def reset(self):
        return self.steps[:, None].astype(np.float32), {"env_id": np.arange(self.num_envs)}

    def step(self, actions):
        assert actions.dtype == np.int32
        resetting = self.steps == 3
        self.lives -= self.steps == 2
        over = (self.steps == 2) & (self.lives == 0)
        self.steps = np.where(resetting, 0, self.steps + 1)
        ended = self.steps == 3
        info = {"terminated": over.astype(np.int32), "reward": np.where(resetting, 0, 5.0).astype(np.float32)}
        self.lives[over] = 2
        rewards = np.where(resetting, 0, 1).astype(np.float32)
        return self.steps[:, None].astype(np.float32), rewards, ended, np.zeros(self.num_envs, bool), info

    def close(self):
        self.closed = True


@pytest.fixture
def stub(monkeypatch):
    made = []

    def make_gymnasium(task, **options):
        made.append(StubPool(**options))
        made[-1].task = task
        return made[-1]

    module = types.ModuleType("envpool")
    module.make_gymnasium = make_gymnasium
    monkeypatch.setitem(sys.modules, "envpool", module)
    return made


def test_envpools_reset_rows_are_no_transitions(stub):
    envs = ForeignVectorEnv(EnvPool("Walk-v0", [3, 4]), [8, 9], SEEDS)
    envs.reset()
    seen, told = [], []
    for _ in range(8):
        envs.step(np.zeros(2, int))
        seen.append((envs.observations["observation"][0, 0], envs.valid[0], envs.terminated[0], envs.rewards[0]))
        told += envs.finished
    end = [(1, True, False, 1), (2, True, False, 1), (3, True, True, 1), (0, False, False, 0)]
    assert seen == end * 2
    assert told == [Episode(8, 3.0, 3), Episode(9, 3.0, 3)] * 2
    assert stub[0].task == "Walk-v0"
    assert stub[0].options == {"seed": [3, 4]}
    with pytest.raises(NoStateError, match=r"^EnvPool's Walk-v0 steps its copies all together"):
        envs.state()
    envs.close()
    assert stub[0].closed


def test_of_an_atari_game_in_envpool_the_true_score_of_whole_games_is_told(stub):
    envs = ForeignVectorEnv(EnvPool("Pong-v5", [3], AtariOptions()), [0], SEEDS)
    envs.reset()
    told, ends = [], 0
    for _ in range(16):
        envs.step(np.zeros(1, int))
        told += envs.finished
        ends += envs.terminated[0]
    assert ends == 4
    assert told == [Episode(0, 30.0, 6)] * 2
    assert stub[0].options["episodic_life"]
    assert stub[0].options["max_episode_steps"] == 27_000


def test_libraries_are_told_the_same_by_names_of_their_own():
    shared = {"noop_max": 7, "use_fire_reset": False, "img_height": 60, "img_width": 60, "stack_num": 2}
    shared["repeat_action_probability"] = 0.1
    options = AtariOptions(
        noop_max=7, fire_reset=False, frame_skip=3, size=60, stack=2, episodic_life=False, max_frames=900, sticky=0.1
    )
    ales = {"frameskip": 3, "life_loss_info": False, "reward_clipping": False, "max_num_frames_per_episode": 900}
    assert options.for_ale() == shared | ales
    pools = {"frame_skip": 3, "episodic_life": False, "reward_clip": True, "max_episode_steps": 300}
    assert options.for_envpool() == shared | pools


def test_a_missing_library_is_told_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingLibrary, match=r"Walk-v0 in EnvPool needs the library envpool: pip install 'shoal\[env"):
        EnvPool("Walk-v0", [0])
    monkeypatch.setitem(sys.modules, "ale_py.vector_env", None)
    with pytest.raises(MissingLibrary, match=r"the game pong needs the library ale_py: pip install 'shoal\[atari\]'"):
        AtariLearningEnvironment("pong", 1, AtariOptions())


def test_ales_vector_environment_goes_on_over_lost_lives_and_tells_whole_games():
    envs = ForeignVectorEnv(AtariLearningEnvironment("breakout", 2, AtariOptions()), [3, 4], SEEDS)
    envs.reset()
    rng = np.random.default_rng(0)
    lives_lost, told, earned = 0, [], np.zeros(2)
    for _ in range(700):
        envs.step(rng.integers(envs.action_space.n, size=2))
        earned += envs.rewards
        lives_lost += int(envs.terminated.sum())
        assert set(envs.rewards.tolist()) <= {-1.0, 0.0, 1.0}
        told += envs.finished
    assert 3 <= len(told) <= 10
    # Breakout has five lives; some are lost in games that are still being played.
    assert 0 <= lives_lost - 5 * len(told) <= 8
    assert sum(episode.length for episode in told) <= 1400
    assert all(episode.length > 100 for episode in told)
    assert envs.observations["observation"].shape == (2, 4, 84, 84)


def test_ales_rewards_count_by_their_sign_and_scores_are_told_as_they_are():
    envs = ForeignVectorEnv(AtariLearningEnvironment("space_invaders", 2, AtariOptions()), [0, 1], SEEDS)
    envs.reset()
    rng, seen = np.random.default_rng(0), set()
    while not envs.finished:
        envs.step(rng.integers(envs.action_space.n, size=2))
        seen |= set(envs.rewards.tolist())
    assert seen == {0.0, 1.0}  # an invader is worth 5 and more
    assert envs.finished[0].episode_return >= 20.0
    assert envs.finished[0].episode_return % 5.0 == 0.0


def test_a_game_that_is_cut_is_truncated_with_its_last_picture():
    options = AtariOptions(max_frames=40, noop_max=0, fire_reset=False)
    envs = ForeignVectorEnv(AtariLearningEnvironment("pong", 1, options), [0], SEEDS)
    envs.reset()
    first = envs.observations["observation"].copy()
    while not envs.finished:
        envs.step(np.zeros(1, int))
    assert envs.truncated[0]
    assert not envs.terminated[0]
    assert (envs.final_observations["observation"] != first).any()
    assert envs.finished[0].length <= 11
