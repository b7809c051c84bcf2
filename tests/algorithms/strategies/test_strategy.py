import numpy as np
import pytest

from shoal.algorithms.strategies.strategy import (
    ObjectiveError,
    Weighing,
    check_returns,
    check_shapes,
    length_of,
    pairs_of,
    restored,
    start_of,
    sum_of,
    summed,
)
from shoal.rllib.evolution.asks import Ask, Candidates
from shoal.rllib.evolution.noise import PhiloxNoise

NOISE = PhiloxNoise(seed=1, size=5)


@pytest.mark.parametrize("spread", [0.5, np.array([1, 2, 3, 4, 0], np.float32)])
def test_a_pair_is_the_centre_plus_and_minus_its_noise_times_the_spread(spread):
    centre = np.arange(5, dtype=np.float32)
    pairs = Ask(3, 4, centre, spread).pairs(NOISE, np.array([2, 0]))
    assert pairs.shape == (2, 2, 5)
    assert pairs.dtype == np.float32
    for pair, index in zip(pairs, [2, 0], strict=True):
        step = np.asarray(spread, np.float32) * NOISE.rows(3, [index])[0]
        np.testing.assert_array_equal(pair, [centre + step, centre - step])


def test_candidates_are_handed_out_by_pair():
    vectors = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    asked = Candidates(0, vectors[0, 0], vectors)
    assert asked.num_pairs == 3
    np.testing.assert_array_equal(asked.pairs(None, np.array([2])), vectors[2:])


def test_sums_are_those_of_the_weighted_powers_of_the_noise_of_used_pairs_in_blocks_of_any_size():
    rng = np.random.default_rng(0)
    weights = {1: rng.standard_normal(7), 2: rng.standard_normal(7)}
    used = np.array([1, 1, 0, 1, 1, 1, 1], bool)
    weighing = Weighing(weights, np.zeros((7, 2)), used)
    expected = {power: np.zeros(5) for power in weights}
    for power, of_pairs in weights.items():
        for index in np.flatnonzero(used):
            expected[power] += of_pairs[index] * NOISE.rows(9, [index])[0].astype(np.float64) ** power
    for block in (1, 3, 64):
        sums = summed(NOISE, 9, weighing, block=block)
        assert sums.keys() == {1, 2}
        for power, one in sums.items():
            np.testing.assert_allclose(one, expected[power], rtol=1e-12)
    assert summed(NOISE, 9, Weighing({}, np.zeros((7, 2)), used)) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_return_that_is_no_number_is_told_with_generation_pair_sign_and_seed(bad):
    returns = np.zeros((4, 2))
    returns[2, 1] = bad
    used = np.ones(4, bool)
    with pytest.raises(ObjectiveError, match=rf"{bad} for pair 2, sign -, of generation 6, seed 11: give finite"):
        check_returns(returns, used, generation=6, seed=11)
    returns[3] = bad
    with pytest.raises(ObjectiveError, match="and 2 more such returns"):
        check_returns(returns, used, generation=6, seed=11)
    check_returns(returns, np.array([True, True, False, False]), generation=6, seed=11)


def test_populations_are_even():
    assert pairs_of(14) == 7
    for population in (15, 1, 0, -2):
        with pytest.raises(ValueError, match=f"population {population}: every direction is tried with both signs"):
            pairs_of(population)


def test_what_a_search_starts_from_is_looked_at():
    start = np.zeros(3)
    assert start_of(start, num_pairs=1, spread=0.1).dtype == np.float32
    for centre, num_pairs, spread, complaint in (
        (np.zeros((2, 2)), 1, 0.1, "centre of shape"),
        (np.zeros(0), 1, 0.1, "centre of shape"),
        (np.array([np.nan]), 1, 0.1, "finite numbers"),
        (start, 0, 0.1, "num_pairs 0"),
        (start, 1, 0.0, "spread 0.0"),
        (start, 1, np.inf, "spread inf"),
    ):
        with pytest.raises(ValueError, match=complaint):
            start_of(centre, num_pairs=num_pairs, spread=spread)


def test_arrays_of_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"returns \(4,\) and used \(4,\)"):
        check_shapes(np.zeros(4), np.ones(4, bool))
    with pytest.raises(ValueError, match="none of 4 pairs is used"):
        check_shapes(np.zeros((4, 2)), np.zeros(4, bool))
    with pytest.raises(ValueError, match=r"the sum of power 1 has shape None: it must be \(3,\)"):
        sum_of({}, 1, 3)
    with pytest.raises(ValueError, match=r"the sum of power 1 has shape \(2,\)"):
        sum_of({1: np.zeros(2)}, 1, 3)
    with pytest.raises(ValueError, match="not finite"):
        sum_of({1: np.array([np.nan])}, 1, 1)
    with pytest.raises(ValueError, match=r"the saved state has nothing for 'x': it must be float64 \(2,\)"):
        restored({}, "x", np.zeros(2))
    with pytest.raises(ValueError, match=r"has float32 \(2,\) for 'x'"):
        restored({"x": np.zeros(2, np.float32)}, "x", np.zeros(2))


def test_lengths_are_those_of_float64():
    assert length_of(np.array([3e30, 4e30], np.float32)) == pytest.approx(5e30)
