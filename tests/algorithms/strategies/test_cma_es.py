import numpy as np
import pytest

from shoal.algorithms.strategies.cma_es import CMAES


def rounds(strategy, number):
    for _ in range(number):
        asked = strategy.ask()
        returns = -((asked.vectors.astype(np.float64) - 1.0) ** 2).sum(axis=2)
        strategy.tell({}, strategy.weigh(returns, np.ones(asked.num_pairs, bool)))


def test_it_finds_the_maximum_and_asks_the_same_until_it_is_told():
    strategy = CMAES(np.zeros(4), num_pairs=4)
    first = strategy.ask()
    assert first.vectors.shape == (4, 2, 4)
    assert first.vectors.dtype == np.float32
    np.testing.assert_array_equal(strategy.ask().vectors, first.vectors)
    rounds(strategy, 60)
    np.testing.assert_allclose(strategy.centre, 1.0, atol=1e-3)
    assert strategy.ask().generation == 60


def test_a_restored_one_goes_on_to_the_bit_and_numpys_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what is looked at
    whole = CMAES(np.zeros(5), num_pairs=4, seed=3)
    rounds(whole, 20)
    resumed = CMAES(np.zeros(5), num_pairs=4, seed=3)
    resumed.restore(whole.state())
    np.testing.assert_array_equal(resumed.ask().vectors, whole.ask().vectors)
    rounds(whole, 15)
    rounds(resumed, 15)
    np.testing.assert_array_equal(resumed.centre, whole.centre)
    np.testing.assert_array_equal(resumed.ask().vectors, whole.ask().vectors)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert not np.array_equal(CMAES(np.zeros(5), num_pairs=4, seed=4).ask().vectors, resumed.ask().vectors)


def test_a_fresh_state_can_be_restored_and_a_foreign_one_is_refused():
    strategy = CMAES(np.zeros(3), num_pairs=2)
    strategy.restore(strategy.state())
    assert strategy.generation == 0
    with pytest.raises(ValueError, match="nothing for 'returns'"):
        strategy.restore({})
    with pytest.raises(ValueError, match=r"float64 \(1, 3, 2\) for 'returns': it must be float64 \(1, 2, 2\)"):
        strategy.restore({"returns": np.zeros((1, 3, 2))})


def test_large_searches_and_pairs_left_out_are_refused():
    for size in (1, 2001):
        with pytest.raises(ValueError, match=f"for 2 to 2,000 parameters; this search has {size:,}: take a smaller"):
            CMAES(np.zeros(size), num_pairs=4)
    strategy = CMAES(np.zeros(3), num_pairs=2)
    with pytest.raises(ValueError, match="1 of 2 pairs are used: CMA-ES ranks its whole population"):
        strategy.weigh(np.zeros((2, 2)), np.array([True, False]))
