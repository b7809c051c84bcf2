import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from shoal.envs import registry
from shoal.envs.probes import Corridor
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.envs.vector import Episode
from shoal.envs.wrappers import ActionRepeat, ClipReward, FrameStack, TimeLimit


class Pays(Corridor):
    """Walks 5 steps; earns the position, times -1 for action 0."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self._position * (1 if action else -1)), *rest


def played(env, actions):
    env.reset(seed=0)
    return [env.step(action)[:4] for action in actions]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: TimeLimit(env, 3),
        lambda env: ActionRepeat(env, 2),
        lambda env: FrameStack(env, 4),
        ClipReward,
    ],
)
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_wrapped_environments_keep_gymnasiums_contract(wrap):
    check_env(wrap(Corridor()), skip_render_check=True)


def test_a_time_limit_cuts_and_an_end_in_the_same_step_stays_an_end():
    assert [outcome[2:] for outcome in played(TimeLimit(Corridor(5), 3), [0] * 3)] == [(False, False)] * 2 + [
        (False, True)
    ]
    envs = SerialVectorEnv(lambda: TimeLimit(Corridor(3), 3), [0], EpisodeSeeds(0))
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros(1, int))
    assert (envs.terminated[0], envs.truncated[0]) == (True, False)


def test_a_repeated_action_adds_up_rewards_and_stops_at_the_end():
    outcomes = played(ActionRepeat(Pays(5), 2), [1, 0, 1])
    assert [(observation[0], reward, over) for observation, reward, over, _ in outcomes] == [
        (2, 1 + 2, False),
        (4, -3 - 4, False),
        (5, 5, True),
    ]


def test_the_first_observation_stands_for_those_before_it():
    env = FrameStack(Corridor(5), 3)
    assert env.reset(seed=0)[0].tolist() == [0, 0, 0]
    assert [env.step(0)[0].tolist() for _ in range(4)] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert env.reset(seed=0)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("shape", "stacked"), [((4,), (12,)), ((8, 9), (3, 8, 9)), ((3, 8, 9), (9, 8, 9)), ((8, 9, 3), (8, 9, 9))]
)
def test_pictures_are_stacked_where_their_channels_are(shape, stacked):
    class Shows(gymnasium.Env):
        observation_space = spaces.Box(0, 255, shape, np.uint8)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.integers(0, 256, shape, np.uint8), {}

        def step(self, action):
            return self.np_random.integers(0, 256, shape, np.uint8), 0.0, False, False, {}

    env = FrameStack(Shows(), 3)
    assert env.observation_space.shape == stacked
    env.reset(seed=0)
    env.step(0)
    assert env.observation_space.contains(env.step(0)[0])


def test_clipped_rewards_are_learned_from_and_true_ones_told():
    def returns(*wrappers):
        envs = SerialVectorEnv(lambda: wrapped(Pays(5), *wrappers), [0], EpisodeSeeds(0))
        envs.reset()
        rewards = []
        while not envs.finished:
            envs.step(np.array([len(rewards) % 2]))
            rewards.append(envs.rewards[0].item())
        return rewards, envs.finished

    def wrapped(env, *wrappers):
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    true = -1 + 2 - 3 + 4 - 5
    assert returns(ClipReward) == ([-1, 1, -1, 1, -1], [Episode(0, true, 5)])
    assert returns(lambda env: ClipReward(env, 2.5)) == ([-1, 2, -2.5, 2.5, -2.5], [Episode(0, true, 5)])
    assert returns(ClipReward, lambda env: ClipReward(env, 0.5))[1] == [Episode(0, true, 5)]
    repeated = -1 - 2 + 3 + 4 - 5
    assert returns(ClipReward, lambda env: ActionRepeat(env, 2)) == ([-2, 2, -1], [Episode(0, repeated, 3)])


def test_arguments_that_make_no_sense_are_refused():
    for wrap in (TimeLimit, ActionRepeat, FrameStack):
        for count in (0, 1.5, "4", True):
            with pytest.raises(ValueError, match="needs a whole number of at least 1, not"):
                wrap(Corridor(), count)
    with pytest.raises(ValueError, match="clip_reward needs a bound above 0, not -1"):
        ClipReward(Corridor(), -1)
    with pytest.raises(ValueError, match="frame_stack is for Box observations"):
        FrameStack(gymnasium.make("FrozenLake-v1"), 2)


def test_wrappers_are_found_by_name_the_first_one_innermost():
    env = registry.make("CartPole-v1+action_repeat=2+time_limit=10+frame_stack=3")
    assert [type(layer).__name__ for layer in (env, env.env, env.env.env)] == [
        "FrameStack",
        "TimeLimit",
        "ActionRepeat",
    ]
    assert env.observation_space.shape == (12,)
    with_own = registry.make("CartPole-v1+shoal.envs.wrappers:ClipReward=0.5")
    assert isinstance(with_own, ClipReward)
    assert isinstance(registry.make("CartPole-v1+clip_reward"), ClipReward)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "unknown wrapper ''"),
        ("time_limit", "wrapper 'time_limit': time_limit needs a whole number of at least 1, as in time_limit=4"),
        ("frame_stack=0", "wrapper 'frame_stack=0': frame_stack needs a whole number of at least 1"),
        ("action_repeat=x", "wrapper 'action_repeat=x': action_repeat needs a whole number of at least 1"),
        ("clip_reward=-1", "wrapper 'clip_reward=-1': clip_reward takes a number above 0, or nothing for the sign"),
        ("clip_reward=big", "wrapper 'clip_reward=big': clip_reward takes a number"),
        ("time_limt=3", "unknown wrapper 'time_limt' .did you mean time_limit..: action_repeat, clip_reward, fra"),
        ("shoal.envs.registry:ATARI", "unknown wrapper 'shoal.envs.registry:ATARI': a str is nothing"),
        ("nowhere.to_be:Found", "unknown wrapper 'nowhere.to_be:Found': No module named 'nowhere'"),
        ("shoal.envs.wrappers:Lost=1", "unknown wrapper 'shoal.envs.wrappers:Lost': module .* has no attribute 'Lost'"),
    ],
)
def test_a_wrapper_that_nobody_knows_is_refused_before_anything_is_made(name, told):
    with pytest.raises(registry.UnknownEnvironment, match=told):
        registry.check(f"CartPole-v1+{name}")
