import math

import numpy as np
import pytest
import torch

from shoal.rllib.learning.advantages import explained_variance, gae, normalized


def literal_gae(rewards, values, next_values, terminated, truncated, gamma, lam, valid=None):
    """Eq. 16 written out: a sum over the steps up to the end of the episode or of the rollout, or up to a row that is
    not valid, for each row that is.
    """
    T, B = rewards.shape
    valid = np.ones((T, B), bool) if valid is None else valid
    advantages = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            for k in range(t, T):
                if not valid[k, b]:
                    break
                successor = 0.0 if terminated[k, b] else next_values[k, b]
                delta = rewards[k, b] + gamma * successor - values[k, b]
                advantages[t, b] += (gamma * lam) ** (k - t) * delta
                if terminated[k, b] or truncated[k, b]:
                    break
    return advantages


@pytest.mark.parametrize("seed", range(40))
def test_gae_is_the_literal_sum(seed):
    rng = np.random.default_rng(seed)
    T, B = rng.integers(1, 30), rng.integers(1, 5)
    rewards, values, next_values = rng.standard_normal((3, T, B))
    ends = rng.random((T, B))
    terminated, truncated = ends < 0.15, ends > 0.85
    gamma, lam = rng.choice([0.0, 0.5, 0.99, 1.0]), rng.choice([0.0, 0.8, 0.95, 1.0])
    advantages, returns = gae(rewards, values, next_values, terminated, truncated, gamma=gamma, lam=lam)
    expected = literal_gae(rewards, values, next_values, terminated, truncated, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(returns, expected + values, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_row_that_is_not_valid_gives_nothing_to_any_other_whatever_it_holds(seed):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.standard_normal((3, 20, 3))
    ends, valid = rng.random((20, 3)), rng.random((20, 3)) > 0.2
    terminated, truncated = (ends < 0.15) & valid, (ends > 0.85) & valid
    expected = literal_gae(rewards, values, next_values, terminated, truncated, 0.9, 0.8, valid)
    rewards[~valid] = next_values[~valid] = np.nan
    advantages, returns = gae(rewards, values, next_values, terminated, truncated, valid, gamma=0.9, lam=0.8)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    assert (advantages[~valid] == 0.0).all()
    np.testing.assert_allclose(returns, expected + values, atol=1e-12)


def test_with_lambda_one_returns_are_the_discounted_sums_of_rewards():
    rewards = np.array([[1.0], [2.0], [4.0]])
    values = np.array([[9.0], [-3.0], [5.0]])
    next_values = np.array([[-3.0], [5.0], [7.0]])
    nothing = np.zeros((3, 1), bool)
    last = np.array([[False], [False], [True]])
    over = gae(rewards, values, next_values, last, nothing, gamma=0.5, lam=1.0)[1]
    np.testing.assert_allclose(over[:, 0], [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4])
    cut = gae(rewards, values, next_values, nothing, last, gamma=0.5, lam=1.0)[1]
    np.testing.assert_allclose(cut[:, 0], over[:, 0] + np.array([0.125, 0.25, 0.5]) * 7)


def test_float32_batches_stay_float32():
    zeros = np.zeros((3, 2), np.float32)
    flags = np.zeros((3, 2), bool)
    advantages, returns = gae(zeros, zeros, zeros, flags, flags, gamma=0.99, lam=0.95)
    assert advantages.dtype == returns.dtype == np.float32


def test_inputs_may_be_read_only_as_they_come_from_the_object_store():
    arrays = [np.ones((3, 2), np.float32) for _ in range(3)] + [np.zeros((3, 2), bool) for _ in range(2)]
    for array in arrays:
        array.setflags(write=False)
    gae(*arrays, gamma=0.9, lam=0.9)


@pytest.mark.parametrize("as_learners_have_them", [torch.tensor, lambda rows: np.array(rows, np.float32)])
def test_advantages_are_normalised_and_a_single_one_is_left_alone(as_learners_have_them):
    advantages = as_learners_have_them([1.0, 5.0, -3.0])
    assert normalized(advantages).tolist() == [0.0, 1.0, -1.0]
    assert normalized(advantages).dtype == advantages.dtype
    assert normalized(as_learners_have_them([4.0])).tolist() == [4.0]


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_a_constant():
    returns = np.random.default_rng(0).standard_normal((5, 4))
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(np.full_like(returns, 3.0), returns) == pytest.approx(0.0)
    assert math.isnan(explained_variance(returns, np.ones_like(returns)))
