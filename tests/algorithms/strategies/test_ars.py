import numpy as np
import pytest

from shoal.algorithms.strategies.ars import ARS
from shoal.algorithms.strategies.strategy import summed
from shoal.rllib.evolution.noise import PhiloxNoise


@pytest.mark.parametrize("top", [None, 3])
def test_an_update_is_that_of_algorithms_1_and_2(top):
    noise = PhiloxNoise(seed=0, size=4)
    centre = np.arange(4, dtype=np.float32)
    returns = np.random.default_rng(1).standard_normal((8, 2)) * 30
    strategy = ARS(centre, num_pairs=8, spread=0.05, learning_rate=0.1, top=top)
    asked = strategy.ask()
    weighing = strategy.weigh(returns, np.ones(8, bool))
    strategy.tell(summed(noise, asked.generation, weighing), weighing)
    # Sort the directions by max{r+, r-}; step alpha / (b sigma_R) over the b best, sigma_R over their 2b returns.
    directions = sorted(range(8), key=lambda k: max(returns[k]), reverse=True)[: top or 8]
    deviation = np.std([r for k in directions for r in returns[k]])
    step = sum((returns[k, 0] - returns[k, 1]) * noise.rows(0, [k])[0].astype(np.float64) for k in directions)
    np.testing.assert_allclose(strategy.centre, centre + 0.1 / (len(directions) * deviation) * step, rtol=1e-6)
    assert (asked.spread, asked.num_pairs, strategy.generation) == (0.05, 8, 1)


def test_pairs_that_are_not_used_are_not_among_the_best():
    returns = np.array([[1.0, 0.0], [99.0, np.nan], [5.0, 4.0], [3.0, 3.5]])
    used = np.array([True, False, True, True])
    weights = ARS(np.zeros(2), num_pairs=4, top=2).weigh(returns, used).weights[1]
    deviation = np.std([5.0, 4.0, 3.0, 3.5])
    np.testing.assert_allclose(weights, np.array([0.0, 0.0, 1.0, -0.5]) / (2 * deviation))
    few = ARS(np.zeros(2), num_pairs=4, top=2).weigh(returns, np.array([True, False, False, False])).weights[1]
    np.testing.assert_allclose(few, [1.0 / 0.5, 0.0, 0.0, 0.0])


def test_equal_returns_move_nothing():
    strategy = ARS(np.ones(3), num_pairs=2)
    weighing = strategy.weigh(np.full((2, 2), 7.0), np.ones(2, bool))
    assert not weighing.weights[1].any()
    strategy.tell({1: np.zeros(3)}, weighing)
    np.testing.assert_array_equal(strategy.centre, np.ones(3))


def test_a_restored_one_stands_where_it_stood():
    strategy = ARS(np.zeros(3), num_pairs=2)
    weighing = strategy.weigh(np.array([[1.0, 2.0], [3.0, 5.0]]), np.ones(2, bool))
    strategy.tell({1: np.array([0.1, 0.2, 0.3])}, weighing)
    resumed = ARS(np.ones(3), num_pairs=2)
    resumed.restore(strategy.state())
    np.testing.assert_array_equal(resumed.centre, strategy.centre)
    assert resumed.ask().generation == 1


def test_settings_out_of_range_are_refused():
    for top in (0, 5):
        with pytest.raises(ValueError, match=f"top {top}: of 4 pairs, the best 1 to 4 can count"):
            ARS(np.zeros(2), num_pairs=4, top=top)
    with pytest.raises(ValueError, match="learning_rate 0"):
        ARS(np.zeros(2), num_pairs=4, learning_rate=0)
