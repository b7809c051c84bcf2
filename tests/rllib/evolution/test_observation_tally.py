"""Moments of observations, counted in lanes."""

import numpy as np

from shoal.rllib.evolution.observation_tally import ObservationTally, as_moments
from shoal.rllib.policies.normalization import ObservationMoments, ObservationNormalizer

SHAPES = {"a": (3,), "b": (2, 2)}


def test_a_blocks_moments_are_those_of_all_its_observations():
    rng = np.random.default_rng(0)
    tally = ObservationTally(SHAPES, 2)
    tally.shift({name: ObservationNormalizer(np.full(shape, 5.0), np.ones(shape)) for name, shape in SHAPES.items()})
    rows = {name: 5.0 + rng.standard_normal((2, 9, *shape)) for name, shape in SHAPES.items()}
    for lane in (0, 1):
        tally.begin(lane)
    sums = {}
    for t in range(9):
        tally.add({name: column[:, t] for name, column in rows.items()})
        if t == 3:  # the episode in lane 0 is over, and another one begins there
            sums["short"] = tally.taken(0)
            tally.begin(0)
    sums["rest"], sums["other"] = tally.taken(0), tally.taken(1)
    told = tally.moments(18, sums["short"] + sums["rest"] + sums["other"])
    assert told.shape == (1 + 2 * (3 + 4),)
    merged, expected = ObservationMoments(SHAPES), ObservationMoments(SHAPES)
    merged.merge(as_moments(told, SHAPES))
    expected.update(rows)
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(merged.arrays()[name], array, rtol=1e-12, err_msg=name)
