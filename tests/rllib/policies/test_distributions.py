"""Sampling and log-probabilities in numpy, against the formulas written out."""

import math

import numpy as np
import pytest

from shoal.rllib.policies.distributions import (
    FORBIDDEN,
    LOG_STD_BOUNDS,
    Categorical,
    DiagonalGaussian,
    Product,
    draw,
    log_tanh_slope,
)
from shoal.rllib.streams import ActionStreams


def softmax(logits):
    weights = [math.exp(float(x) - float(max(logits))) for x in logits]
    return [weight / sum(weights) for weight in weights]


def test_categorical_actions_come_as_often_as_softmax_says():
    logits = np.array([0.3, -1.0, 2.0], np.float32)
    distribution = Categorical((3,))
    noise = draw(distribution, np.random.default_rng(0), 200_000)
    actions = distribution.sample(np.tile(logits, (len(noise), 1)), noise)
    assert actions.shape == (200_000, 1)
    np.testing.assert_allclose(np.bincount(actions[:, 0], minlength=3) / len(noise), softmax(logits), atol=0.005)


def test_several_choices_are_drawn_independently_each_from_its_own_softmax():
    logits = np.array([0.3, -1.0, 1.0, 0.0, 0.5, -0.5, 2.0], np.float32)
    distribution = Categorical((3, 2, 2))
    noise = draw(distribution, np.random.default_rng(0), 200_000)
    actions = distribution.sample(np.tile(logits, (len(noise), 1)), noise)
    assert actions.dtype == np.int64
    joint = np.zeros((3, 2, 2))
    np.add.at(joint, tuple(actions.T), 1.0 / len(noise))
    expected = np.einsum("i,j,k", softmax(logits[:3]), softmax(logits[3:5]), softmax(logits[5:]))
    np.testing.assert_allclose(joint, expected, atol=0.005)


#: The least and the greatest number that ``ActionStreams`` and ``draw`` give.
EDGES = (2.0**-53, 1.0 - 2.0**-53)


def test_a_choice_is_the_greatest_logit_with_gumbel_noise_written_out():
    rng = np.random.default_rng(0)
    uniforms, logits = rng.uniform(0.001, 0.999, (50, 3)), rng.normal(0.0, 2.0, (50, 3)).astype(np.float32)
    expected = [
        max(range(3), key=lambda i: row[i] - math.log(-math.log(us[i])))
        for row, us in zip(logits.tolist(), uniforms.tolist(), strict=True)
    ]
    distribution = Categorical((3,))
    assert distribution.sample(logits, distribution.noise(uniforms))[:, 0].tolist() == expected


def test_noise_at_the_edges_is_finite_and_never_leads_to_what_is_next_to_impossible():
    choice, normal = Categorical((2,)), DiagonalGaussian(2)
    for edges in np.array([[a, b] for a in EDGES for b in EDGES]):
        noise = choice.noise(edges[None])
        assert np.isfinite(noise).all()
        assert choice.sample(np.array([[0.0, -200.0]], np.float32), noise).tolist() == [[0]]
        assert np.isfinite(normal.noise(edges[None])).all()


@pytest.mark.parametrize("sizes", [(4,), (3, 3), (2, 5, 1)])
@pytest.mark.parametrize("edge", [EDGES[0], None, EDGES[1]])
def test_what_a_mask_forbids_is_never_drawn_even_at_the_edge_of_the_noise(sizes, edge):
    rng = np.random.default_rng(0)
    distribution = Categorical(sizes)
    count = 500
    masks = rng.random((count, sum(sizes))) < 0.5
    ends = np.cumsum(sizes)
    for begin, end in zip(ends - sizes, ends, strict=True):  # one is always allowed
        masks[np.arange(count), rng.integers(begin, end, count)] = True
    parameters = rng.normal(0.0, 3.0, (count, sum(sizes))).astype(np.float32)
    noise = draw(distribution, rng, count)
    if edge is not None:  # all that is allowed at its least, all that is not at its greatest, or the reverse
        noise = distribution.noise(np.where(masks, edge, 1.0 - edge))
    for actions in (distribution.sample(parameters, noise, masks), distribution.mode(parameters, masks)):
        chosen = np.take_along_axis(masks, actions + (ends - sizes), axis=1)
        assert chosen.all()
    assert np.isfinite(distribution.log_prob(parameters, actions, masks)).all()


def test_with_a_mask_the_rest_share_the_probability():
    distribution = Categorical((4,))
    logits = np.array([0.3, 5.0, -1.0, 2.0], np.float32)
    mask = np.array([[True, False, True, True]])
    noise = draw(distribution, np.random.default_rng(0), 100_000)
    actions = distribution.sample(np.tile(logits, (len(noise), 1)), noise, np.tile(mask, (len(noise), 1)))
    expected = softmax(logits[[0, 2, 3]])
    shares = np.bincount(actions[:, 0], minlength=4) / len(noise)
    np.testing.assert_allclose(shares, [expected[0], 0.0, *expected[1:]], atol=0.005)
    for action, probability in zip((0, 2, 3), expected, strict=True):
        log_prob = distribution.log_prob(logits[None], np.array([[action]]), mask)
        np.testing.assert_allclose(log_prob, [math.log(probability)], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(4,), (2, 2, 2), (3, 1, 4), (70, 2)])
def test_categorical_log_prob_is_the_literal_log_softmax_summed_over_choices(seed, sizes):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 5.0, (20, sum(sizes))).astype(np.float32)
    actions = np.stack([rng.integers(size, size=20) for size in sizes], axis=1)
    expected = []
    for row, action in zip(logits, actions, strict=True):
        total, begin = 0.0, 0
        for size, chosen in zip(sizes, action, strict=True):
            total += math.log(softmax(row[begin : begin + size])[chosen])
            begin += size
        expected.append(total)
    np.testing.assert_allclose(Categorical(sizes).log_prob(logits, actions), expected, atol=2e-5)


def test_categorical_survives_huge_parameters():
    parameters = np.array([[1e4, -1e4]], np.float32)
    assert Categorical((2,)).log_prob(parameters, np.array([[0]])).tolist() == [0.0]


def literal_normal(row, action, squashed=False):
    total, size = 0.0, len(action)
    for mean, log_std, a in zip(row[:size], row[size:], action, strict=True):
        std = math.exp(log_std)
        total += math.log(math.exp(-((a - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)))
        if squashed:  # density of y = tanh(a): p(a) / |dy/da|
            total -= math.log(1.0 - math.tanh(a) ** 2)
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("squashed", [False, True])
def test_gaussian_log_prob_is_the_literal_density_summed_over_dimensions(seed, squashed):
    rng = np.random.default_rng(seed)
    parameters = rng.normal(0.0, 1.0, (10, 6)).astype(np.float32)
    actions = rng.normal(0.0, 2.0, (10, 3)).astype(np.float32)
    rows = zip(parameters.astype(float), actions.astype(float), strict=True)
    expected = [literal_normal(row, action, squashed) for row, action in rows]
    distribution = DiagonalGaussian(3, is_squashed=squashed)
    np.testing.assert_allclose(distribution.log_prob(parameters, actions), expected, rtol=1e-4)


def test_the_slope_of_tanh_is_exact_where_tanh_itself_has_rounded_to_one():
    assert log_tanh_slope(np.array([0.0, 0.5], np.float32)) == pytest.approx([0.0, math.log(1 - math.tanh(0.5) ** 2)])
    # log(1 - tanh(x)^2) -> log 4 - 2 x
    assert log_tanh_slope(np.array([30.0, -30.0], np.float32)) == pytest.approx([math.log(4.0) - 60.0] * 2)


def test_normal_noise_is_box_and_mullers_formula_written_out():
    u = np.random.default_rng(0).uniform(0.001, 0.999, (20, 4))
    radius, angle = np.sqrt(-2.0 * np.log(u[:, :2])), 2.0 * math.pi * u[:, 2:]
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(DiagonalGaussian(4).noise(u), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(DiagonalGaussian(3).noise(u), expected[:, :3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_normal_noise_is_normal_and_its_numbers_are_independent(size):
    distribution, keys = DiagonalGaussian(size), np.arange(40, dtype=np.uint64)  # keys as like as can be
    noise = distribution.noise(ActionStreams(keys).uniforms(1000, distribution.num_uniforms)).astype(float)
    count = 40_000
    for numbers in noise.reshape(count, size).T:
        moments = [np.mean(numbers**power) for power in (1, 2, 3, 4)]
        deviations = [math.sqrt(variance / count) for variance in (1, 2, 15, 96)]  # of these means
        for moment, expected, deviation in zip(moments, (0, 1, 0, 3), deviations, strict=True):
            assert abs(moment - expected) < 4.5 * deviation
        # Kolmogorov and Smirnov: the greatest distance of the two distribution functions; 1.95 is passed once in 1000.
        normal = [0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) for x in np.sort(numbers)]
        assert np.abs(normal - (np.arange(count) + 0.5) / count).max() * math.sqrt(count) < 1.95
    assert abs(np.corrcoef(noise.reshape(count, size).T, rowvar=True) - np.eye(size)).max() < 4.5 / math.sqrt(count)
    by_copy = np.corrcoef(noise.transpose(1, 0, 2).reshape(40, -1)) - np.eye(40)
    assert np.abs(by_copy).max() < 5.0 / math.sqrt(1000 * size)
    by_step = (noise[1:] * noise[:-1]).mean()
    assert abs(by_step) < 4.5 / math.sqrt(count * size)
    squares = noise**2 - 1.0  # numbers of one pair share their radius
    assert abs((squares[..., 0] * squares[..., -1]).mean() - 2.0 * (size == 1)) < 4.5 * 8.0 / math.sqrt(count)


def test_gaussian_samples_have_the_mean_and_deviation_of_their_parameters():
    distribution = DiagonalGaussian(2)
    noise = draw(distribution, np.random.default_rng(1), 100_000)
    parameters = np.tile(np.array([1.0, -2.0, math.log(0.5), math.log(2.0)], np.float32), (len(noise), 1))
    actions = distribution.sample(parameters, noise)
    np.testing.assert_allclose(actions.mean(axis=0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(actions.std(axis=0), [0.5, 2.0], atol=0.03)


def test_deviations_that_the_net_predicts_are_kept_where_float32_can_tell_densities():
    predicted, own = DiagonalGaussian(1, predicts_log_std=True), DiagonalGaussian(1)
    actions = np.array([[0.5], [0.5]], np.float32)
    wild = np.array([[0.0, -30.0], [0.0, 30.0]], np.float32)
    tame = np.array([[0.0, LOG_STD_BOUNDS[0]], [0.0, LOG_STD_BOUNDS[1]]], np.float32)
    np.testing.assert_array_equal(predicted.log_prob(wild, actions), own.log_prob(tame, actions))
    np.testing.assert_array_equal(predicted.sample(wild, actions), own.sample(tame, actions))
    assert (own.num_outputs, predicted.num_outputs, predicted.num_parameters) == (1, 2, 2)


def test_a_product_is_its_parts_in_the_order_of_the_action_space():
    choices, reals = Categorical((3, 2)), DiagonalGaussian(2)
    product = Product(choices, reals, (False, True, True, False))
    rng = np.random.default_rng(0)
    parameters = rng.standard_normal((50, product.num_parameters)).astype(np.float32)
    masks = rng.random((50, 5)) < 0.5
    masks[:, [0, 4]] = True
    noise = draw(product, np.random.default_rng(3), 50)
    actions = product.sample(parameters, noise, masks)
    assert actions.dtype == np.float32
    chosen = choices.sample(parameters[:, :5], noise[:, :5], masks)
    drawn = reals.sample(parameters[:, 5:], noise[:, 5:])
    np.testing.assert_array_equal(actions, np.stack([drawn[:, 0], chosen[:, 0], chosen[:, 1], drawn[:, 1]], axis=1))
    expected = choices.log_prob(parameters[:, :5], chosen, masks) + reals.log_prob(parameters[:, 5:], drawn)
    np.testing.assert_array_equal(product.log_prob(parameters, actions, masks), expected)
    modes = product.mode(parameters, masks)
    np.testing.assert_array_equal(modes[:, [0, 3]], parameters[:, 5:7])
    np.testing.assert_array_equal(modes[:, [1, 2]], choices.mode(parameters[:, :5], masks))
    assert (product.num_choices, product.num_outputs, product.action_size) == (5, 7, 4)


def test_a_forbidden_choice_has_a_probability_of_zero_in_float32():
    assert np.exp(np.float32(FORBIDDEN)) == 0.0
