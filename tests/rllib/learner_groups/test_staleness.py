"""Which minibatch may be handed out, against the literal rule; how stale gradients were."""

import pytest
from hypothesis import given, strategies as st

from shoal.rllib.learner_groups.staleness import StalenessHistogram, Window


@given(st.integers(1, 4), st.integers(0, 3), st.lists(st.integers(0, 5), max_size=60))
def test_a_minibatch_is_handed_out_when_all_but_the_last_rounds_are_in(learners, tau, choices):
    window, out, next_number = Window(learners * (tau + 1)), [], 0
    for choice in choices:
        may = all(number > next_number - learners * (tau + 1) for number in out)
        assert window.is_open == may
        if choice and out:
            window.take_in(out.pop(choice % len(out)))
        elif may:
            assert window.hand_out() == next_number
            out.append(next_number)
            next_number += 1


def test_without_a_bound_it_is_always_open_and_with_one_it_refuses():
    unbounded, bounded = Window(None), Window(2)
    assert [unbounded.hand_out() for _ in range(50)] == list(range(50))
    assert [bounded.hand_out(), bounded.hand_out()] == [0, 1]
    with pytest.raises(RuntimeError, match="minibatch 2 must wait for minibatch 0"):
        bounded.hand_out()
    bounded.take_in(1)
    assert not bounded.is_open
    bounded.take_in(0)
    assert bounded.hand_out() == 2


def test_the_histogram_counts_in_bins_that_widen():
    histogram = StalenessHistogram()
    for staleness in (0, 0, 1, 2, 3, 4, 5, 8, 9, 400):
        histogram.add(staleness)
    assert list(histogram.counters().values()) == [2, 1, 1, 2, 2, 2]
    assert list(histogram.counters()) == [f"staleness_{each}" for each in ("0", "1", "2", "3_4", "5_8", "9_or_more")]
