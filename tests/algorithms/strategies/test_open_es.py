import numpy as np
import pytest

from shoal.algorithms.strategies.open_es import OpenES
from shoal.algorithms.strategies.strategy import summed
from shoal.rllib.evolution.noise import PhiloxNoise


def generation(strategy, noise, objective):
    asked = strategy.ask()
    returns = np.array([[objective(one) for one in pair] for pair in asked.pairs(noise, np.arange(asked.num_pairs))])
    weighing = strategy.weigh(returns, np.ones(asked.num_pairs, bool))
    return strategy.tell(summed(noise, asked.generation, weighing), weighing)


def test_a_step_of_plain_gradient_descent_is_algorithm_2_of_its_paper():
    noise = PhiloxNoise(seed=0, size=4)
    centre, spread, rate, decay = np.arange(4, dtype=np.float32), 0.1, 0.5, 0.05
    strategy = OpenES(
        centre, num_pairs=6, spread=spread, learning_rate=rate, optimizer="momentum", momentum=0.0, weight_decay=decay
    )
    values = [lambda x: float(-(x**2).sum())]
    # Algorithm 2, with both signs of each of 6 directions as the n = 12 workers, and centred ranks as F.
    eps = np.concatenate([sign * noise.rows(0, range(6)).astype(np.float64) for sign in (1, -1)])
    returns = np.array([values[0](centre + np.float32(spread) * one.astype(np.float32)) for one in eps])
    ranks = np.argsort(np.argsort(returns)) / (12 - 1) - 0.5
    gradient = sum(rank * one for rank, one in zip(ranks, eps, strict=True)) / (12 * spread)
    # The authors' optimiser gets spread times that, and l2 times the weights.
    expected = centre + rate * (spread * gradient - decay * centre)
    figures = generation(strategy, noise, values[0])
    np.testing.assert_allclose(strategy.centre, expected, rtol=1e-5)
    assert strategy.generation == 1
    assert figures["update_norm"] == pytest.approx(np.linalg.norm(expected - centre), rel=1e-4)


def test_pairs_that_are_not_used_count_for_nothing():
    returns = np.array([[1.0, 4.0], [np.nan, 0.0], [3.0, 2.0]])
    used = np.array([True, False, True])
    weights = OpenES(np.zeros(2), num_pairs=3).weigh(returns, used).weights[1]
    np.testing.assert_allclose(weights, [(-0.5 - 0.5) / 4, 0.0, (1 / 6 + 1 / 6) / 4])


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "clipup"])
def test_it_climbs_and_a_restored_one_goes_on_to_the_bit(optimizer):
    noise = PhiloxNoise(seed=3, size=10)
    target = np.linspace(-1, 1, 10)

    def made():
        return OpenES(np.zeros(10), num_pairs=16, learning_rate=0.05, optimizer=optimizer, weight_decay=0.0)

    def objective(x):
        return -float(((x - target) ** 2).sum())

    strategy = made()
    for _ in range(60):
        generation(strategy, noise, objective)
    resumed = made()
    resumed.restore(strategy.state())
    for _ in range(30):
        generation(strategy, noise, objective)
        generation(resumed, noise, objective)
    np.testing.assert_array_equal(strategy.centre, resumed.centre)
    assert resumed.generation == 90
    assert objective(strategy.centre) > 0.05 * objective(np.zeros(10))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="weight_decay -1"):
        OpenES(np.zeros(2), num_pairs=1, weight_decay=-1)
    with pytest.raises(ValueError, match="unknown shaping"):
        OpenES(np.zeros(2), num_pairs=1, shaping="none")
    with pytest.raises(ValueError, match="unknown optimizer"):
        OpenES(np.zeros(2), num_pairs=1, optimizer="sgd")
    with pytest.raises(ValueError, match="the saved state has nothing for 'centre'"):
        OpenES(np.zeros(2), num_pairs=1).restore({})
