"""Seeds of episodes: each a function of (key of the run, environment copy, episode number) and of nothing else.

An environment that is seeded at every reset is a function of (seed, actions). So no random state has to be saved, and
what an episode is does not depend on what ran before it, or beside it, or in which process.

The mixer is SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure
16, constants of Stafford's variant 13). ``EpisodeSeeds`` is called for one episode; ``many`` gives the same numbers for
thousands of copies at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: (environment copy, episode number) -> seed of the reset that starts the episode, 0 .. 2**31 - 1.
SeedOfEpisode = Callable[[int, int], int]

#: SplitMix64's step from one number of a stream to the next.
GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(value: int) -> int:
    """64 bits of which each depends on every bit of the value."""
    value = (value + GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def mix_array(values: np.ndarray) -> np.ndarray:
    """``mix`` of each element, uint64."""
    mixed: np.ndarray = values.astype(np.uint64)
    mixed += np.uint64(GOLDEN)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class EpisodeSeeds:
    """The seeds of all episodes of a run."""

    key: int  #: of the run, 64 bits

    def __call__(self, env_index: int, episode: int) -> int:
        """Seed of one episode. 31 bits: the widest that every environment accepts."""
        return mix(mix(self.key ^ int(env_index)) ^ int(episode)) >> 33

    def many(self, env_indices: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Seeds [N] int64 of one episode of each of N copies."""
        keys = mix_array(np.uint64(self.key) ^ env_indices.astype(np.uint64))
        seeds: np.ndarray = (mix_array(keys ^ episodes.astype(np.uint64)) >> np.uint64(33)).astype(np.int64)
        return seeds
