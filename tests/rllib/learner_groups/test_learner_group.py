"""Many learners beside one that has the whole minibatch, on every engine."""

import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.rllib.learner_groups.learner_group import LearnerGroup
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

BOX = spaces.Box(-1.0, 1.0, (3,))
SPEC = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(16, 8)))
SETTINGS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}
ADAM = {"learning_rate": 3e-3, "epsilon": 1e-5}


@pytest.fixture(scope="module", params=["native", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    shoal.init(
        "local", num_cpus=8, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


def in_numpy(max_grad_norm=0.1):
    return NumpyLearner(SPEC, initial_weights(SPEC, 0), ppo_gradients, max_grad_norm=max_grad_norm, **ADAM)


@pytest.fixture
def group(engine):
    groups = []

    def start(make=in_numpy, count=2, *, num_shards=2, max_grad_norm=0.1):
        weights = initial_weights(SPEC, 0)
        limit = max_grad_norm
        groups.append(LearnerGroup(SPEC, weights, make, count, num_shards=num_shards, max_grad_norm=limit, **ADAM))
        return groups[-1]

    yield start
    for each in groups:
        each.close()


def step(learner, minibatch):
    return learner.update(learner.to_device(minibatch), SETTINGS)


@pytest.mark.parametrize("max_grad_norm", [0.1, None])
def test_each_step_of_many_is_that_of_one_with_the_whole_minibatch(group, max_grad_norm, same, columns):
    many = group(lambda: in_numpy(max_grad_norm), 2, max_grad_norm=max_grad_norm)
    one = in_numpy(max_grad_norm)
    for seed in range(6):
        for learner in (many, one):
            learner.set_learning_rate(3e-3 / (1 + seed))
        mine, its = step(many, columns(seed)), one.means([step(one, columns(seed))])
        assert mine == pytest.approx(its, rel=1e-4, abs=1e-5)
        same(many.weights(seed).arrays, one.weights(seed).arrays, 1e-5)
    same(many.optimizer_arrays(), one.optimizer_arrays(), 1e-5)
    assert {name: array.shape for name, array in many.optimizer_arrays().items()} == many.optimizer_shapes()


def test_a_checkpoint_of_one_learner_is_gone_on_with_by_many_and_back(group, same, columns):
    one, many = in_numpy(), group(count=3)
    for seed in range(3):
        step(one, columns(seed))
    many.load(one.weights(0).arrays, one.optimizer_arrays())
    same(many.weights(0).arrays, one.weights(0).arrays)
    same(many.optimizer_arrays(), one.optimizer_arrays())
    for learner in (one, many):
        step(learner, columns(3))
    same(many.weights(0).arrays, one.weights(0).arrays, 1e-5)
    heir = in_numpy()
    heir.load(many.weights(0).arrays, many.optimizer_arrays())
    for learner in (heir, many):
        step(learner, columns(4))
    same(many.weights(0).arrays, heir.weights(0).arrays, 1e-5)
    many.load(initial_weights(SPEC, 0), {})
    assert many.optimizer_arrays() == {}
    same(many.weights(0).arrays, initial_weights(SPEC, 0))


@pytest.mark.parametrize("row", [0, 40])
def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights_alone(group, row, columns, same):
    many = group()
    step(many, columns(0))
    before, memory = many.weights(0).arrays, many.optimizer_arrays()
    spoilt = columns(1)
    spoilt["advantages"][row] = np.nan
    with pytest.raises(DivergedError, match="training has diverged"):
        many.update(spoilt, SETTINGS)
    same(many.weights(0).arrays, before)
    same(many.optimizer_arrays(), memory)
    step(many, columns(2))
    assert not np.array_equal(many.weights(0).arrays["value.head.weight"], before["value.head.weight"])


def test_one_row_for_two_learners_is_a_step_too(group, columns, same):
    many, one = group(), in_numpy()
    told = many.update(columns(0, rows=1), SETTINGS)
    assert told == pytest.approx(one.update(one.to_device(columns(0, rows=1)), SETTINGS), rel=1e-4, abs=1e-5)
    same(many.weights(0).arrays, one.weights(0).arrays, 1e-5)


def test_what_cannot_be_shared_is_refused(group):
    recurrent = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(8,), recurrent="gru"))
    with pytest.raises(ValueError, match=r"many learners cannot share a recurrent policy \(gru\)"):
        LearnerGroup(recurrent, initial_weights(recurrent, 0), in_numpy, 2, max_grad_norm=None, **ADAM)
    with pytest.raises(RuntimeError, match="the policy has arrays"):
        group().load({"log_stds": np.zeros(3, np.float32)}, {})
