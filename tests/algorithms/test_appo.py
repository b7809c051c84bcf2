"""APPO: what it makes of segments of older policies, and small runs with real rollout workers."""

import os
import signal

import numpy as np
import pytest

import shoal
from shoal.algorithms.appo import APPO, APPOConfig
from shoal.algorithms.ppo import PPO
from shoal.rllib.config import ConfigError
from shoal.rllib.learning.vtrace import vtrace
from shoal.rllib.policies.policy import Policy
from shoal.rllib.rollouts.batch import concatenate
from shoal.rllib.rollouts.rollout import reevaluated
from shoal.util import state

SMALL = {"num_workers": 1, "num_envs": 4, "rollout_steps": 32, "minibatch_size": 64, "hidden_sizes": (16,)}
#: Each batch is waited for with the newest weights, and nothing is asked ahead.
NO_LAG = {"train_batch_size": 128, "max_lag": 0, "max_in_flight": 1}


@pytest.fixture(scope="module")
def runtime():
    shoal.init(num_cpus=4)
    yield
    shoal.shutdown()


@pytest.fixture
def toy(runtime):
    """Makes small ones, and closes what it made."""
    made = []

    def make(env, algorithm=APPO, **settings):
        defaults = SMALL | ({"train_batch_size": 128} if algorithm is APPO else {}) | {"device": "cpu"}
        made.append(algorithm(algorithm.Config(env=env, **{**defaults, **settings})))
        return made[-1]

    yield make
    for algorithm in made:
        algorithm.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollout_steps", 0),
        ("train_batch_size", 0),
        ("num_epochs", 0),
        ("minibatch_size", -1),
        ("max_in_flight", 0),
        ("max_lag", -1),
        ("replay_batches", -1),
        ("learning_rate", 0.0),
        ("adam_epsilon", 0.0),
        ("gamma", 1.5),
        ("vtrace_lambda", -0.1),
        ("rho_bar", 0.0),
        ("c_bar", 0.0),
        ("c_bar", 1.5),
        ("clip_range", 0.0),
        ("entropy_coef", -1.0),
        ("value_coef", -1.0),
        ("max_grad_norm", 0.0),
        ("hidden_sizes", ()),
        ("sequence_length", 0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"^{field} must be "):
        APPOConfig(**{field: value})


def test_settings_that_do_not_go_together_are_refused_by_name():
    with pytest.raises(ConfigError, match="num_epochs must be 1 without a clip_range, not 4"):
        APPOConfig(clip_range=None)
    assert APPOConfig(clip_range=None, num_epochs=1).clip_range is None
    with pytest.raises(ConfigError, match="recurrent must be none with compile"):
        APPOConfig(compile=True, recurrent="gru")
    with pytest.raises(ConfigError, match=r"minibatch_size must be at most train_batch_size \(64\), not 256"):
        APPOConfig(compile=True, train_batch_size=64)


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("CartPole-v1", {"normalize_rewards": True}),
        ("Pendulum-v1", {"normalize_observations": True, "normalize_advantages": "batch", "learner": "torch"}),
    ],
)
def test_where_nothing_lags_it_takes_the_steps_of_ppo_bit_for_bit(toy, env, settings):
    mine = toy(env, **NO_LAG, **settings)
    its = toy(env, PPO, num_epochs=4, **settings)
    for _ in range(3):
        found, expected = mine.step(), its.step()
        assert found["collection/lag_max"] == 0
        assert found["learner/rho_mean"] == 1.0
        assert found["learner/acting_kl"] == 0.0
        for name in ("steps", "learner/policy_loss", "learner/value_loss", "learner/approx_kl"):
            assert found[name] == expected[name]
    for name, array in its.weights().arrays.items():
        np.testing.assert_array_equal(mine.weights().arrays[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("CartPole-v1", {"learner": "numpy"}),
        ("CartPole-v1", {"learner": "torch"}),
        ("CartPole-v1", {"learner": "numpy", "clip_range": None}),
        ("CartPole-v1", {"learner": "torch", "clip_range": None}),
        ("Pendulum-v1", {"normalize_observations": True, "normalize_rewards": True}),
        ("shoal.envs.probes:OneWay", {"recurrent": "lstm", "normalize_observations": True}),
        ("shoal.envs.memory:CartPoleWithoutVelocities", {"recurrent": "gru", "sequence_length": 5}),
        ("shoal.envs.probes:Lamp", {"network": "impala_cnn", "rollout_steps": 8, "train_batch_size": 32}),
    ],
)
def test_the_first_gradient_step_is_around_the_policy_that_learns_however_old_the_segments_are(toy, env, settings):
    algorithm = toy(env, num_epochs=1, minibatch_size=10_000, max_in_flight=3, learning_rate=0.02, **settings)
    for _ in range(6):
        metrics = algorithm.step()
        assert metrics["learner/gradient_steps"] == 1
        assert metrics["learner/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["collection/lag_max"] >= 1
    assert metrics["learner/acting_kl"] > 1e-6
    assert 0.0 < metrics["learner/rho_mean"] < 1.0


def test_what_is_learned_from_is_v_trace_with_the_policy_as_it_is(toy, monkeypatch):
    algorithm = toy(
        "Pendulum-v1",
        rollout_steps=256,  # episodes are cut after 200
        minibatch_size=10_000,
        num_epochs=1,
        vtrace_lambda=0.8,
        rho_bar=1.2,
        c_bar=0.9,
        normalize_advantages="off",
        max_in_flight=2,
        learning_rate=0.01,
    )
    for _ in range(3):
        algorithm.step()
    seen, taken = [], []
    update, take = algorithm.learner.update, algorithm.collection.take
    policy = Policy(algorithm.weights())
    monkeypatch.setattr(algorithm.learner, "update", lambda m, s: (seen.append(dict(m)), update(m, s))[1])
    monkeypatch.setattr(algorithm.collection, "take", lambda rows: taken.append(take(rows)) or taken[-1])
    metrics = algorithm.step()
    batch = concatenate([segment.batch for segment in taken[0]], versions_may_differ=True)
    assert batch.version < policy.version
    assert batch.truncated.any()
    now = reevaluated(batch, policy)
    ratios = now.log_probs - batch.log_probs
    flags = batch.terminated, batch.truncated, batch.valid
    options = {"gamma": 0.99, "lam": 0.8, "rho_bar": 1.2, "c_bar": 0.9}
    expected = vtrace(batch.rewards, now.values, now.next_values, ratios, *flags, **options)
    columns = {"advantages": expected.advantages, "returns": expected.targets, "log_probs": now.log_probs}
    for name, column in columns.items():
        np.testing.assert_array_equal(np.sort(seen[0][name]), np.sort(column.reshape(-1)), err_msg=name)
    assert metrics["learner/rho_mean"] == pytest.approx(expected.rhos.mean())


@pytest.mark.parametrize("env", ["CartPole-v1", "shoal.envs.memory:CartPoleWithoutVelocities"])
def test_batches_are_learned_from_again_as_often_as_told_and_counted_once(toy, monkeypatch, env):
    memory = {} if env == "CartPole-v1" else {"recurrent": "gru", "recurrent_size": 8, "sequence_length": 8}
    algorithm = toy(env, replay_batches=2, num_epochs=1, minibatch_size=10_000, normalize_rewards=True, **memory)
    seen = []
    update = algorithm.learner.update
    monkeypatch.setattr(algorithm.learner, "update", lambda m, s: (seen.append(m["actions"]), update(m, s))[1])
    for number in range(1, 6):
        metrics = algorithm.step()
        assert metrics["steps"] == 128 * number
        assert len(seen[-1]) == 128 * min(number, 3)
        # Around the policy that learns, V-trace or not.
        assert metrics["learner/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert sum(segment.num_steps for segment in algorithm._past) == 2 * 128
    algorithm.restore(algorithm.checkpoint())
    algorithm.step()
    assert len(seen[-1]) == 128


@pytest.mark.parametrize("settings", [{}, {"clip_range": None, "num_epochs": 1}], ids=["appo", "impala"])
@pytest.mark.parametrize("learner", ["numpy", "torch"])
def test_it_learns_to_match_the_sign(toy, learner, settings):
    algorithm = toy("shoal.envs.probes:Choice", learning_rate=0.02, total_steps=8000, learner=learner, **settings)
    while algorithm.steps < 8000:
        metrics = algorithm.step()
    assert metrics["return_mean"] > 0.9
    assert algorithm.evaluate(20).mean == 1.0


def test_the_critic_finds_the_value_of_a_walk_that_is_cut(toy):
    algorithm = toy(
        "shoal.envs.probes:Standstill",
        gamma=0.9,
        learning_rate=0.03,
        num_epochs=20,
        max_grad_norm=100.0,
        learning_rate_schedule="constant",
    )
    for _ in range(40):
        algorithm.step()
    value = algorithm.policy_from(algorithm.checkpoint()).values(np.ones((1, 1), np.float32))
    assert value == pytest.approx(1 / (1 - 0.9), rel=0.05)  # about 4.1 if a cut were taken for an end


def test_cartpole_is_solved_with_two_workers(runtime):
    # What comes when depends on the clock, so no two runs are the same, and one of twenty is below the bar at the very
    # end of 200,000 steps. That it gets there, most within 100,000, is what must hold of all.
    algorithm = APPO(APPOConfig(seed=1, total_steps=300_000, normalize_rewards=True, device="cpu"))
    best, looked_at = 0.0, 50_000
    try:
        while best < 475.0 and algorithm.steps < algorithm.config.total_steps:
            algorithm.step()
            if algorithm.steps >= looked_at:
                best, looked_at = algorithm.evaluate(20).mean, looked_at + 10_000
        assert best >= 475.0
    finally:
        algorithm.close()


def test_segments_of_several_workers_are_taken_as_they_come_and_none_is_lost(toy):
    algorithm = toy("CartPole-v1", num_workers=2, rollout_steps=16, train_batch_size=100, max_lag=3)
    for _ in range(10):
        before = algorithm.steps
        metrics = algorithm.step()
        assert metrics["steps"] - before >= 100
        assert metrics["collection/lag_max"] <= 3
        assert metrics["collection/dropped"] == 0
    assert algorithm.iteration == 10


def test_a_run_that_is_resumed_goes_on_from_its_weights_and_counts(toy):
    first, heir = (toy("CartPole-v1", num_workers=2, normalize_rewards=True) for _ in range(2))
    for _ in range(4):
        first.step()
    saved = first.checkpoint()
    heir.restore(saved)
    for name, array in first.weights().arrays.items():
        np.testing.assert_array_equal(heir.weights().arrays[name], array)
    assert (heir.steps, heir.iteration) == (first.steps, 4)
    rewards = heir.checkpoint().tensors["normalization_rewards"]
    np.testing.assert_array_equal(rewards["returns"], saved.tensors["normalization_rewards"]["returns"])
    metrics = heir.step()
    assert metrics["iteration"] == 5
    assert metrics["steps"] > first.steps
    assert heir.incidents == []


def test_a_worker_that_is_killed_changes_nothing_but_speed(toy):
    algorithm = toy("shoal.envs.probes:Corridor", num_workers=2, max_lag=2)
    algorithm.step()
    mine = algorithm.workers._actors[0]._actor_id.hex()
    os.kill(next(row.pid for row in state.list_actors() if row.actor_id == mine), signal.SIGKILL)
    for _ in range(10):
        metrics = algorithm.step()
    assert metrics["workers_replaced"] == 1
    assert metrics["collection/dropped"] == 0
    assert metrics["iteration"] == 11
