"""The table of segments: its rules one by one, and any order of arrivals against a model that is a list of segments."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from shoal.rllib.rollouts.segment_book import LAG_BUCKETS, SegmentBook


def ask_all(book):
    """Ask everybody who may be asked; who was."""
    asked = []
    while (worker := book.next_to_ask()) is not None:
        asked.append(book.ask(worker))
    return asked


@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    max_in_flight=st.integers(1, 3),
    max_lag=st.none() | st.integers(0, 4),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_every_segment_is_taken_once_in_its_workers_order_within_the_bound_whatever_arrives_when(
    rows, max_in_flight, max_lag, data
):
    book = SegmentBook(rows, max_in_flight=max_in_flight, max_lag=max_lag)
    workers, flying, held, taken, lags = len(rows), [], [], [], []

    def ask():
        flying.extend(ask_all(book))
        of_workers = Counter(segment.worker for segment in flying)
        assert all(of_workers[worker] <= max_in_flight for worker in range(workers))
        if max_lag is None:
            assert len(flying) == workers * max_in_flight

    for version in range(data.draw(st.integers(1, 6))):
        book.publish(version)
        num_rows = data.draw(st.integers(1, 2 * sum(rows)))
        book.begin(num_rows)
        ask()
        # A worker that owes nothing is always at work.
        assert {segment.worker for segment in [*flying, *held]} == set(range(workers))
        while not book.is_full():
            assert flying, "nobody plays, and the batch is not full"
            worker = data.draw(st.sampled_from(sorted({segment.worker for segment in flying})))
            arrived = book.arrive(worker, 1.0)
            assert arrived == next(segment for segment in flying if segment.worker == worker)
            flying.remove(arrived)
            held.append(arrived)
            ask()
        batch = book.take()
        assert sum(rows[segment.worker] for segment in batch) >= num_rows
        oldest_first = sorted(held, key=lambda segment: segment.version)
        assert batch == oldest_first[: len(batch)]
        assert sum(rows[segment.worker] for segment in batch[:-1]) < num_rows or (
            max_lag is not None and version - batch[-1].version >= max_lag
        )
        held = [segment for segment in held if segment not in batch]
        taken += batch
        lags += [version - segment.version for segment in batch]
        if max_lag is not None:
            assert max(lags) <= max_lag
        ask()
        metrics = book.metrics()
        assert (metrics["in_flight"], metrics["held"], metrics["dropped"]) == (len(flying), len(held), 0)
        of_batch = lags[-len(batch) :]
        assert metrics["lag_mean"] == pytest.approx(sum(of_batch) / len(batch))
        assert metrics["lag_max"] == max(of_batch)
    numbers = [segment.number for segment in [*taken, *held, *flying]]
    assert sorted(numbers) == list(range(len(numbers)))
    for worker in range(workers):
        mine = [segment.number for segment in taken if segment.worker == worker]
        assert mine == sorted(mine)
    limits = {"0": (0, 0), "1": (1, 1), "2": (2, 2), "3_to_4": (3, 4), "5_to_8": (5, 8), "9_up": (9, math.inf)}
    assert limits.keys() == LAG_BUCKETS.keys()
    for name, (least, most) in limits.items():
        assert book.metrics()[f"lag_{name}"] == sum(least <= lag <= most for lag in lags)


def test_without_lag_a_batch_is_a_barrier_and_nobody_is_asked_before_the_next_version():
    book = SegmentBook([4, 4], max_in_flight=2, max_lag=0)
    book.begin(8)
    assert [segment.worker for segment in ask_all(book)] == [0, 1]
    book.arrive(1, 1.0)
    assert ask_all(book) == []
    assert not book.is_full()
    book.arrive(0, 1.0)
    assert [segment.worker for segment in book.take()] == [1, 0]
    assert ask_all(book) == []
    book.publish(1)
    assert [segment.version for segment in ask_all(book)] == [1, 1]


def test_a_batch_waits_for_the_laggard_only_when_it_would_be_too_old_for_the_next():
    book = SegmentBook([4, 4], max_lag=2)
    for version in range(3):
        book.publish(version)
        book.begin(4)
        ask_all(book)
        book.arrive(1, 1.0)
        assert book.is_full() == (version < 2)
        if version < 2:
            assert [segment.worker for segment in book.take()] == [1]
    ask_all(book)
    book.arrive(0, 20.0)
    assert book.is_full()
    assert [segment.version for segment in book.take()] == [0]  # the oldest is first; the other one waits
    assert book.metrics()["held"] == 1
    assert book.metrics()["lag_max"] == 2


def test_the_straggler_ratio_is_the_slowest_workers_mean_over_the_median_ones():
    book = SegmentBook([1, 1, 1])
    assert math.isnan(book.metrics()["straggler_ratio"])
    book.begin(3)
    for worker, seconds in ((0, 1.0), (1, 2.0), (2, 30.0), (2, 50.0)):
        book.ask(worker)
        book.arrive(worker, seconds)
    assert book.metrics()["straggler_ratio"] == 20.0


def test_all_that_is_held_can_be_taken_in_the_order_of_arrival():
    book = SegmentBook([1, 1, 1])
    ask_all(book)
    for worker in (2, 0):
        book.arrive(worker, 1.0)
    book.publish(7)
    assert [segment.worker for segment in book.take_all()] == [2, 0]
    assert book.metrics()["lag_5_to_8"] == 2
    assert book.take_all() == []
    assert math.isnan(book.metrics()["lag_mean"])


def test_what_cannot_be_is_refused():
    book = SegmentBook([1, 1], max_lag=1)
    with pytest.raises(ValueError, match="worker 0 arrived that nobody asked for"):
        book.arrive(0, 1.0)
    with pytest.raises(ValueError, match="version 1 follows 0 without a batch in between"):
        book.publish(1)
    with pytest.raises(ValueError, match="at least 1 row, not 0"):
        book.begin(0)
    book.begin(1)
    book.ask(0)
    with pytest.raises(ValueError, match="worker 0 may not be asked now: 1 in flight"):
        book.ask(0)
    book.arrive(0, 1.0)
    book.take()
    with pytest.raises(ValueError, match="version 2 follows 0 while segments may lag by 1"):
        book.publish(2)
    book.publish(1)
    with pytest.raises(ValueError, match="version 0 is older than the newest, 1"):
        book.publish(0)
    with pytest.raises(ValueError, match="max_in_flight must be at least 1, not 0"):
        SegmentBook([1], max_in_flight=0)
    with pytest.raises(ValueError, match="max_lag must be None or at least 0, not -1"):
        SegmentBook([1], max_lag=-1)
