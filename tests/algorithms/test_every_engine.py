"""Training on every engine: the same seed gives the same curve and the same weights, bit for bit.

Nothing in rllib or the algorithms knows which engine runs it; what could differ is the order in which results come, and
what a trip through another serialiser does to numbers.
"""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest

import shoal
from shoal.algorithms.appo import APPO, APPOConfig
from shoal.algorithms.es import ES, ESConfig
from shoal.algorithms.ppo import PPO, PPOConfig

SETTINGS = {
    "CartPole-v1": {"num_envs": 4, "rollout_steps": 64, "num_epochs": 2, "minibatch_size": 64},
    "Pendulum-v1": {"num_envs": 4, "rollout_steps": 64, "num_epochs": 2, "normalize_observations": True},
}
ITERATIONS = 4


def trained(env, num_workers):
    """(rows of metrics, weights, returns of an evaluation) of a short run in the session that there is."""
    algorithm = PPO(PPOConfig(env=env, num_workers=num_workers, seed=3, device="cpu", **SETTINGS[env]))
    try:
        rows = [algorithm.step() for _ in range(ITERATIONS)]
        weights = algorithm.checkpoint().tensors["policy"]
        return rows, weights, algorithm.evaluate(3).returns
    finally:
        algorithm.close()


def searched(num_workers, fan_out):
    """Bits of all that an evolution strategy goes on from after two generations."""
    settings = {"population_size": 24, "hidden_sizes": (8,), "block_size": 2, "normalize_observations": True}
    where = {"num_workers": num_workers, "fan_out": fan_out}
    algorithm = ES(ESConfig(env="CartPole-v1+time_limit=50", seed=3, **settings, **where))
    try:
        for _ in range(2):
            algorithm.step()
        tensors = algorithm.checkpoint().tensors
        return {(group, name): array.tobytes() for group in tensors for name, array in tensors[group].items()}
    finally:
        algorithm.close()


@pytest.fixture(scope="module")
def native():
    """What the native engine gives, for each environment, with one worker; and a search."""
    shoal.init(num_cpus=2)
    try:
        return {env: trained(env, 1) for env in SETTINGS} | {"search": searched(1, 0)}
    finally:
        shoal.shutdown()


@pytest.fixture(scope="module", params=["native", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request, native):
    shoal.init(
        "local", num_cpus=4, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


@pytest.mark.parametrize("env", SETTINGS)
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.usefixtures("engine")
def test_training_gives_the_same_bits(native, env, num_workers):
    rows, weights, returns = trained(env, num_workers)
    expected_rows, expected_weights, expected_returns = native[env]
    assert returns == expected_returns
    assert weights.keys() == expected_weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected_weights[name], err_msg=name)
    for row, expected in zip(rows, expected_rows, strict=True):
        timeless = {name for name in expected if not name.startswith("time/")}
        differing = {name for name in timeless if row[name] != expected[name] and not math.isnan(expected[name])}
        assert not differing, {name: (row[name], expected[name]) for name in differing}


@pytest.mark.usefixtures("engine")
def test_an_inference_actor_that_is_killed_between_two_iterations_changes_no_bit(native, engine):
    given = {**SETTINGS["CartPole-v1"], "num_workers": 2, "inference": "actor", "env_groups": 2}
    algorithm = PPO(PPOConfig(env="CartPole-v1", seed=3, device="cpu", **given))
    try:
        for iteration in range(ITERATIONS):
            if iteration == 2 and engine != "inline":  # where everything lives in this process
                actor, _ = algorithm.fleet._inference.of(0)
                os.kill(shoal.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
            row = algorithm.step()
        weights = algorithm.checkpoint().tensors["policy"]
    finally:
        algorithm.close()
    assert row["inference/restarts"] == (engine != "inline")
    for name, array in native["CartPole-v1"][1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.mark.parametrize(("num_workers", "fan_out"), [(2, 0), (3, 2)])
@pytest.mark.usefixtures("engine")
def test_a_search_gives_the_same_bits_flat_and_with_a_tree(native, num_workers, fan_out):
    assert searched(num_workers, fan_out) == native["search"]


def trained_as_it_comes(num_workers, **settings):
    """(rows of metrics, weights) of a short run of APPO in the session that there is."""
    given = {**SETTINGS["CartPole-v1"], "train_batch_size": 4 * 64, "num_workers": num_workers, **settings}
    algorithm = APPO(APPOConfig(env="CartPole-v1", seed=3, device="cpu", **given))
    try:
        rows = [algorithm.step() for _ in range(ITERATIONS)]
        return rows, algorithm.checkpoint().tensors["policy"]
    finally:
        algorithm.close()


@pytest.mark.parametrize("inference", ["local", "actor"])
@pytest.mark.usefixtures("engine")
def test_asynchronous_training_without_lag_gives_the_bits_of_synchronous_training(native, inference):
    _, weights = trained_as_it_comes(1, max_lag=0, max_in_flight=1, inference=inference)
    for name, array in native["CartPole-v1"][1].items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.mark.usefixtures("engine")
def test_asynchronous_training_with_two_workers_loses_no_segment():
    rows, _ = trained_as_it_comes(2, max_in_flight=2)
    for row, before in zip(rows, [0, *(row["steps"] for row in rows)], strict=False):
        assert row["steps"] - before == 4 * 64
        assert row["collection/dropped"] == 0
    assert rows[-1]["collection/lag_max"] >= 1
