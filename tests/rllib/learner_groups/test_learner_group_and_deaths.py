"""Learners and shards that are killed in the middle of a step: the weights are those of a group that lives."""

import os
import signal
import threading
from functools import partial

import pytest
from gymnasium import spaces

import shoal
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.rllib.learner_groups.learner_group import LearnerGroup
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

BOX = spaces.Box(-1.0, 1.0, (3,))
SPEC = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(16, 8)))
SETTINGS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}
ADAM = {"learning_rate": 3e-3, "epsilon": 1e-5, "max_grad_norm": 0.1}


@pytest.fixture(scope="module", params=["native", pytest.param("ray", marks=pytest.mark.ray)], autouse=True)
def engine(request):
    shoal.init(
        "local", num_cpus=8, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


@pytest.fixture
def group():
    groups = []

    def start(make):
        groups.append(LearnerGroup(SPEC, initial_weights(SPEC, 0), make, 2, num_shards=2, **ADAM))
        return groups[-1]

    yield start
    for each in groups:
        each.close()


def in_numpy(kind=NumpyLearner):
    return kind(SPEC, initial_weights(SPEC, 0), ppo_gradients, **ADAM)


def learn(group, minibatches):
    return [group.update(minibatch, SETTINGS) for minibatch in minibatches]


@pytest.mark.parametrize("moment", ["gradients", "means"], ids=["before its push", "after its push"])
def test_a_learner_that_is_killed_changes_not_a_bit(group, tmp_path, moment, same, mortal, columns):
    marker = tmp_path / "struck"
    struck, left_alone = group(partial(in_numpy, mortal(moment, marker))), group(in_numpy)
    assert learn(struck, map(columns, range(6))) == learn(left_alone, map(columns, range(6)))
    assert marker.exists()
    assert struck.counters() == {"replaced": 1, "shards_restarted": 0}
    same(struck.weights(0).arrays, left_alone.weights(0).arrays)
    same(struck.optimizer_arrays(), left_alone.optimizer_arrays())


def test_shards_that_are_killed_while_learners_learn_change_not_a_bit(group, same, columns):
    struck, left_alone, over, killed = group(in_numpy), group(in_numpy), threading.Event(), []

    def strike():
        while len(killed) < 3 and not over.wait(0.01):
            status = struck._server.statuses()[(0, 1, 0)[len(killed)]]
            if status.version >= 3 + 5 * len(killed):  # when there is something to lose
                os.kill(status.pid, signal.SIGKILL)
                killed.append(status.pid)

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        reports = learn(struck, map(columns, range(30)))
    finally:
        over.set()
        striker.join(60)
    assert reports == learn(left_alone, map(columns, range(30)))
    same(struck.weights(0).arrays, left_alone.weights(0).arrays)
    same(struck.optimizer_arrays(), left_alone.optimizer_arrays())
    assert struck.counters() == {"replaced": 0, "shards_restarted": 3}
    assert len(killed) == 3
