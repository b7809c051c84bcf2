import numpy as np
import pytest
from hypothesis import given, strategies as some

from shoal.algorithms.strategies.ranks import by_rank, utilities


@given(some.lists(some.integers(-5, 5), min_size=2, max_size=20), some.randoms(use_true_random=False))
def test_equal_values_get_the_mean_of_the_entries_of_their_ranks(values, random):
    table = np.array([random.uniform(-1, 1) for _ in values])
    given_values = np.array(values, float)
    expected = []
    for value in given_values:
        below = int((given_values < value).sum())
        expected.append(table[below : below + int((given_values == value).sum())].mean())
    np.testing.assert_allclose(by_rank(given_values, table), expected, atol=1e-12)


def test_centered_ranks_go_from_minus_to_plus_one_half_over_both_signs():
    returns = np.array([[5.0, -1.0], [np.nan, 7.0], [100.0, 2.0]])
    used = np.array([True, False, True])
    # Salimans et al., es_distributed/es.py, compute_centered_ranks: ranks / (n - 1) - 0.5
    expected = [[2 / 3 - 0.5, -0.5], [0.0, 0.0], [0.5, 1 / 3 - 0.5]]
    np.testing.assert_allclose(utilities(returns, used, "centered_ranks"), expected)


def test_equal_returns_are_worth_nothing():
    for shaping in ("centered_ranks", "standardized"):
        worth = utilities(np.full((4, 2), 9.0), np.ones(4, bool), shaping)
        np.testing.assert_allclose(worth, 0.0, atol=1e-15)
        np.testing.assert_array_equal(worth[:, 0], worth[:, 1])  # so that no direction is taken at all


def test_standardized_utilities_have_mean_0_and_deviation_1_and_raw_ones_are_returns():
    returns = np.random.default_rng(0).standard_normal((10, 2)) * 7 + 3
    used = np.arange(10) < 8
    standardized = utilities(returns, used, "standardized")
    assert standardized[used].mean() == pytest.approx(0.0, abs=1e-12)
    assert standardized[used].std() == pytest.approx(1.0)
    raw = utilities(returns, used, "raw")
    np.testing.assert_array_equal(raw[used], returns[used])
    assert not raw[~used].any()
    assert not standardized[~used].any()


def test_an_unknown_shaping_is_named():
    with pytest.raises(ValueError, match="unknown shaping 'ranks': choose from centered_ranks, standardized, raw"):
        utilities(np.zeros((1, 2)), np.ones(1, bool), "ranks")
