import math

import numpy as np
import pytest

from shoal.rllib.evolution.noise import NOISE_LIMIT, PhiloxNoise, TableNoise, hashed, noise_table

TABLE = noise_table(7, 100_000)


def noises(seed, size):
    return [TableNoise(TABLE, seed=seed, size=size), PhiloxNoise(seed=seed, size=size)]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_row_depends_on_seed_generation_and_index_alone(kind):
    noise = noises(3, 33)[kind]
    together = noise.rows(5, np.array([9, 0, 2**31, 4]))
    assert together.shape == (4, 33)
    assert together.dtype == np.float32
    for place, index in enumerate([9, 0, 2**31, 4]):
        np.testing.assert_array_equal(noises(3, 33)[kind].rows(5, [index])[0], together[place])
    for other in (noises(4, 33)[kind].rows(5, [9]), noise.rows(6, [9]), noise.rows(5, [8])):
        assert not np.array_equal(other[0], together[0])


@pytest.mark.parametrize("kind", [0, 1])
def test_rows_are_standard_normal_and_within_the_limit(kind):
    rows = noises(1, 500)[kind].rows(0, range(2000))
    assert abs(rows.mean()) < 0.02
    assert abs(rows.std() - 1.0) < 0.02
    assert abs((np.abs(rows) < 1.0).mean() - math.erf(math.sqrt(0.5))) < 0.01
    assert np.abs(rows).max() <= NOISE_LIMIT


def test_rows_of_philox_are_uncorrelated_between_pairs_and_between_generations():
    noise = PhiloxNoise(seed=1, size=20_000)
    rows = np.concatenate([noise.rows(generation, range(4)) for generation in (0, 1)])
    np.testing.assert_allclose(np.corrcoef(rows), np.eye(8), atol=0.04)


def test_a_slice_of_the_table_is_handed_out_as_a_copy_of_the_numbers_at_its_offset():
    noise = TableNoise(TABLE, seed=2, size=10)
    (offset,) = noise.offsets(1, [5])
    rows = noise.rows(1, [5])
    np.testing.assert_array_equal(rows[0], TABLE[offset : offset + 10])
    rows[:] = 0.0
    assert TABLE[offset] != 0.0


def test_offsets_reach_the_whole_table_evenly():
    offsets = TableNoise(TABLE, seed=2, size=1).offsets(0, np.arange(20_000))
    shares = np.histogram(offsets, bins=10, range=(0, len(TABLE)))[0] / len(offsets)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert TableNoise(TABLE, seed=0, size=len(TABLE)).offsets(3, [0, 1]).tolist() == [0, 0]


def test_a_table_is_a_function_of_its_seed_and_read_only():
    np.testing.assert_array_equal(noise_table(7, 1000), TABLE[:1000])
    assert not np.array_equal(noise_table(8, 1000), TABLE[:1000])
    with pytest.raises(ValueError, match="read-only"):
        TABLE[0] = 1.0


def test_words_are_splitmix64_of_the_three_numbers():
    def mixed(word):
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    expected = [mixed(mixed(mixed((11 + 0x9E3779B97F4A7C15) % 2**64) ^ 5) ^ index) for index in (0, 1, 2**40)]
    assert hashed(11, 5, [0, 1, 2**40]).tolist() == expected


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="100,000 numbers of noise is too short for vectors of 100,001"):
        TableNoise(TABLE, seed=0, size=100_001)
    with pytest.raises(ValueError, match="seed -1"):
        PhiloxNoise(seed=-1, size=1)
    with pytest.raises(ValueError, match="got -1 and 5"):
        noise_table(-1, 5)
