import numpy as np
import pytest

from shoal.algorithms.strategies.pgpe import PGPE
from shoal.algorithms.strategies.strategy import summed
from shoal.rllib.evolution.noise import PhiloxNoise


def test_updates_are_those_of_symmetric_sampling_with_a_limit_to_the_change_of_the_deviation():
    noise = PhiloxNoise(seed=0, size=5)
    rng = np.random.default_rng(3)
    strategy = PGPE(
        np.arange(5), num_pairs=6, spread=0.3, learning_rate=0.7, optimizer="momentum", momentum=0.0,
        spread_learning_rate=0.4, shaping="raw",
    )  # fmt: skip
    mean, deviation = np.arange(5.0), np.full(5, 0.3)
    limited = 0
    for generation in range(4):
        returns = rng.standard_normal((6, 2)) + 5.0
        weighing = strategy.weigh(returns, np.ones(6, bool))
        strategy.tell(summed(noise, generation, weighing), weighing)
        # Sehnke et al. 2010, symmetric sampling: steps epsilon ~ N(0, sigma^2), baseline b the mean return.
        steps = [deviation.astype(np.float32) * row.astype(np.float64) for row in noise.rows(generation, range(6))]
        along_mean = sum(step * (plus - minus) / 2 for step, (plus, minus) in zip(steps, returns, strict=True)) / 6
        along_deviation = (
            sum(
                ((plus + minus) / 2 - returns.mean()) * (step**2 - deviation**2) / deviation
                for step, (plus, minus) in zip(steps, returns, strict=True)
            )
            / 6
        )
        mean = mean + 0.7 * along_mean
        wanted = deviation + 0.4 * along_deviation
        limited += (np.abs(wanted / deviation - 1) > 0.2).sum()
        deviation = np.minimum(np.maximum(wanted, 0.8 * deviation), 1.2 * deviation)
        np.testing.assert_allclose(strategy.centre, mean, rtol=1e-4)
        np.testing.assert_allclose(strategy.ask().spread, deviation, rtol=1e-4)
    assert 0 < limited < 20


def test_pairs_that_are_not_used_count_for_nothing():
    returns = np.array([[1.0, 2.0], [np.nan, np.nan], [4.0, 3.0]])
    weighing = PGPE(np.zeros(2), num_pairs=3, shaping="raw").weigh(returns, np.array([True, False, True]))
    np.testing.assert_allclose(weighing.weights[1], [-1 / 4, 0.0, 1 / 4])
    np.testing.assert_allclose(weighing.weights[2], [-1 / 2, 0.0, 1 / 2])


@pytest.mark.parametrize("optimizer", ["clipup", "adam"])
def test_a_restored_one_goes_on_to_the_bit(optimizer):
    noise = PhiloxNoise(seed=5, size=4)
    returns = np.random.default_rng(0).standard_normal((10, 3, 2))
    whole, resumed = (PGPE(np.zeros(4), num_pairs=3, optimizer=optimizer) for _ in range(2))
    for generation, of_pairs in enumerate(returns):
        if generation == 5:
            resumed.restore(whole.state())
        for strategy in (whole, resumed)[: 1 + (generation >= 5)]:
            weighing = strategy.weigh(of_pairs, np.ones(3, bool))
            strategy.tell(summed(noise, strategy.generation, weighing), weighing)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(array, resumed.state()[name])


def test_settings_out_of_range_are_refused():
    for settings in ({"spread_learning_rate": -1.0}, {"max_spread_change": 1.0}):
        with pytest.raises(ValueError, match="the first must be 0 or more, the second between 0 and 1"):
            PGPE(np.zeros(2), num_pairs=1, **settings)
    with pytest.raises(ValueError, match="unknown shaping"):
        PGPE(np.zeros(2), num_pairs=1, shaping="none")
