"""Memory of what killed processes owned comes back, and not before the last reader lets go. With real processes."""

from __future__ import annotations

import gc
import os
import signal
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.core.engines.current import engine
from shoal.core.runtime.questions import Question

DEADLINE_S = 30
MIB = 1 << 20
STORE_BYTES = 128 * MIB


@pytest.fixture(autouse=True)
def session():
    shoal.init(num_cpus=4, object_store_memory=STORE_BYTES)
    yield
    shoal.shutdown()


@shoal.remote
def make(megabytes, value):
    return np.full(megabytes * MIB, value, np.uint8)


@shoal.remote(num_cpus=0)
class Owner:
    def pid(self):
        return os.getpid()

    def put(self, sizes):
        return [shoal.put(np.full(megabytes * MIB, megabytes, np.uint8)) for megabytes in sizes]

    def submit(self, sizes):
        """Results of tasks lie where the tasks ran."""
        self.refs = [make.remote(megabytes, 9) for megabytes in sizes]
        shoal.wait(self.refs, num_returns=len(sizes))
        return self.refs

    def keep(self, holder):
        self.refs = [shoal.put(np.full(3 * MIB, 5, np.uint8)), shoal.put(np.full(20 * MIB, 5, np.uint8))]
        shoal.get(holder.read.remote(*self.refs))

    def start(self, reader):
        self.items = reader.make.remote(12)
        return next(self.items)


@shoal.remote(num_cpus=0)
class Reader:
    def __init__(self):
        self.arrays = []

    def make(self, count):
        for _ in range(count):
            yield np.zeros(10 * MIB, np.uint8)
            time.sleep(0.1)

    def read(self, *arrays):
        self.arrays = arrays

    def sum(self):
        return [int(array.sum()) for array in self.arrays]

    def forget(self):
        self.arrays = []


def kill(actor):
    os.kill(shoal.get(actor.pid.remote(), timeout=DEADLINE_S), signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get([actor.pid.remote() for _ in range(2)], timeout=DEADLINE_S)


def fits(megabytes):
    """Whether the store has room in one piece, within a moment."""
    deadline = time.monotonic() + 5
    while True:
        try:
            ref = shoal.put(np.full(megabytes * MIB, 1, np.uint8))
        except exceptions.ObjectStoreFullError:
            if time.monotonic() > deadline:
                return False
        else:
            return bool(shoal.get(ref)[-1] == 1)


def orphaned_megabytes():
    """Size of the regions whose holder is dead."""
    return engine().survey(Question("store")).facts[0]["orphaned_bytes"] // MIB


def eventually_no_orphans():
    deadline = time.monotonic() + 10
    while orphaned := orphaned_megabytes():
        assert time.monotonic() < deadline, f"{orphaned} MiB"
        time.sleep(0.02)


@pytest.mark.parametrize(("method", "sizes"), [("put", [1, 2, 3, 20, 30]), ("submit", [20, 30, 30])])
def test_what_nobody_reads_comes_back_when_its_owner_is_killed(method, sizes):
    owner = Owner.remote()
    refs = shoal.get(getattr(owner, method).remote(sizes), timeout=DEADLINE_S)
    assert not fits_now(80)
    kill(owner)
    with pytest.raises(exceptions.OwnerDiedError):
        shoal.get(refs[0], timeout=DEADLINE_S)
    assert fits(80)


def test_small_results_in_slabs_of_the_living_are_freed_by_those():
    for _ in range(6):  # together more than the store has
        owner = Owner.options(max_restarts=0).remote()
        shoal.get(owner.submit.remote([1] * 25), timeout=DEADLINE_S)
        kill(owner)


def fits_now(megabytes):
    try:
        shoal.put(np.empty(megabytes * MIB, np.uint8))
    except exceptions.ObjectStoreFullError:
        return False
    return True


@pytest.mark.parametrize(("method", "sizes"), [("put", [1, 5, 60]), ("submit", [30, 40])])
def test_what_is_read_stays_until_it_is_let_go(method, sizes):
    owner = Owner.remote()
    refs = shoal.get(getattr(owner, method).remote(sizes), timeout=DEADLINE_S)
    arrays = shoal.get(refs, timeout=DEADLINE_S)
    sums = [int(array.sum()) for array in arrays]
    kill(owner)
    others = [shoal.put(np.zeros(3 * MIB, np.uint8)) for _ in range(5)]
    assert [int(array.sum()) for array in arrays] == sums
    assert [int(array.sum()) for array in shoal.get(refs, timeout=DEADLINE_S)] == sums, "copies that are here stay"
    del others
    assert not fits_now(70)
    del arrays, refs
    gc.collect()
    assert fits(70)


def test_a_reader_in_another_process_keeps_what_it_got_as_an_argument():
    owner, reader = Owner.remote(), Reader.remote()
    shoal.get(owner.keep.remote(reader), timeout=DEADLINE_S)
    sums = [5 * 3 * MIB, 5 * 20 * MIB]
    assert shoal.get(reader.sum.remote(), timeout=DEADLINE_S) == sums
    kill(owner)
    assert not fits_now(110)
    others = [shoal.put(np.zeros(3 * MIB, np.uint8)) for _ in range(10)]
    assert shoal.get(reader.sum.remote(), timeout=DEADLINE_S) == sums
    del others
    assert orphaned_megabytes()
    shoal.get(reader.forget.remote(), timeout=DEADLINE_S)
    eventually_no_orphans()


def test_results_that_are_made_for_the_dead_are_dropped():
    owner, reader = Owner.remote(), Reader.remote()
    shoal.get(owner.start.remote(reader), timeout=DEADLINE_S)
    kill(owner)
    assert shoal.get(reader.sum.remote(), timeout=DEADLINE_S) == [], "the generator has ended"
    assert fits(110)


def test_readers_that_die_let_go():
    owner, reader = Owner.remote(), Reader.remote()
    shoal.get(owner.keep.remote(reader), timeout=DEADLINE_S)
    kill(owner)
    assert shoal.get(reader.sum.remote(), timeout=DEADLINE_S) == [5 * 3 * MIB, 5 * 20 * MIB]
    shoal.kill(reader)
    eventually_no_orphans()


def test_a_value_of_a_dead_owner_can_be_passed_on_by_who_reads_it():
    owner, reader = Owner.remote(), Reader.remote()
    refs = shoal.get(owner.put.remote([2, 30]), timeout=DEADLINE_S)
    arrays = shoal.get(refs, timeout=DEADLINE_S)
    kill(owner)
    shoal.get(reader.read.remote(*refs), timeout=DEADLINE_S)
    del arrays, refs
    gc.collect()
    others = [shoal.put(np.zeros(3 * MIB, np.uint8)) for _ in range(10)]
    assert shoal.get(reader.sum.remote(), timeout=DEADLINE_S) == [2 * 2 * MIB, 30 * 30 * MIB]
    del others
    assert orphaned_megabytes()
    shoal.get(reader.forget.remote(), timeout=DEADLINE_S)
    eventually_no_orphans()
