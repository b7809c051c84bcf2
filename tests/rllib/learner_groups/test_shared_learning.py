"""PPO and APPO with many learners, as a user has them: the curve of one, whoever is killed; and what is refused."""

import os
import signal
import threading

import numpy as np
import pytest

import shoal
from shoal.algorithms.appo import APPO, APPOConfig
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.core import api
from shoal.rllib.config import ConfigError

SMALL = {"num_workers": 2, "num_envs": 4, "rollout_steps": 32, "num_epochs": 2, "minibatch_size": 48, "seed": 5}
SHARED = {"allreduce": {"num_learners": 2}, "ps": {"num_learners": 2, "sync": "ps", "num_shards": 2}}
STALE = {"num_learners": 2, "sync": "ps", "staleness": 2}


@pytest.fixture(scope="module", params=["native", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    shoal.init(
        "local",
        num_cpus=8,
        engine=request.param,
        include_dashboard=False,
        object_store_memory=256 * 1024 * 1024,
        preload=["torch"] if request.param == "native" else [],
    )
    yield request.param
    shoal.shutdown()


@pytest.fixture
def make(engine):
    made = []

    def make_algorithm(algorithm=PPO, **settings):
        made.append(algorithm(algorithm.Config(**{**SMALL, "hidden_sizes": (16,), **settings})))
        return made[-1]

    yield make_algorithm
    for algorithm in made:
        algorithm.close()


@pytest.mark.parametrize(("sync", "learner"), [("allreduce", "numpy"), ("ps", "torch")])
@pytest.mark.usefixtures("one_torch_thread")
def test_two_learners_take_the_steps_of_one(make, sync, learner):
    one, many = make(learner=learner), make(learner=learner, **SHARED[sync])
    mine, its = many.step(), one.step()
    told = {name for name in its if name.startswith("learner/")}
    assert {name: mine[name] for name in told} == pytest.approx({name: its[name] for name in told}, rel=1e-2, abs=1e-4)
    assert mine["learner/gradient_steps"] == 6
    expected = one.weights().arrays
    for name, array in many.weights().arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=0.0, atol=6e-5, err_msg=name)  # 1e-5 a step
    saved = many.checkpoint()
    one.restore(saved)
    for name, array in one.checkpoint().tensors["optimizer"].items():
        np.testing.assert_array_equal(array, saved.tensors["optimizer"][name], err_msg=name)


def victims(algorithm):
    """Process ids of a rollout worker, a learner and, where there are, a shard."""
    learner = algorithm.learner
    replicas = learner._replicas if isinstance(learner._replicas, list) else learner._replicas._actors
    found = [
        api.get(actor.__ray_call__.remote(lambda _: os.getpid()))
        for actor in (algorithm.workers._actors[1], replicas[1])
    ]
    return (
        [*found, *(status.pid for status in learner._server.statuses()[-1:])] if hasattr(learner, "_server") else found
    )


@pytest.mark.parametrize("sync", SHARED)
def test_whoever_is_killed_in_training_the_curve_is_the_same_to_the_last_bit(make, sync):
    left_alone, struck = make(**SHARED[sync]), make(**SHARED[sync])
    left_alone.step(), struck.step()
    for delay_s, pid in zip((0.0, 0.03, 0.01), victims(struck), strict=False):
        strike = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))
        strike.start()
        its = struck.step()
        strike.join()
        mine = left_alone.step()
        differing = {name for name in mine if str(mine[name]) != str(its[name]) and not name.startswith("time/")}
        assert differing <= {"workers_replaced", "learners/replaced", "learners/shards_restarted"}
    expected = left_alone.checkpoint().tensors  # and whoever was killed in the last moment is replaced now
    for group, arrays in struck.checkpoint().tensors.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[group][name], err_msg=f"{group} {name}")
    row = struck.step()
    counts = {name: row[name] for name in row if name.startswith("learners/") or name == "workers_replaced"}
    assert set(counts.values()) == {1}


def test_learners_that_do_not_wait_for_each_other_learn_on_when_they_are_killed(make):
    algorithm = make(**STALE)
    rows = [algorithm.step()]
    for pid in victims(algorithm):
        os.kill(pid, signal.SIGKILL)
        rows.append(algorithm.step())
    row = rows[-1]
    assert [row[name] for name in ("workers_replaced", "learners/replaced", "learners/shards_restarted")] == [1, 1, 1]
    by_staleness = {name.removeprefix("learners/"): value for name, value in row.items() if "/staleness" in name}
    assert sum(by_staleness.values()) == sum(each["learner/gradient_steps"] for each in rows)
    assert by_staleness["staleness_9_or_more"] == 0
    assert algorithm.learner.clocks == list(algorithm.learner._server.statuses()[0].clocks)


def test_appo_takes_many_learners_too(make):
    algorithm = make(APPO, train_batch_size=128, **STALE)
    for _ in range(2):
        assert algorithm.step()["learners/replaced"] == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_learners": 0}, "num_learners must be at least 1, not 0"),
        ({"num_learners": 2, "staleness": 1}, "staleness must be 0 without several learners that sync by ps, not 1"),
        ({"sync": "ps"}, "sync must be allreduce with one learner, which has nobody to agree with, not 'ps'"),
        ({"num_learners": 2, "staleness": None}, "staleness must be 0 without several learners that sync by ps"),
        ({"num_learners": 2, "sync": "ps", "staleness": -1}, "staleness must be None or at least 0, not -1"),
        ({"num_shards": 2}, "num_shards must be 1 without several learners that sync by ps, not 2"),
        ({"num_learners": 2, "sync": "ps", "num_shards": 0}, "num_shards must be at least 1, not 0"),
        ({"num_learners": 2, "bucket_mb": 0.0}, r"bucket_mb must be positive, not 0\.0"),
        ({"bucket_mb": 1.0}, "bucket_mb must be 25 without several learners that sync by allreduce, not 1"),
        ({"num_learners": 2, "sync": "ps", "bucket_mb": 1.0}, "bucket_mb must be 25 without several learners that"),
        ({"num_learners": 2, "recurrent": "gru"}, "num_learners must be 1 with a recurrent policy"),
        ({"num_learners": 2, "device": "cuda"}, "device must be auto or cpu with several learners"),
        ({"num_learners": 2, "compile": True}, "compile must be False with several learners"),
    ],
)
@pytest.mark.parametrize("config", [PPOConfig, APPOConfig])
def test_what_cannot_be_combined_is_told_in_one_line(config, settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)
