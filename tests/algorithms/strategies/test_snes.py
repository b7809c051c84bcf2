import math

import numpy as np
import pytest

from shoal.algorithms.strategies.snes import SNES, default_pairs, rank_utilities
from shoal.algorithms.strategies.strategy import summed
from shoal.rllib.evolution.noise import PhiloxNoise


def test_updates_are_those_of_algorithm_2():
    noise = PhiloxNoise(seed=0, size=5)
    rng = np.random.default_rng(3)
    strategy = SNES(np.arange(5, dtype=np.float32), num_pairs=6, spread=0.3, learning_rate=0.7)
    mean, deviation = np.arange(5.0), np.full(5, 0.3)
    rate = (3 + math.log(5)) / (5 * math.sqrt(5))
    for generation in range(3):
        returns = rng.standard_normal((6, 2))
        weighing = strategy.weigh(returns, np.ones(6, bool))
        strategy.tell(summed(noise, generation, weighing), weighing)
        # Sorted by fitness, the best first; u_k of the paper.
        tries = [sign * row.astype(np.float64) for row in noise.rows(generation, range(6)) for sign in (1, -1)]
        tries = [tries[k] for k in np.argsort(-returns.ravel())]
        raw = [max(0.0, math.log(12 / 2 + 1) - math.log(k)) for k in range(1, 13)]
        worth = [one / sum(raw) - 1 / 12 for one in raw]
        along_mean = sum(u * s for u, s in zip(worth, tries, strict=True))
        along_deviation = sum(u * (s**2 - 1) for u, s in zip(worth, tries, strict=True))
        mean = mean + 0.7 * deviation * along_mean
        deviation = deviation * np.exp(rate / 2 * along_deviation)
        np.testing.assert_allclose(strategy.centre, mean, rtol=1e-5)
        np.testing.assert_allclose(strategy.ask().spread, deviation, rtol=1e-5)


def test_utilities_sum_to_0_and_the_lower_half_shares_the_worst():
    for population in (2, 8, 30):
        worth = rank_utilities(population)
        assert worth.sum() == pytest.approx(0.0, abs=1e-12)
        assert (np.diff(worth) >= 0.0).all()
        np.testing.assert_allclose(worth[: population // 2 - 1], -1 / population)


def test_pairs_that_are_not_used_count_for_nothing():
    returns = np.array([[1.0, 2.0], [np.nan, np.nan], [4.0, 3.0]])
    weighing = SNES(np.zeros(2), num_pairs=3).weigh(returns, np.array([True, False, True]))
    worth = rank_utilities(4)
    np.testing.assert_allclose(weighing.weights[1], [worth[0] - worth[1], 0.0, worth[3] - worth[2]])
    np.testing.assert_allclose(weighing.weights[2], [worth[0] + worth[1], 0.0, worth[3] + worth[2]])


def test_a_restored_one_goes_on_to_the_bit():
    noise = PhiloxNoise(seed=5, size=4)
    rng = np.random.default_rng(0)
    returns = rng.standard_normal((10, 3, 2))
    whole, resumed = SNES(np.zeros(4), num_pairs=3), SNES(np.zeros(4), num_pairs=3)
    for generation, of_pairs in enumerate(returns):
        if generation == 5:
            resumed.restore(whole.state())
        for strategy in (whole, resumed)[: 1 + (generation >= 5)]:
            weighing = strategy.weigh(of_pairs, np.ones(3, bool))
            strategy.tell(summed(noise, strategy.generation, weighing), weighing)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(array, resumed.state()[name])
    with pytest.raises(ValueError, match="nothing for 'spread'"):
        resumed.restore({"centre": whole.centre})


def test_settings_out_of_range_are_refused():
    for settings in ({"learning_rate": 0.0}, {"spread_learning_rate": -1.0}):
        with pytest.raises(ValueError, match="the first must be above 0, the second 0 or more"):
            SNES(np.zeros(2), num_pairs=1, **settings)


def test_the_population_is_the_papers_made_even():
    assert [default_pairs(size) for size in (1, 10, 1000)] == [2, 5, 12]
