import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from shoal.envs import registry
from shoal.envs.probes import EndlessCorridor
from shoal.envs.single import Single
from shoal.rllib.rollouts.evaluation import play


class Nested(gymnasium.Env):
    observation_space = spaces.Dict({"place": spaces.Tuple((spaces.Discrete(5), spaces.Box(0.0, 9.0, (2,))))})
    action_space = spaces.Dict({"go": spaces.Discrete(3), "how": spaces.Box(-1.0, 1.0, (2,))})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._count = 0
        return self._shown()

    def step(self, action):
        assert action["how"].shape == (2,)
        self._count += int(action["go"])
        observation, info = self._shown()
        return observation, 0.5, self._count >= 4, False, info

    def _shown(self):
        place = (self._count, np.full(2, self._count, np.float32))
        return {"place": place}, {"action_mask": np.arange(3) <= self._count}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_an_episode_of_one_copy_is_an_ordinary_episode_in_every_mode(mode):
    env = Single(SyncVectorEnv([lambda: EndlessCorridor(3)], autoreset_mode=mode))
    for _ in range(2):
        assert env.reset(seed=1)[0] == 0
        assert [(seen[0], over) for seen, _, _, over, _ in (env.step(0) for _ in range(3))] == [
            (1, False),
            (2, False),
            (3, True),
        ]
    env.close()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_nested_values_and_masks_are_those_of_the_copy(mode):
    env = Single(SyncVectorEnv([Nested], autoreset_mode=mode))
    observation, info = env.reset(seed=1)
    assert info["action_mask"].tolist() == [True, False, False]
    for count in (2, 4):
        observation, reward, over, _, _ = env.step({"go": 2, "how": np.zeros(2, np.float32)})
        assert observation["place"][0] == count
        assert observation["place"][1].tolist() == [count, count]
        assert (reward, over) == (0.5, count == 4)


def test_what_makes_vectors_is_made_alone_by_its_name_and_can_be_evaluated():
    name = "shoal.envs.probes:standstill_same_step"
    assert isinstance(registry.make(name), Single)

    class Still:
        def act(self, observations, states=None, masks=None, *, deterministic, rng=None):
            count = len(observations["observation"])
            return np.zeros((count, 1), int), np.zeros((count, 0))

    assert play(name, Still(), 3, seed=0).lengths == (5, 5, 5)
