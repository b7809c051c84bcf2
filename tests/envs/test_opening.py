"""Every implementation by its name, and what is refused."""

import sys

import gymnasium
import numpy as np
import pytest

from shoal.envs.batched import BatchedVectorEnv
from shoal.envs.foreign import ForeignVectorEnv
from shoal.envs.opening import open_vector
from shoal.envs.parallel import ParallelVectorEnv
from shoal.envs.registry import UnknownEnvironment
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.envs.vector import Checks, EnvFailure

SEEDS = EpisodeSeeds(3)


@pytest.mark.parametrize(
    ("vector", "kind"),
    [
        ("serial", SerialVectorEnv),
        ("parallel", ParallelVectorEnv),
        ("batched", BatchedVectorEnv),
        ("gymnasium", ForeignVectorEnv),
    ],
)
def test_cartpole_in_every_implementation_that_needs_no_other_library(vector, kind):
    envs = open_vector("CartPole-v1", [4, 5, 6], SEEDS, vector=vector, num_processes=2)
    try:
        assert isinstance(envs, kind)
        envs.reset()
        lengths = []
        for _ in range(40):
            envs.step(np.ones(3, np.int64))
            lengths += [episode.length for episode in envs.finished]
        assert len(lengths) >= 9
        assert all(7 < length < 12 for length in lengths)
        assert {episode.env_index for episode in envs.finished} <= {4, 5, 6}
    finally:
        envs.close()


def test_an_atari_game_has_one_name_here_and_in_ales_own():
    serial, ale = (open_vector("atari/pong", [0], SEEDS, vector=vector) for vector in ("serial", "ale"))
    assert serial.observation_space == ale.observation_space
    assert serial.action_space == ale.action_space


def test_wrappers_and_checks_reach_the_copies():
    envs = open_vector("CartPole-v1+time_limit=3", [0], SEEDS, checks=Checks(bounds=True))
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros(1, int))
    assert envs.truncated[0]


def two_of(num_envs):
    """A user's own vector environment."""
    return gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode="sync")


def test_a_users_own_vector_environment_is_called_with_the_number_of_copies(monkeypatch):
    module = type(sys)("games_of_mine")
    module.two_of = two_of
    monkeypatch.setitem(sys.modules, "games_of_mine", module)
    envs = open_vector("games_of_mine:two_of", [0, 1], SEEDS, vector="gymnasium")
    assert envs.num_envs == 2


@pytest.mark.parametrize(
    ("env_id", "vector", "told"),
    [
        ("Acrobot-v1", "batched", "Acrobot-v1 has no batched form: there are CartPole-v1, Pendulum-v1"),
        ("CartPole-v1", "ale", "CartPole-v1 is no Atari game for ALE's vector environment: atari/pong is one"),
        ("atari/pogn", "ale", "unknown environment 'atari/pogn' .did you mean atari/pong"),
        ("atari/pogn", "serial", "unknown environment 'atari/pogn' .did you mean atari/pong"),
        ("CartPole-v9", "gymnasium", "unknown environment 'CartPole-v9'"),
        (
            "CartPole-v1+time_limit=3",
            "batched",
            "CartPole-v1 by batched takes no wrappers .time_limit=3.: serial an",
        ),
    ],
)
def test_what_an_implementation_does_not_have_is_refused_in_one_line(env_id, vector, told):
    with pytest.raises(UnknownEnvironment, match=told) as caught:
        open_vector(env_id, [0], SEEDS, vector=vector)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_made_is_a_failure_of_the_environment():
    with pytest.raises(EnvFailure, match=r"shoal.envs.probes:Corridor by gymnasium cannot be made: "):
        open_vector("shoal.envs.probes:Corridor", [0], SEEDS, vector="gymnasium")


def test_what_makes_vectors_is_refused_by_the_others():
    with pytest.raises(UnknownEnvironment, match="standstill_disabled makes vector environments, which vector gymnas"):
        open_vector("shoal.envs.probes:standstill_disabled", [0], SEEDS, vector="parallel")
