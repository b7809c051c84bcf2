"""Sums of weighted noise: near the literal formula, and the same bits however they are cut."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.rllib.evolution.exact_sums import BLOCK_PAIRS, Share, added, as_floats, exact_sums, exponent
from shoal.rllib.evolution.noise import NOISE_LIMIT, PhiloxNoise

NOISE = PhiloxNoise(seed=3, size=5000)


def share_of(count, *, powers=(1,), seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    weights = {power: scale * rng.standard_normal(count) for power in powers}
    return Share.of(np.full(count, 7), np.arange(count), weights)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_sums_are_those_of_the_formula(scale):
    share = share_of(50, powers=(1, 2), scale=scale)
    sums = as_floats(exact_sums(NOISE, share), share)
    rows = NOISE.rows(7, np.arange(50)).astype(np.float64)
    for power in (1, 2):
        literal = sum(share.weights[power][i] * rows[i] ** power for i in range(50))
        np.testing.assert_allclose(sums[power], literal, rtol=0, atol=scale * 1e-12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms())
def test_any_tree_in_any_order_gives_the_same_bits(capacities, shuffle):
    share = share_of(100, powers=(1, 2))
    noise = PhiloxNoise(seed=3, size=40)
    whole = exact_sums(noise, share)
    parts = [exact_sums(noise, part) for part in share.split(capacities)]
    shuffle.shuffle(parts)
    for power, total in added(parts).items():
        np.testing.assert_array_equal(total, whole[power])


def test_parts_are_whole_blocks_and_lose_no_pair():
    share = share_of(100)
    parts = share.split([1, 2, 1])
    assert [len(part) % BLOCK_PAIRS for part in parts[:-1]] == [0, 0]
    np.testing.assert_array_equal(np.concatenate([part.pairs for part in parts]), share.pairs)


def test_more_children_than_blocks_leave_some_without_work():
    parts = share_of(10).split([1] * 5)
    assert sorted(map(len, parts)) == [0, 0, 0, 0, 10]
    assert not exact_sums(NOISE, parts[0])[1].any()


def test_pairs_without_weight_are_left_out_and_change_no_bit():
    weights = np.array([0.5, 0.0, -1.0, 0.0])
    with_them = Share.of(np.zeros(4), np.arange(4), {1: weights})
    assert with_them.pairs.tolist() == [0, 2]
    alone = Share.of(np.zeros(2), np.array([0, 2]), {1: weights[[0, 2]]})
    np.testing.assert_array_equal(exact_sums(NOISE, with_them)[1], exact_sums(NOISE, alone)[1])


def test_pairs_of_two_generations_are_added_with_their_own_noise():
    share = Share.of(np.array([4, 5, 4]), np.array([1, 1, 2]), {1: np.array([1.0, 2.0, 3.0])})
    rows = [NOISE.rows(generation, [pair])[0].astype(np.float64) for generation, pair in ((4, 1), (5, 1), (4, 2))]
    literal = rows[0] + 2.0 * rows[1] + 3.0 * rows[2]
    np.testing.assert_allclose(as_floats(exact_sums(NOISE, share), share)[1], literal, atol=1e-12)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("weights", [[1e300], [1e-300], [1.0] * 1000, [0.3, -7.0]])
def test_the_greatest_noise_that_there_is_does_not_overflow(power, weights):
    column = np.array(weights)
    bound = float(np.abs(column).sum()) * NOISE_LIMIT**power
    kept = np.ldexp(bound, exponent(column, power))
    assert 2**59 <= kept < 2**62


def test_where_nothing_has_weight_sums_are_zero():
    share = Share.of(np.zeros(3), np.arange(3), {1: np.zeros(3)})
    assert len(share) == 0
    assert not as_floats(exact_sums(NOISE, share), share)[1].any()


def test_a_weight_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="weights of power 1: pair 2 has no number"):
        Share.of(np.zeros(3), np.arange(3), {1: np.array([0.0, 1.0, np.nan])})
