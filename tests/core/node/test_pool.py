"""Which worker processes exist and what they are doing."""

from __future__ import annotations

import signal

import pytest

from shoal.core.lifecycle import InvalidTransition
from shoal.core.node.pool import WorkerPool, describe_status, was_sent

ONE, TWO, THREE = b"1" * 12, b"2" * 12, b"3" * 12


def pool_of(*workers: bytes) -> WorkerPool:
    pool = WorkerPool()
    for worker in workers:
        pool.started(worker)
        pool.registered(worker, 0.0)
    return pool


def test_the_worker_that_ran_last_is_taken_first():
    pool = pool_of(ONE, TWO)
    assert pool.take_idle() == TWO
    pool.put_back(TWO, 1.0)
    assert pool.take_idle() == TWO
    assert pool.take_idle() == ONE
    assert pool.take_idle() is None


def test_a_worker_counts_as_starting_until_it_registers_or_dies():
    pool = WorkerPool()
    pool.started(ONE)
    pool.started(TWO)
    assert pool.starting() == 2
    pool.registered(ONE, 0.0)
    assert pool.starting() == 1
    assert pool.reaped(TWO).life.state == "DEAD"
    assert pool.starting() == 0
    assert pool.reaped(TWO) is None


def test_surplus_workers_leave_when_they_have_been_idle_long_enough():
    pool = pool_of(ONE, TWO, THREE)
    pool.take_idle()
    pool.put_back(THREE, 10.0)
    assert pool.surplus(keep=1, idle_before_s=5.0) == [ONE, TWO]
    assert pool.take_idle() == THREE
    assert pool.take_idle() is None
    pool.put_back(ONE, 11.0)  # on its way out: it gets no more work
    assert pool.take_idle() is None


def test_a_worker_that_was_not_taken_cannot_be_put_back():
    with pytest.raises(InvalidTransition, match="returned"):
        pool_of(ONE).put_back(ONE, 1.0)


def test_a_wait_status_reads_as_signal_or_code():
    assert describe_status(signal.SIGKILL) == "signal SIGKILL (9)"
    assert describe_status(3 << 8) == "exit code 3"


def test_a_worker_serves_only_its_environment():
    pool = pool_of(ONE)
    pool.started(TWO, b"other")
    assert (pool.starting(), pool.starting(b"other")) == (0, 1)
    pool.registered(TWO, 0.0)
    assert pool.take_idle(b"third") is None
    assert pool.take_idle(b"other") == TWO
    assert pool.take_idle() == ONE


def test_idle_workers_make_room_for_those_of_another_environment():
    pool = pool_of(ONE, TWO)
    assert pool.displaced(b"other", fresh=1, keep=3) == []
    assert pool.displaced(b"other", fresh=1, keep=2) == [ONE], "the one that has been idle longest"
    assert pool.displaced(b"", fresh=5, keep=0) == [], "they are of the environment that is wanted"
    assert pool.take_idle() == TWO
    assert pool.take_idle() is None


def test_failed_starts_are_counted_by_environment_until_one_comes_up():
    pool = WorkerPool()
    for worker in (ONE, TWO):
        pool.started(worker, b"bad")
        pool.reaped(worker)
    assert (pool.failed_starts(b"bad"), pool.failed_starts(b"")) == (2, 0)
    pool.started(THREE, b"bad")
    assert pool.is_starting(THREE)
    pool.registered(THREE, 0.0)
    assert not pool.is_starting(THREE)
    assert pool.failed_starts(b"bad") == 0
    pool.reaped(THREE)
    assert pool.failed_starts(b"bad") == 0, "it had started"


def test_starts_that_somebody_else_ends_are_counted_apart():
    pool = WorkerPool()
    for worker in (ONE, TWO):
        pool.started(worker)
    pool.reaped(ONE, interrupted=True)
    pool.reaped(TWO)
    assert (pool.interrupted_starts(b""), pool.failed_starts(b"")) == (1, 1)
    pool.started(THREE)
    pool.registered(THREE, 0.0)
    assert (pool.interrupted_starts(b""), pool.failed_starts(b"")) == (0, 0)
    pool.reaped(THREE, interrupted=True)
    assert pool.interrupted_starts(b"") == 0, "it had started"


def test_a_fault_of_the_process_itself_was_sent_by_nobody():
    assert was_sent(signal.SIGKILL)
    assert was_sent(signal.SIGTERM)
    assert not was_sent(signal.SIGSEGV)
    assert not was_sent(signal.SIGABRT)
    assert not was_sent(9 << 8), "exit code 9"


def test_work_that_needs_a_new_process_gets_none_that_has_worked():
    pool = pool_of(ONE, TWO)
    assert pool.take_idle() == TWO
    pool.put_back(TWO, 1.0)
    assert pool.take_idle(unused=True) == ONE
    assert pool.take_idle(unused=True) is None
    assert pool.take_idle() == TWO


def test_a_retired_worker_never_works_again_and_is_there_until_it_leaves():
    pool = pool_of(ONE)
    pool.take_idle()
    pool.retire(ONE)
    assert pool.is_retired(ONE)
    pool.put_back(ONE, 1.0)
    pool.stays(ONE, 2.0)
    assert pool.take_idle() is None
    assert ONE in pool
    pool.reaped(ONE)
    assert not pool.is_retired(ONE)


def test_a_worker_that_is_being_killed_is_given_to_nobody():
    """The owner of a lease may return it while the worker is being killed: the next one would lose its work."""
    pool = pool_of(ONE, TWO)
    pool.retire(TWO)
    assert pool.take_idle() == ONE
    pool.retire(ONE)
    pool.put_back(ONE, 1.0)
    pool.started(THREE)
    pool.retire(THREE)
    pool.registered(THREE, 2.0)
    assert pool.take_idle() is None
    assert pool.starting() == 0
    for worker in (ONE, TWO, THREE):
        pool.reaped(worker)
    assert list(pool) == []
