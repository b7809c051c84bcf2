"""Derivatives in numpy against torch's autograd of the same distributions."""

import numpy as np
import pytest
import torch

from shoal.rllib.learning import distribution_gradients
from shoal.rllib.policies import torch_distributions
from shoal.rllib.policies.distributions import Categorical, DiagonalGaussian, Product

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DISTRIBUTIONS = [
    Categorical((4,)),
    Categorical((1,)),
    Categorical((2, 2, 2)),
    Categorical((3, 1, 4)),
    DiagonalGaussian(3),
    DiagonalGaussian(3, predicts_log_std=True),
    DiagonalGaussian(2, is_squashed=True),
    DiagonalGaussian(2, predicts_log_std=True, is_squashed=True),
    Product(Categorical((3, 2)), DiagonalGaussian(2), (False, True, True, False)),
    Product(Categorical((3,)), DiagonalGaussian(1, True, True), (True, False)),
]


def masks_for(distribution, count, rng):
    sizes = distribution.sizes if isinstance(distribution, Categorical) else distribution.choices.sizes
    masks = rng.random((count, sum(sizes))) < 0.5
    masks[:, np.cumsum(sizes) - sizes] = True
    return masks


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("by_entropies", [0.0, -0.3])
@pytest.mark.parametrize("count", [1, 40])
def test_values_and_derivatives_are_torchs(distribution, masked, by_entropies, count):
    if masked and distribution.num_choices == 0:
        return
    rng = np.random.default_rng(count)
    parameters = rng.standard_normal((count, distribution.num_parameters)).astype(np.float32)
    parameters[0] *= 5.0  # log standard deviations beyond their bounds, and probabilities of nearly 0
    masks = masks_for(distribution, count, rng) if masked else None
    actions = distribution.sample(parameters, distribution.noise(rng.random((count, distribution.num_uniforms))), masks)
    by_log_probs = rng.standard_normal(count).astype(np.float32)

    leaf = torch.tensor(parameters, requires_grad=True)
    allowed, tables = None if masks is None else torch.from_numpy(masks), torch_distributions.tables(distribution)
    log_probs, entropies = torch_distributions.evaluate(distribution, leaf, torch.from_numpy(actions), allowed, tables)
    ((log_probs * torch.from_numpy(by_log_probs)).sum() + by_entropies * entropies.sum()).backward()

    evaluation = distribution_gradients.evaluate(distribution, parameters, actions, masks)
    gradient = evaluation.gradient(by_log_probs, by_entropies)
    np.testing.assert_allclose(evaluation.log_probs, log_probs.detach(), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(evaluation.entropies, entropies.detach(), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(gradient, leaf.grad, rtol=2e-5, atol=2e-5)
    assert {evaluation.log_probs.dtype, evaluation.entropies.dtype, gradient.dtype} == {np.dtype(np.float32)}
    if masks is not None:
        assert not gradient[:, : masks.shape[1]][~masks].any()


@pytest.mark.parametrize("log_std", [-5.0, 2.0, np.nextafter(np.float32(-5.0), np.float32(-6.0)), 2.0001])
def test_a_predicted_deviation_has_a_gradient_up_to_its_bounds_and_none_beyond(log_std):
    parameters = np.array([[0.3, log_std]], np.float32)
    actions, distribution = np.zeros((1, 1), np.float32), DiagonalGaussian(1, predicts_log_std=True)
    leaf = torch.tensor(parameters, requires_grad=True)
    torch_distributions.evaluate(distribution, leaf, torch.from_numpy(actions), None, {})[0].sum().backward()
    gradient = distribution_gradients.evaluate(distribution, parameters, actions, None).gradient(np.ones(1), 0.0)
    np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-5)
    assert bool(gradient[0, 1]) == (log_std in (-5.0, 2.0))
