import numpy as np
import pytest

from shoal.rllib import streams


def uniforms(seed, copies, iteration, num_steps=3, count=2):
    return streams.action_streams(seed, copies, iteration).uniforms(num_steps, count)


def test_what_actions_are_drawn_with_is_a_function_of_seed_copy_and_iteration():
    first = uniforms(3, [5], 70)
    assert first.shape == (3, 1, 2)
    np.testing.assert_array_equal(uniforms(3, [5], 70), first)
    for key in ((4, [5], 70), (3, [6], 70), (3, [5], 71)):
        assert not np.isin(uniforms(*key), first).any()
    np.testing.assert_array_equal(uniforms(3, [5], 70, num_steps=2), first[:2])


@pytest.mark.parametrize("shares", [[range(9)], [range(4), range(4, 9)], [[i] for i in range(9)]])
def test_a_copys_numbers_do_not_depend_on_which_copies_are_beside_it(shares):
    joined = np.concatenate([uniforms(0, share, 1) for share in shares], axis=1)
    np.testing.assert_array_equal(joined, uniforms(0, range(9), 1))


def test_the_numbers_are_uniform_and_strangers_to_each_other():
    numbers = uniforms(0, range(64), 0, num_steps=256, count=4)
    assert numbers.min() > 0.0
    assert numbers.max() < 1.0
    counts = np.bincount((numbers.ravel() * 100).astype(int), minlength=100)
    expected = numbers.size / 100
    assert (np.square(counts - expected) / expected).sum() < 149  # chi square, 99 degrees: once in 1000
    centred = numbers - 0.5
    for other in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1], centred[..., 1:] * centred[..., :-1]):
        assert abs(other.mean()) < 4.0 / 12.0 / np.sqrt(other.size)
    later = uniforms(0, range(64), 1, num_steps=256, count=4) - 0.5
    assert abs((centred * later).mean()) < 4.0 / 12.0 / np.sqrt(later.size)
    assert len(np.unique(numbers)) == numbers.size


def test_each_number_is_splitmix64s_written_out():
    mask, key = (1 << 64) - 1, 12345
    given = streams.ActionStreams(np.array([key], np.uint64)).uniforms(2, 3).ravel()
    for i, number in enumerate(given):
        z = (key + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        assert number == ((z >> 12) + 0.5) / 2**52


def test_streams_of_different_purpose_share_no_key():
    seeds = {streams.weight_seed(3), streams.evaluation_seed(3, 0), streams.environment_seeds(3, 0, 0)(0, 0)}
    assert len(seeds) == 3
    keys = {streams.environment_seeds(3, 0, 0).key, int(streams.action_streams(3, [0], 0).keys[0])}
    assert len(keys) == 2


def test_rows_are_shuffled_by_seed_and_iteration():
    orders = {key: streams.minibatch_stream(*key).permutation(100).tolist() for key in ((0, 0), (0, 1), (1, 0))}
    assert streams.minibatch_stream(0, 1).permutation(100).tolist() == orders[0, 1]
    assert len(set(map(tuple, orders.values()))) == 3


def test_each_episode_of_an_evaluation_has_a_seed_of_its_own():
    assert len({streams.evaluation_seed(seed, episode) for seed in range(3) for episode in range(100)}) == 300


def test_copies_made_anew_do_not_repeat_their_episodes():
    made = [streams.environment_seeds(0, at, replaced) for at in range(5) for replaced in range(5)]
    assert len({seeds(copy, episode) for seeds in made for copy in range(3) for episode in range(10)}) == 750
