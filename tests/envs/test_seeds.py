import numpy as np

from shoal.envs.seeds import EpisodeSeeds, mix


def test_many_seeds_at_once_are_the_seeds_one_by_one():
    seeds = EpisodeSeeds(0xFEDCBA9876543210)
    copies, episodes = np.meshgrid(np.arange(50), np.arange(20))
    at_once = seeds.many(copies.ravel(), episodes.ravel())
    assert at_once.tolist() == [seeds(i, k) for i, k in zip(copies.ravel(), episodes.ravel(), strict=True)]
    assert at_once.min() >= 0
    assert at_once.max() < 2**31


def test_the_mixer_is_splitmix64():
    """The first three numbers of the published generator for seed 1234567."""
    golden = 0x9E3779B97F4A7C15
    assert [mix((1234567 + k * golden) % 2**64) for k in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_copies_and_episodes_have_seeds_of_their_own():
    seeds = EpisodeSeeds(7)
    assert len({seeds(i, k) for i in range(100) for k in range(100)}) > 9_990
    assert EpisodeSeeds(8)(0, 0) != seeds(0, 0)
