"""The learner in numpy beside the one in torch: the same steps, and checkpoints that either goes on from."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.rllib.config import ConfigError
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.minibatches import minibatches
from shoal.rllib.learning.numpy_learner import NumpyLearner, is_chosen
from shoal.rllib.learning.torch_learner import TorchLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.threads import matrix_threads

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FLAT = spaces.Box(-1.0, 1.0, (3,))
SETTINGS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}
ACTIONS = {
    "choice": (spaces.Discrete(3), {}),
    "choices": (spaces.MultiDiscrete([2, 4]), {}),
    "reals": (FLAT, {}),
    "squashed": (FLAT, {"squash": True, "log_std": "predicted"}),
    "both": (spaces.Tuple((spaces.Discrete(3), FLAT)), {}),
}


def spec_of(actions="choice", observations=FLAT, **network):
    space, kind = ACTIONS[actions]
    return policy_spec("toy", observations, space, NetworkSettings(**{"hidden_sizes": (16, 8), **kind, **network}))


def in_numpy(spec, seed=0, max_grad_norm=0.5, loss=ppo_gradients):
    weights = initial_weights(spec, seed)
    return NumpyLearner(spec, weights, loss, learning_rate=3e-3, epsilon=1e-5, max_grad_norm=max_grad_norm)


def in_torch(spec, seed=0, max_grad_norm=0.5):
    return TorchLearner(
        ActorCritic(spec, seed),
        ppo_loss,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, eps=1e-5, fused=True),
        device=torch.device("cpu"),
        max_grad_norm=max_grad_norm,
    )


def columns_for(spec, count=150, seed=0):
    """What a policy near the initial one may have done."""
    rng = np.random.default_rng(seed)
    distribution = spec.actions.distribution
    parameters = 0.3 * rng.standard_normal((count, distribution.num_parameters)).astype(np.float32)
    masks = None
    if distribution.num_choices:
        sizes = spec.actions.sizes
        masks = rng.random((count, sum(sizes))) < 0.6
        masks[:, np.cumsum(sizes) - sizes] = True
    actions = distribution.sample(parameters, distribution.noise(rng.random((count, distribution.num_uniforms))), masks)
    columns = {name: rng.standard_normal(count).astype(np.float32) for name in ("advantages", "returns", "values")}
    columns["observations/observation"] = rng.standard_normal((count, 3)).astype(np.float32)
    columns |= {"actions": actions, "log_probs": distribution.log_prob(parameters, actions, masks)}
    return columns if masks is None else {**columns, "masks": masks}


def learn(learner, columns, epochs=1, seed=0, settings=SETTINGS):
    rows, rng = learner.to_device(columns), np.random.default_rng(seed)
    return [learner.update(each, settings) for _ in range(epochs) for each in minibatches(rows, 64, rng)]


def close(mine, its, atol):
    assert mine.keys() == its.keys()
    for name, array in mine.items():
        np.testing.assert_allclose(array, its[name], rtol=1e-4, atol=atol, err_msg=name)


def same(mine, its):
    assert mine.keys() == its.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, its[name], err_msg=name)


@pytest.mark.parametrize("actions", list(ACTIONS))
@pytest.mark.parametrize(("activation", "shared"), list(itertools.product(["tanh", "relu", "elu"], [False, True])))
@pytest.mark.parametrize("switches", [{}, {"dual_clip": 1.5, "value_clip_range": 0.3, "entropy_coef": 0.0}])
def test_weights_after_some_epochs_are_those_that_torch_finds(actions, activation, shared, switches):
    spec = spec_of(actions, activation=activation, shared_value_net=shared)
    columns, settings = columns_for(spec), {**SETTINGS, **switches}
    mine, its = in_numpy(spec), in_torch(spec)
    reports = [learner.means(learn(learner, columns, 3, settings=settings)) for learner in (mine, its)]
    close(mine.weights(0).arrays, its.weights(0).arrays, 3e-5)
    assert reports[0] == pytest.approx(reports[1], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("max_grad_norm", [None, 1e-3, 1e9])
def test_gradients_are_clipped_as_torch_clips_them(max_grad_norm):
    spec = spec_of()
    mine, its = in_numpy(spec, max_grad_norm=max_grad_norm), in_torch(spec, max_grad_norm=max_grad_norm)
    norms = [[float(step["grad_norm"]) for step in learn(learner, columns_for(spec))] for learner in (mine, its)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    close(mine.optimizer_arrays(), its.optimizer_arrays(), 1e-7)
    close(mine.weights(0).arrays, its.weights(0).arrays, 3e-6)


@pytest.mark.parametrize("makers", [(in_numpy, in_torch), (in_torch, in_numpy)])
def test_a_checkpoint_of_one_learner_is_gone_on_with_by_the_other(makers):
    spec = spec_of("both")
    columns = columns_for(spec)
    first, other, heir = makers[0](spec), makers[1](spec, seed=4), makers[0](spec, seed=9)
    assert first.optimizer_shapes() == other.optimizer_shapes()
    learn(first, columns)
    learn(other, columns)
    arrays, memory = first.weights(1).arrays, first.optimizer_arrays()
    assert {name: array.shape for name, array in memory.items()} == first.optimizer_shapes()
    assert {array.dtype for array in (*arrays.values(), *memory.values())} == {np.dtype(np.float32)}
    for each in (other, heir):
        each.load(arrays, memory)
        same(each.weights(1).arrays, arrays)
        same(each.optimizer_arrays(), memory)
    for each in (first, other, heir):
        learn(each, columns, 2, seed=1)
    same(heir.weights(1).arrays, first.weights(1).arrays)
    close(other.weights(1).arrays, first.weights(1).arrays, 1e-5)


def test_a_learner_that_never_stepped_has_an_optimiser_without_memory_and_can_be_loaded():
    spec = spec_of()
    assert in_numpy(spec).optimizer_arrays() == {}
    heir = in_numpy(spec, seed=9)
    learn(heir, columns_for(spec))
    heir.load(in_numpy(spec).weights(0).arrays, {})
    assert heir.optimizer_arrays() == {}
    first = in_numpy(spec)
    for learner in (first, heir):
        learn(learner, columns_for(spec))
    same(heir.weights(0).arrays, first.weights(0).arrays)


def test_the_same_steps_have_the_same_bits():
    spec = spec_of("squashed")
    first, second = in_numpy(spec), in_numpy(spec)
    assert learn(first, columns_for(spec), 3) == learn(second, columns_for(spec), 3)
    same(first.weights(0).arrays, second.weights(0).arrays)
    assert set(matrix_threads()) <= {1}


@pytest.mark.parametrize("column", ["advantages", "returns", "observations/observation"])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights_alone(column, spoilt):
    spec = spec_of()
    learner, columns = in_numpy(spec), columns_for(spec, 32)
    learn(learner, columns)
    before, memory = learner.weights(0).arrays, learner.optimizer_arrays()
    columns[column][3] = spoilt
    with pytest.raises(DivergedError, match=r"norm is (nan|inf) at a loss of "):
        learn(learner, columns)
    same(learner.weights(0).arrays, before)
    same(learner.optimizer_arrays(), memory)


def test_weights_and_memory_are_copies_that_later_updates_do_not_touch():
    spec = spec_of()
    learner, columns = in_numpy(spec), columns_for(spec)
    learn(learner, columns)
    weights, memory = learner.weights(3), learner.optimizer_arrays()
    before = {name: array.copy() for name, array in (*weights.arrays.items(), *memory.items())}
    learn(learner, columns)
    same({**weights.arrays, **memory}, before)
    assert (weights.version, weights.spec) == (3, spec)


def test_arrays_of_another_policy_are_refused():
    learner = in_numpy(spec_of())
    with pytest.raises(RuntimeError, match="the policy has arrays"):
        learner.load(initial_weights(spec_of(hidden_sizes=(16, 9)), 0), {})
    weights = learner.weights(0).arrays
    with pytest.raises(RuntimeError, match="the policy has arrays"):
        learner.load(weights, {"value.head.bias/exp_avg": weights["value.head.bias"]})
    learn(learner, columns_for(spec_of()))
    memory = learner.optimizer_arrays()
    with pytest.raises(RuntimeError, match=r"different numbers of steps: \[3, 7\]"):
        learner.load(weights, {**memory, "value.head.bias/step": np.array(7.0, np.float32)})


def test_observations_are_laid_side_by_side_once():
    observations = spaces.Dict({"body": FLAT, "gear": spaces.Discrete(3, start=1)})
    learner = in_numpy(spec_of(observations=observations))
    columns = {"observations/body": np.ones((2, 3), np.float32), "observations/gear": np.array([1, 3]), "values": 0}
    rows = learner.to_device(columns)
    assert rows.keys() == {"inputs", "values"}
    assert rows["inputs"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1]]
    assert learner.to_device({"values": 1}) == {"values": 1}


IMAGE = spaces.Box(0, 255, (64, 64, 3), "uint8")


@pytest.mark.parametrize(
    ("network", "settings", "numpy_is_faster"),
    [
        ({}, {"device": "cpu"}, True),
        ({}, {"device": "auto"}, True),
        ({}, {"device": "cuda"}, False),
        ({}, {"precision": "bfloat16"}, False),
        ({}, {"compiles": True}, False),
        ({"hidden_sizes": (64, 64)}, {"minibatch_size": 1024}, True),
        ({"hidden_sizes": (256, 256)}, {}, True),
        ({"hidden_sizes": (256, 256)}, {"minibatch_size": 1024}, False),
        ({"hidden_sizes": (1024, 1024)}, {}, False),
        ({"recurrent": "gru"}, {}, False),
        ({"observations": IMAGE}, {}, False),
    ],
)
def test_numpy_is_chosen_where_it_is_able_to_and_faster(network, settings, numpy_is_faster):
    settings = {"minibatch_size": 64, **settings}
    assert is_chosen("auto", spec_of(**network), **settings) == numpy_is_faster
    assert not is_chosen("torch", spec_of(**network), **settings)


@pytest.mark.parametrize(
    ("network", "settings", "told"),
    [
        ({"recurrent": "gru"}, {}, "of a recurrent net"),
        ({"observations": IMAGE}, {}, "of a convolutional net"),
        ({}, {"device": "cuda:1"}, "on the device cuda:1"),
        ({}, {"precision": "bfloat16"}, "in bfloat16"),
        ({}, {"compiles": True}, "with torch.compile"),
    ],
)
def test_numpy_that_is_demanded_where_it_is_not_able_to_is_refused(network, settings, told):
    with pytest.raises(ConfigError, match=f"learner: numpy cannot compute the gradients {told}") as caught:
        is_chosen("numpy", spec_of(**network), minibatch_size=64, **settings)
    assert "\n" not in str(caught.value)
    assert is_chosen("numpy", spec_of(hidden_sizes=(2048,)), minibatch_size=4096)
