"""Random streams, each a function of (seed, purpose, counters) and of nothing else.

No generator made here lives longer than the call that uses it, so there is no random state to save, to send, or to lose
with a worker: environment copy 5 draws the same action noise in iteration 70 whichever worker holds it, whether that
worker was replaced, and whether the run was resumed in between. That is why results do not depend on the number of
workers. What an environment itself draws comes from a generator of its own, which is seeded from here for each episode.

Purposes are separated by a number of their own, so that two streams never share a key by accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..envs.seeds import GOLDEN, EpisodeSeeds, mix_array

_ENVIRONMENT, _EVALUATION, _ACTIONS, _MINIBATCHES, _WEIGHTS, _PAIRS, _CENTRE, _CANDIDATE = range(1, 9)


def environment_seeds(seed: int, resumed_at: int, replacement: int) -> EpisodeSeeds:
    """Seeds of the training episodes: (copy, episode number) -> seed. A copy that is made anew must not repeat its
    episodes, so the key tells the iteration at which the run was resumed, and how often the copy's worker was replaced.
    """
    return EpisodeSeeds(int(_sequence(seed, _ENVIRONMENT, resumed_at, replacement).generate_state(1, np.uint64)[0]))


def evaluation_seed(seed: int, episode: int) -> int:
    """Seed of the reset that starts an evaluation episode."""
    return _integer(seed, _EVALUATION, episode)


@dataclass(frozen=True)
class ActionStreams:
    """What the actions of some copies are sampled with during one rollout.

    Numbers by counter: SplitMix64 (see ``envs/seeds.py``) from a start of its own for each copy, for all copies in one
    pass. A ``Generator`` for each copy takes 25 us to make, which for thousands of copies is as long as the rollout.
    """

    keys: np.ndarray  #: [B] uint64, by copy

    def uniforms(self, num_steps: int, count: int) -> np.ndarray:
        """Numbers in (0, 1), ``count`` for each step of each copy, [T, B, count] float64 with 52 bits each."""
        counters = np.arange(num_steps * count, dtype=np.uint64).reshape(num_steps, 1, count)
        bits = mix_array(self.keys[:, None] + counters * np.uint64(GOLDEN))
        # Half a step away from both ends.
        numbers: np.ndarray = ((bits >> np.uint64(12)) + 0.5) * 2.0**-52
        return numbers


def action_streams(seed: int, env_indices: Sequence[int], iteration: int) -> ActionStreams:
    """What the actions of these copies are sampled with during one rollout: each copy's a function of (seed, copy,
    iteration) alone.
    """
    key = _sequence(seed, _ACTIONS, iteration).generate_state(1, np.uint64)
    return ActionStreams(mix_array(key ^ np.array(env_indices, np.uint64)))


def minibatch_stream(seed: int, iteration: int) -> np.random.Generator:
    """What the learner shuffles one iteration's samples with."""
    return _generator(seed, _MINIBATCHES, iteration)


def pair_seeds(seed: int) -> EpisodeSeeds:
    """Seeds of the episodes in which evolution strategies try pairs: (pair, generation) -> seed."""
    return EpisodeSeeds(int(_sequence(seed, _PAIRS).generate_state(1, np.uint64)[0]))


def centre_seeds(seed: int) -> EpisodeSeeds:
    """Seeds of the episodes of the centre in each generation: (number, generation) -> seed."""
    return EpisodeSeeds(int(_sequence(seed, _CENTRE).generate_state(1, np.uint64)[0]))


def candidate_noise_stream(seed: int, generation: int, pair: int, sign: int, again: int) -> np.random.Generator:
    """What the actions of one episode of a candidate are disturbed with.

    Args:
      seed: The run's.
      generation, pair, sign: Of the candidate.
      again: Number of the episode among those of this candidate.
    """
    return _generator(seed, _CANDIDATE, generation, pair, sign, again)


def weight_seed(seed: int) -> int:
    """Seed of the weights' initialisation."""
    return _integer(seed, _WEIGHTS)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_sequence(*key)))


def _integer(*key: int) -> int:
    # 31 bits: the widest that every environment accepts as a seed.
    return int(_sequence(*key).generate_state(1)[0] >> 1)


def _sequence(*key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(key)
