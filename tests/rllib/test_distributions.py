import math

import numpy as np
import pytest

from shoal.rllib.distributions import Categorical, DiagonalGaussian


def test_categorical_actions_come_as_often_as_softmax_says():
    logits = np.array([0.3, -1.0, 2.0], np.float32)
    distribution = Categorical(3)
    noise = distribution.draw(np.random.default_rng(0), 200_000)
    actions = distribution.sample(np.tile(logits, (len(noise), 1)), noise)
    expected = [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]
    np.testing.assert_allclose(np.bincount(actions, minlength=3) / len(noise), expected, atol=0.005)


def test_categorical_sampling_never_leaves_the_actions_even_at_the_edge_of_the_noise():
    distribution = Categorical(3)
    parameters = np.array([[0.0, 0.0, -200.0], [-200.0, 0.0, 0.0], [0.1, 0.1, 0.1]], np.float32)
    below_one = np.nextafter(1.0, 0.0)
    assert distribution.sample(parameters, np.zeros(3)).tolist() == [0, 1, 0]
    assert distribution.sample(parameters, np.full(3, below_one)).tolist() == [1, 2, 2]
    assert distribution.sample(parameters, np.ones(3)).tolist() == [2, 2, 2]  # what rounding may make of it


@pytest.mark.parametrize("seed", range(5))
def test_categorical_log_prob_is_the_literal_log_softmax(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 5.0, (20, 4)).astype(np.float32)
    actions = rng.integers(4, size=20)
    expected = [
        float(row[a]) - math.log(sum(math.exp(float(x)) for x in row)) for row, a in zip(logits, actions, strict=True)
    ]
    np.testing.assert_allclose(Categorical(4).log_prob(logits, actions), expected, atol=1e-5)


def test_categorical_survives_huge_parameters():
    parameters = np.array([[1e4, -1e4]], np.float32)
    assert Categorical(2).log_prob(parameters, np.array([0])).tolist() == [0.0]


def test_actions_of_the_environment_count_from_its_start():
    assert Categorical(3, start=-1).for_environment(np.array([0, 2])).tolist() == [[-1], [1]]


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_log_prob_is_the_literal_density_summed_over_dimensions(seed):
    rng = np.random.default_rng(seed)
    parameters = rng.normal(0.0, 1.0, (10, 6)).astype(np.float32)
    actions = rng.normal(0.0, 2.0, (10, 3)).astype(np.float32)
    expected = []
    for row, action in zip(parameters.astype(float), actions.astype(float), strict=True):
        total = 0.0
        for mean, log_std, a in zip(row[:3], row[3:], action, strict=True):
            std = math.exp(log_std)
            total += math.log(math.exp(-((a - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)))
        expected.append(total)
    distribution = DiagonalGaussian((-1.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(distribution.log_prob(parameters, actions), expected, rtol=1e-4)


def test_gaussian_samples_have_the_mean_and_deviation_of_their_parameters():
    distribution = DiagonalGaussian((-9.0, -9.0), (9.0, 9.0))
    noise = distribution.draw(np.random.default_rng(1), 100_000)
    parameters = np.tile(np.array([1.0, -2.0, math.log(0.5), math.log(2.0)], np.float32), (len(noise), 1))
    actions = distribution.sample(parameters, noise)
    np.testing.assert_allclose(actions.mean(axis=0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(actions.std(axis=0), [0.5, 2.0], atol=0.03)


def test_the_environment_gets_clipped_actions_and_the_sample_stays_as_it_was():
    distribution = DiagonalGaussian((-1.0, -math.inf), (1.0, math.inf))
    actions = np.array([[3.0, 300.0], [-3.0, 0.5]], np.float32)
    sent = distribution.for_environment(actions)
    assert [row.tolist() for row in sent] == [[1.0, 300.0], [-1.0, 0.5]]
    assert all(row.dtype == np.float32 for row in sent)
    assert actions[0, 0] == 3.0
