"""The learner's distributions: against torch.distributions, which nobody here wrote, and against their numpy twins."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as theirs

from shoal.rllib.policies import torch_distributions
from shoal.rllib.policies.distributions import Categorical, DiagonalGaussian, Product, draw


def evaluate(distribution, parameters, actions, masks):
    return torch_distributions.evaluate(
        distribution, parameters, actions, masks, torch_distributions.tables(distribution)
    )


def some(shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masks_for(sizes, count):
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(count, sum(sizes), generator=generator) < 0.5
    ends = np.cumsum(sizes)
    for begin in ends - sizes:
        masks[:, begin] = True
    return masks


@pytest.mark.parametrize("sizes", [(4,), (3, 3), (2, 5, 1)])
def test_choices_are_torchs_categoricals_summed(sizes):
    logits = some((30, sum(sizes)), scale=3.0)
    parts = [theirs.Categorical(logits=part) for part in logits.split(list(sizes), dim=1)]
    actions = torch.stack([torch.arange(30) % size for size in sizes], dim=1)
    log_probs, entropies = evaluate(Categorical(sizes), logits, actions, None)
    torch.testing.assert_close(log_probs, sum(part.log_prob(a) for part, a in zip(parts, actions.T, strict=True)))
    torch.testing.assert_close(entropies, sum(part.entropy() for part in parts))


@pytest.mark.parametrize("sizes", [(4,), (3, 3), (2, 5, 1)])
def test_masked_choices_are_categoricals_of_what_is_allowed_and_nothing_is_nan(sizes):
    logits = some((30, sum(sizes)), scale=3.0).requires_grad_()
    masks = masks_for(sizes, 30)
    actions = torch.zeros((30, len(sizes)), dtype=torch.int64)
    log_probs, entropies = evaluate(Categorical(sizes), logits, actions, masks)
    for row in range(30):
        total, entropy, begin = 0.0, 0.0, 0
        for size in sizes:
            allowed = masks[row, begin : begin + size]
            part = theirs.Categorical(logits=logits[row, begin : begin + size][allowed].detach())
            total, entropy = total + part.log_prob(torch.tensor(0)).item(), entropy + part.entropy().item()
            begin += size
        assert log_probs[row].item() == pytest.approx(total, abs=1e-5)
        assert entropies[row].item() == pytest.approx(entropy, abs=1e-5)
    (log_probs.sum() + entropies.sum()).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~masks] == 0.0).all()


@pytest.mark.parametrize("squashed", [False, True])
def test_real_numbers_are_torchs_normals_and_their_tanh_its_transformed_distribution(squashed):
    parameters, actions = some((30, 6), 1, 0.7), some((30, 3), 2)
    normal = theirs.Normal(parameters[:, :3], parameters[:, 3:].exp())
    log_probs, entropies = evaluate(DiagonalGaussian(3, is_squashed=squashed), parameters, actions, None)
    if not squashed:
        torch.testing.assert_close(log_probs, normal.log_prob(actions).sum(1))
        torch.testing.assert_close(entropies, normal.entropy().sum(1))
        return
    transformed = theirs.TransformedDistribution(normal, theirs.TanhTransform())
    torch.testing.assert_close(log_probs, transformed.log_prob(actions.tanh()).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("std", "tolerance"), [(0.05, 1e-6), (0.5, 1e-5), (1.0, 1e-4), (2.0, 4e-3)])
@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
def test_the_entropy_of_a_squashed_normal_is_the_integral(mean, std, tolerance):
    parameters = torch.tensor([[mean, math.log(std)]])
    entropy = evaluate(DiagonalGaussian(1, is_squashed=True), parameters, torch.zeros(1, 1), None)[1].item()
    x, step = np.linspace(mean - 10 * std, mean + 10 * std, 200_001, retstep=True)
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    slope = 2.0 * (math.log(2.0) - x - np.logaddexp(0.0, -2.0 * x))
    expected = 0.5 * math.log(2 * math.pi * math.e * std**2) + float((density * slope).sum() * step)
    assert entropy == pytest.approx(expected, abs=tolerance)


DISTRIBUTIONS = [
    Categorical((4,)),
    Categorical((2, 2, 2)),
    Categorical((3, 1, 4)),
    DiagonalGaussian(3),
    DiagonalGaussian(3, predicts_log_std=True),
    DiagonalGaussian(2, is_squashed=True),
    Product(Categorical((3, 2)), DiagonalGaussian(2), (False, True, True, False)),
    Product(Categorical((3,)), DiagonalGaussian(1, True, True), (True, False)),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
@pytest.mark.parametrize("masked", [False, True])
def test_torch_and_numpy_have_the_same_log_probabilities(distribution, masked):
    rng = np.random.default_rng(0)
    parameters = rng.standard_normal((40, distribution.num_parameters)).astype(np.float32)
    masks = None
    if masked:
        if distribution.num_choices == 0:
            return
        sizes = distribution.sizes if isinstance(distribution, Categorical) else distribution.choices.sizes
        masks = masks_for(sizes, 40).numpy()
    actions = distribution.sample(parameters, draw(distribution, rng, 40), masks)
    log_probs, _ = evaluate(
        distribution, *map(torch.from_numpy, (parameters, actions)), None if masks is None else torch.from_numpy(masks)
    )
    np.testing.assert_allclose(
        distribution.log_prob(parameters, actions, masks), log_probs.numpy(), rtol=2e-6, atol=2e-6
    )
