"""A gradient step taken in its two halves, by both learners: gradients as a flat vector, then apply."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.learning.torch_learner import TorchLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

BOX = spaces.Box(-1.0, 1.0, (3,))
SPEC = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(16, 8)))
SETTINGS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}


def in_numpy(seed=0):
    weights = initial_weights(SPEC, seed)
    return NumpyLearner(SPEC, weights, ppo_gradients, learning_rate=3e-3, epsilon=1e-5, max_grad_norm=0.1)


def in_torch(seed=0):
    return TorchLearner(
        ActorCritic(SPEC, seed),
        ppo_loss,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, eps=1e-5, fused=True),
        device=torch.device("cpu"),
        max_grad_norm=0.1,
    )


def columns(seed=0, rows=40):
    rng = np.random.default_rng(seed)
    given = {name: rng.standard_normal(rows).astype(np.float32) for name in ("advantages", "returns", "log_probs")}
    given |= {name: rng.standard_normal((rows, 3)).astype(np.float32) for name in ("observations/observation",)}
    return {**given, "actions": rng.standard_normal((rows, 3)).astype(np.float32)}


def rows_of(given, rows):
    return {name: column[rows] for name, column in given.items()}


@pytest.mark.parametrize("make", [in_numpy, in_torch])
def test_the_two_halves_of_a_step_have_the_bits_of_the_whole(make):
    whole, halves = make(), make()
    for step in range(5):
        reported = whole.update(whole.to_device(columns(step)), SETTINGS)
        gradient, metrics = halves.gradients(halves.to_device(columns(step)), SETTINGS)
        before = gradient.copy()
        norm = halves.apply(gradient)
        np.testing.assert_array_equal(gradient, before)  # it is the caller's
        assert float(reported["grad_norm"]) == norm > 0.1
        assert {name: float(each) for name, each in metrics.items()} == {
            name: float(each) for name, each in reported.items() if name != "grad_norm"
        }
    np.testing.assert_array_equal(whole.flat_weights(), halves.flat_weights())
    mine, its = whole.optimizer_arrays(), halves.optimizer_arrays()
    assert mine.keys() == its.keys()
    assert all(np.array_equal(mine[name], its[name]) for name in mine)


def test_both_learners_lay_gradients_and_weights_out_alike():
    mine, its = in_numpy(), in_torch()
    np.testing.assert_array_equal(mine.flat_weights(), its.flat_weights())
    vectors = [each.gradients(each.to_device(columns()), SETTINGS)[0] for each in (mine, its)]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-6)
    assert vectors[0].dtype == vectors[1].dtype == np.float32


@pytest.mark.parametrize("make", [in_numpy, in_torch])
def test_gradients_of_parts_of_a_minibatch_average_by_rows_to_that_of_the_whole(make):
    learner, given = make(), columns()
    of_parts = [
        learner.gradients(learner.to_device(rows_of(given, rows)), SETTINGS)[0]
        for rows in (slice(0, 10), slice(10, None))
    ]
    whole, _ = learner.gradients(learner.to_device(given), SETTINGS)
    np.testing.assert_allclose((10 * of_parts[0] + 30 * of_parts[1]) / 40, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [in_numpy, in_torch])
def test_flat_weights_are_a_copy_that_another_learner_goes_on_with(make):
    first, heir = make(), make(seed=7)
    flat = first.flat_weights()
    heir.set_flat_weights(flat)
    first.apply(np.ones_like(flat))
    np.testing.assert_array_equal(heir.flat_weights(), flat)
    flat[:] = 0.0
    assert np.abs(heir.flat_weights()).max() > 0.0


@pytest.mark.parametrize("make", [in_numpy, in_torch])
def test_a_vector_that_cannot_be_is_refused_and_changes_nothing(make):
    learner = make()
    before = learner.flat_weights()
    spoilt = np.ones_like(before)
    spoilt[3] = np.nan
    with pytest.raises(DivergedError, match="norm is nan; a smaller"):
        learner.apply(spoilt)
    with pytest.raises(ValueError, match=r"a gradient must be of shape \(\d+,\).* not \(4,\)"):
        learner.apply(np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"weights must be of shape"):
        learner.set_flat_weights(np.ones(4, np.float32))
    np.testing.assert_array_equal(learner.flat_weights(), before)
    learner.apply(np.ones_like(before))
    assert np.isfinite(learner.flat_weights()).all()
