"""as_completed and map_unordered: order within chunks, bounds, errors."""

from __future__ import annotations

import itertools
import time

import pytest

import shoal
from shoal.util import as_completed, map_unordered

DEADLINE_S = 30


@shoal.remote
def identity(value):
    return value


@shoal.remote(num_cpus=0)
def after(seconds):
    time.sleep(seconds)
    return seconds


@shoal.remote(num_cpus=0)
def once_there_is(path):
    ends = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.01)
    return 1


@shoal.remote
def fail_if_three(value):
    if value == 3:
        raise ValueError("three")
    return value


@pytest.fixture(scope="module", autouse=True)
def four_warm_workers(session):
    """So that a worker's start does not look like a slow task."""
    shoal.get([after.remote(0.1) for _ in range(4)], timeout=DEADLINE_S)


def test_results_come_as_they_are_ready():
    refs = [after.remote(seconds) for seconds in (0.6, 0.0, 0.3)]
    assert list(as_completed(refs, chunk_size=1)) == [0.0, 0.3, 0.6]


def test_within_a_chunk_the_order_is_that_of_submission():
    refs = [after.remote(seconds) for seconds in (0.2, 0.0, 0.1)]
    assert list(as_completed(refs, chunk_size=3)) == [0.2, 0.0, 0.1]
    assert list(as_completed(refs, chunk_size=100)) == [0.2, 0.0, 0.1]


def test_refs_can_be_had_instead_of_values_and_failed_ones_raise_nothing():
    refs = [fail_if_three.remote(value) for value in range(5)]
    assert set(as_completed(tuple(refs), chunk_size=2, yield_obj_refs=True)) == set(refs)


def test_what_is_ready_before_a_failure_is_not_lost_with_it():
    results = as_completed([fail_if_three.remote(value) for value in range(5)], chunk_size=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_nothing_in_nothing_out():
    assert list(as_completed([])) == []
    assert list(map_unordered(identity, [])) == []


def test_a_chunk_comes_smaller_when_its_time_is_over(tmp_path):
    quick, slow = identity.remote(0), once_there_is.remote(tmp_path / "go")
    shoal.get(quick, timeout=DEADLINE_S)
    results = as_completed([quick, slow], chunk_size=2, timeout=0.5)
    assert next(results) == 0
    (tmp_path / "go").touch()
    assert list(results) == [1]


def test_map_unordered_gives_every_result_once():
    assert sorted(map_unordered(identity, range(57), backpressure_size=8, chunk_size=3)) == list(range(57))
    assert sorted(map_unordered(identity.options(num_cpus=0), range(20), backpressure_size=None)) == list(range(20))


def test_map_unordered_reads_no_further_ahead_than_its_bound():
    read = []

    def items():
        for item in itertools.count():
            read.append(item)
            yield item

    results = map_unordered(identity, items(), backpressure_size=4, chunk_size=2)
    assert read == []
    for taken in range(1, 20):
        next(results)
        assert len(read) <= taken + 4


def test_sizes_are_checked_at_the_call():
    for call in (lambda: as_completed([], chunk_size=0), lambda: map_unordered(identity, [], chunk_size=0)):
        with pytest.raises(ValueError, match="chunk_size"):
            call()
    with pytest.raises(ValueError, match="backpressure_size"):
        map_unordered(identity, [], backpressure_size=0)
