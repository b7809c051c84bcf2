"""A run's environment copies among its workers, by itself; with deaths and learning see test_algorithm.py."""

import numpy as np
import pytest

import shoal
from shoal.algorithms.ppo import PPOConfig
from shoal.rllib import streams
from shoal.rllib.fleet import Fleet
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.env_runner import EnvRunner


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(engine="inline", num_cpus=16)
    yield
    shoal.shutdown()


@pytest.fixture
def make():
    made = []

    def make_fleet(**settings):
        config = PPOConfig(**{"num_workers": 2, "num_envs": 5, **settings})
        made.append(Fleet(config, EnvRunner, incidents=[], begin_anew=lambda _: None))
        return made[-1]

    yield make_fleet
    for fleet in made:
        fleet.close()


def weights_for(fleet):
    spec = fleet.policy_spec(NetworkSettings(hidden_sizes=(8,)))
    return shoal.put(Weights(0, spec, initial_weights(spec, streams.weight_seed(0))))


def test_another_fleet_goes_on_from_a_state_with_other_workers_to_the_same_bits(make):
    one, other = make(), make(num_workers=3)
    acts_with = one.weights_of(weights_for(one))
    one.collect(acts_with, 7, one.next_number(0))
    state = one.state()
    assert other.resume(state, began_at=0, iteration=1)
    mine, its = (fleet.collect(acts_with, 9, 1) for fleet in (one, other))
    for name in ("actions", "rewards", "starts"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))
    assert one.evaluate(acts_with, 4) == other.evaluate(acts_with, 4)


@pytest.mark.parametrize(
    ("num_envs", "told"),
    [
        (5, "all 4 environments start new episodes: there were others"),
        (None, "all 4 environments start new episodes: the checkpoint does not tell where they stood"),
    ],
)
def test_where_nothing_is_known_of_these_copies_new_episodes_begin_that_were_not_played_before(make, num_envs, told):
    fleet, state = make(num_envs=4), None
    if num_envs is not None:
        other = make(num_envs=num_envs)
        other.collect(other.weights_of(weights_for(other)), 3, 0)
        state = other.state()
    before = fleet.collect(fleet.weights_of(weights_for(fleet)), 3, 0)
    assert not fleet.resume(state, began_at=0, iteration=6)
    assert fleet.began_at == 6
    assert fleet._incidents == [told]
    after = fleet.collect(fleet.weights_of(weights_for(fleet)), 3, 0)
    assert not np.array_equal(before.observations["observation"], after.observations["observation"])


def test_a_rollout_has_the_number_of_its_iteration_where_no_other_was_asked_for(make):
    fleet = make()
    assert [fleet.next_number(iteration) for iteration in (0, 1, 1, 1, 7)] == [0, 1, 2, 3, 7]


def test_where_simulators_play_there_are_no_workers(make):
    fleet = make(env="external", external_spaces="CartPole-v1", num_workers=2)
    assert len(fleet.workers) == 0
    assert fleet.state() is None
    assert not fleet.resume(None, began_at=0, iteration=3)
    assert fleet._incidents == []
    assert fleet.began_at == 3
