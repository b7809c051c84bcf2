"""A2C and A3C: the literal step, whoever dies, checkpoints, and what is refused."""

import contextlib
import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.algorithms import a3c
from shoal.algorithms.a3c import A2C, A3C, A2CConfig, A3CConfig, estimates
from shoal.algorithms.appo_gradients import policy_gradients
from shoal.core import api
from shoal.core.errors import ActorError
from shoal.rllib.config import ConfigError
from shoal.rllib.learner_groups.gradient_worker import Advance
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.minibatches import samples
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.rollouts.env_runner import EnvRunner

LOSS = {"value_coef": 0.5, "entropy_coef": 0.0}
SMALL = {"num_workers": 2, "num_envs": 5, "rollout_steps": 8, "hidden_sizes": (16,), "seed": 3}


@pytest.fixture(scope="module", params=["native", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    shoal.init(
        "local", num_cpus=8, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


@pytest.fixture
def make(engine):
    made = []

    def make_algorithm(algorithm=A2C, **settings):
        made.append(algorithm(algorithm.Config(**{**SMALL, **settings})))
        return made[-1]

    yield make_algorithm
    for algorithm in made:
        algorithm.close()


def same(mine, its, atol=0.0):
    assert mine.keys() == its.keys()
    for name, array in mine.items():
        np.testing.assert_allclose(array, its[name], rtol=0.0, atol=atol, err_msg=name)


@pytest.mark.parametrize("num_shards", [1, 2])
def test_a_step_of_a2c_is_one_gradient_step_on_all_rollouts(make, num_shards):
    algorithm = make(num_shards=num_shards)
    runner = EnvRunner(env_id="CartPole-v1", worker_index=0, env_indices=range(5), seed=3)
    weights = algorithm.weights()
    one = NumpyLearner(
        weights.spec, weights.arrays, policy_gradients, learning_rate=2e-3, epsilon=1e-5, max_grad_norm=0.5
    )
    for iteration in range(3):
        batch = runner.collect(algorithm.weights(), 8, iteration).batch
        rows = samples(batch, batch.observations, **estimates(batch, gamma=0.99, lam=0.95))
        one.set_learning_rate(2e-3 * (1.0 - algorithm.steps / algorithm.config.total_steps))
        told = one.update(one.to_device(rows), LOSS)
        row = algorithm.step()
        assert row["learner/grad_norm"] == pytest.approx(told["grad_norm"], rel=1e-4)
        same(algorithm.weights().arrays, one.weights(0).arrays, 1e-5)
    assert algorithm.steps == 3 * 8 * 5


def victims(algorithm):
    """Process ids of a worker and a shard."""
    worker = api.get(algorithm.workers._actors[1].__ray_call__.remote(lambda _: os.getpid()))
    return [worker, algorithm.learner._server.statuses()[-1].pid]


def test_whoever_is_killed_a2c_learns_the_same_bits(make, engine):
    if engine == "inline":  # nobody to kill
        return
    left_alone, struck = make(), make()
    left_alone.step(), struck.step()
    for delay_s, pid in zip((0.0, 0.005), victims(struck), strict=True):
        strike = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))
        strike.start()
        for _ in range(5):
            mine, its = left_alone.step(), struck.step()
            differing = {name for name in mine if str(mine[name]) != str(its[name]) and not name.startswith("time/")}
            assert differing <= {"workers_replaced", "learners/shards_restarted"}
        strike.join()
    struck.step(), left_alone.step()
    for group, arrays in left_alone.checkpoint().tensors.items():
        same(arrays, struck.checkpoint().tensors[group])
    assert struck.report()["workers_replaced"] == struck.report()["learners/shards_restarted"] == 1


@pytest.mark.parametrize("staleness", [None, 1])
def test_a3c_counts_each_rollout_once_whoever_is_killed(make, engine, staleness):
    algorithm = make(A3C, iteration_steps=200, staleness=staleness)
    algorithm.step()
    for pid in [] if engine == "inline" else victims(algorithm):
        os.kill(pid, signal.SIGKILL)
        algorithm.step()
    row = algorithm.step()
    algorithm.checkpoint()
    clocks = algorithm.learner._server.statuses()[0].clocks
    assert list(clocks) == algorithm.learner.clocks == algorithm._finished
    assert algorithm.steps == 8 * (clocks[0] * 3 + clocks[1] * 2)
    assert row["workers_replaced"] == row["learners/shards_restarted"] == (0 if engine == "inline" else 1)
    assert sum(algorithm._staleness.counters().values()) == sum(clocks)
    assert staleness is None or abs(clocks[0] - clocks[1]) <= staleness + 1


def spoil(monkeypatch, marker, copies):
    """While the marker is there, the worker of so many copies has a gradient that is not finite; once."""

    def spoilt(batch, **settings):
        found = estimates(batch, **settings)
        if marker.exists() and batch.rewards.shape[1] == copies:
            marker.unlink()
            found["advantages"][0, 0] = np.nan
        return found

    monkeypatch.setattr(a3c, "estimates", spoilt)


@pytest.mark.parametrize("copies", [3, 2])
def test_after_a_gradient_that_is_not_finite_a2c_has_the_weights_as_they_were_and_goes_on(
    make, monkeypatch, tmp_path, copies
):
    spoil(monkeypatch, tmp_path / "spoil", copies)
    algorithm = make(num_shards=2)
    algorithm.step()
    before = algorithm.checkpoint()
    (tmp_path / "spoil").touch()
    with pytest.raises(DivergedError, match="training has diverged"):
        algorithm.step()
    after = algorithm.checkpoint()
    assert after.counters == before.counters
    for group, arrays in before.tensors.items():
        same(arrays, after.tensors[group])
    assert algorithm.evaluate(2).returns
    assert algorithm.step()["steps"] == 2 * 8 * 5
    assert not np.array_equal(
        algorithm.weights().arrays["value.head.weight"], before.tensors["policy"]["value.head.weight"]
    )


@pytest.mark.parametrize("staleness", [None, 1])
def test_after_a_gradient_that_is_not_finite_a3c_goes_on_with_the_others(make, monkeypatch, tmp_path, staleness):
    spoil(monkeypatch, tmp_path / "spoil", 2)
    algorithm = make(A3C, iteration_steps=200, staleness=staleness)
    algorithm.step()
    (tmp_path / "spoil").touch()

    def learn_until_it_has_been_struck():
        for _ in range(20):
            algorithm.step()

    with pytest.raises(DivergedError, match="training has diverged"):
        learn_until_it_has_been_struck()
    assert algorithm.evaluate(2).returns
    algorithm.step()
    algorithm.checkpoint()
    clocks = algorithm.learner._server.statuses()[0].clocks
    assert list(clocks) == algorithm.learner.clocks == algorithm._finished
    assert algorithm.steps == 8 * (clocks[0] * 3 + clocks[1] * 2)


def strike(actor):
    """Kill an actor's process, and wait until it is dead: a call right behind the kill may still be answered."""
    os.kill(api.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    deadline = time.monotonic() + 60.0
    with contextlib.suppress(ActorError):
        while time.monotonic() < deadline:
            api.get(actor.__ray_ready__.remote())
        pytest.fail("it lives on")


def order(algorithm, step):
    """What A3C asks of a worker."""
    return Advance(algorithm._job, step, num_steps=8, rollout=step, settings=LOSS, learning_rate=1e-3)


@pytest.mark.parametrize("staleness", [None, 1])
def test_who_is_killed_between_a_gradient_that_is_not_finite_and_the_order_behind_it_is_replaced(
    make, engine, monkeypatch, tmp_path, staleness
):
    if engine == "inline":  # nobody to kill
        return
    spoil(monkeypatch, tmp_path / "spoil", 2)
    algorithm = make(A3C, staleness=staleness, num_shards=2)
    (tmp_path / "spoil").touch()
    algorithm.workers.submit(1, "advance", order(algorithm, 0))
    with pytest.raises(DivergedError, match="training has diverged"):
        next(algorithm.workers.completed())
    strike(algorithm.workers._actors[1])
    algorithm.workers.submit(1, "advance", order(algorithm, 1))
    with pytest.raises(DivergedError, match="step 1 comes behind one that has diverged"):
        next(algorithm.workers.completed())
    assert algorithm.workers.replacements == 1
    algorithm._give_up()
    algorithm.step()
    algorithm.checkpoint()
    clocks = algorithm.learner._server.statuses()[0].clocks
    assert list(clocks) == algorithm.learner.clocks == algorithm._finished
    assert algorithm.steps == 8 * (clocks[0] * 3 + clocks[1] * 2)


def test_a2c_goes_on_from_a_checkpoint_to_the_same_bits(make):
    whole, half = make(), make()
    for _ in range(2):
        whole.step(), half.step()
    heir = make()
    heir.restore(half.checkpoint())
    for _ in range(2):
        mine, its = whole.step(), heir.step()
    assert mine["return_mean"] == its["return_mean"] or np.isnan(mine["return_mean"])
    for group, arrays in whole.checkpoint().tensors.items():
        same(arrays, heir.checkpoint().tensors[group])


def test_a3c_goes_on_from_a_checkpoint_that_has_all_that_was_counted(make):
    algorithm = make(A3C, iteration_steps=100)
    algorithm.step()
    saved = algorithm.checkpoint()
    heir = make(A3C, iteration_steps=100, num_workers=1)
    heir.restore(saved)
    same(heir.weights().arrays, algorithm.weights().arrays)
    assert heir.steps == algorithm.steps == saved.counter("steps")
    assert heir.step()["steps"] >= saved.counter("steps") + 100
    assert heir.evaluate(2).returns
    assert not heir.incidents  # environments went on where they stood


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rollout_steps": 0}, "rollout_steps must be at least 1, not 0"),
        ({"gae_lambda": 1.5}, "gae_lambda must be from 0 to 1, not 1.5"),
        ({"recurrent": "gru"}, "recurrent must be none"),
        ({"device": "cuda"}, "device must be auto or cpu"),
        ({"compile": True}, "compile must be False"),
        ({"inference": "actor"}, "inference must be local"),
        ({"num_envs": 1}, r"num_envs must be at least num_workers \(2\), not 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be None or greater than 0, not 0.0"),
    ],
)
@pytest.mark.parametrize("config", [A2CConfig, A3CConfig])
def test_what_cannot_be_is_told_in_one_line(config, settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)


def test_bounds_of_a3c_are_looked_at():
    with pytest.raises(ConfigError, match="staleness must be None or at least 0, not -1"):
        A3CConfig(staleness=-1)
    with pytest.raises(ConfigError, match="iteration_steps must be at least 1, not 0"):
        A3CConfig(iteration_steps=0)
