"""What is learned of batches: exact where they follow a line, sensible where they tell too little."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.rllib.inference.batch_times import BatchTimes


def observed(pairs):
    times = BatchTimes()
    for rows, seconds in pairs:
        times.observe(rows, seconds)
    return times


def test_nothing_takes_time_before_anything_was_seen():
    times = BatchTimes()
    assert times.seconds(100) == 0.0
    assert times.rows_within(0.0) == math.inf


@given(
    fixed_s=st.floats(0.0, 1.0),
    slope_s=st.floats(1e-4, 0.1),
    sizes=st.lists(st.integers(1, 500), min_size=2, max_size=60).filter(lambda sizes: len(set(sizes)) > 1),
)
@settings(deadline=None)
def test_a_line_is_found(fixed_s, slope_s, sizes):
    times = observed([(rows, fixed_s + slope_s * rows) for rows in sizes])
    assert times.seconds(1000) == pytest.approx(fixed_s + slope_s * 1000, rel=1e-6)
    assert times.fixed_s == pytest.approx(fixed_s, abs=1e-6)
    assert times.rows_within(fixed_s + 37 * slope_s) == pytest.approx(37, abs=1e-2)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.0, 10.0)), min_size=1, max_size=40))
@settings(deadline=None)
def test_it_is_the_weighted_least_squares_of_all_batches_kept_from_negative_numbers(pairs):
    times = observed(pairs)
    rows, seconds = np.array(pairs, np.float64).T
    weights = 0.97 ** np.arange(len(pairs))[::-1]
    weights /= weights.sum()
    mean_rows, mean_seconds = weights @ rows, weights @ seconds
    variance = weights @ (rows - mean_rows) ** 2
    slope = weights @ ((rows - mean_rows) * (seconds - mean_seconds)) / variance if variance > 1e-9 else 0.0
    slope = min(max(slope, 0.0), mean_seconds / mean_rows)
    assert times.slope_s == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert times.seconds(10) == pytest.approx(mean_seconds + slope * (10 - mean_rows), rel=1e-6, abs=1e-6)
    assert times.fixed_s >= -1e-9


def test_surprises_are_counted_when_there_is_something_to_expect():
    line = [(rows, 0.005 + 0.001 * rows) for rows in (1, 50, 100, 20)]
    assert observed(line).surprise_s == 0.0
    times = observed([*line, (10, 0.015 + 0.002)])
    assert times.surprise_s == pytest.approx(0.002)
    assert observed([*line, (10, 0.013)] + line * 50).surprise_s < 0.0002


def test_batches_of_one_size_have_a_time_and_no_slope():
    times = observed([(8, 0.01)] * 5)
    assert (times.fixed_s, times.slope_s) == (pytest.approx(0.01), 0.0)
    assert times.rows_within(0.02) == math.inf
    assert times.rows_within(0.005) == 0.0


def test_what_has_changed_is_learned_anew():
    times = observed([(rows, 1.0 + rows) for rows in range(1, 50)] + [(rows, 0.1 * rows) for rows in range(1, 200)])
    assert times.seconds(100) == pytest.approx(10.0, rel=0.1)
