"""Workers that are killed between making a large result and telling of it leave no memory behind. With processes."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.core.runtime.holdings import Holdings

DEADLINE_S = 30
MIB = 1 << 20
STORE_BYTES = 128 * MIB
PIECE_BYTES = 9 * MIB
PIECES = 8  #: what fits beside one warm slab of 32 MiB, and not when another is lost


def die_after_keeping(count):
    """From here on this process is killed as soon as it has sealed `count` results more."""
    keep, left = Holdings.keep, [count]

    def keep_and_die(self, serialized, owner):
        value = keep(self, serialized, owner)
        left[0] -= value.stored
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    Holdings.keep = keep_and_die


def fill():
    """Put what fits only into a store that is free, but for the driver's own slab."""
    refs = [shoal.put(np.ones(PIECE_BYTES, np.uint8)) for _ in range(PIECES)]
    return sum(int(array[::MIB].sum()) for array in shoal.get(refs))


@pytest.fixture(autouse=True, params=["unix", "zmq"])
def session(request, monkeypatch):
    monkeypatch.setenv("SHOAL_CARRIER", request.param)
    shoal.init(num_cpus=2, object_store_memory=STORE_BYTES)
    yield
    shoal.shutdown()


@shoal.remote(max_retries=0)
def untold(nbytes):
    die_after_keeping(1)
    return np.ones(nbytes, np.uint8)


@pytest.mark.parametrize("nbytes", [200_000, 20 * MIB])
def test_sealed_results_that_were_never_told_come_back(nbytes):
    for _ in range(50 if nbytes < MIB else 12):
        with pytest.raises(exceptions.WorkerCrashedError):
            shoal.get(untold.remote(nbytes), timeout=DEADLINE_S)
    assert fill() == 72


@shoal.remote(max_retries=0)
def yield_and_die(told, nbytes, taken):
    for index in range(told):
        yield np.full(nbytes, index, np.uint8)
    deadline = time.monotonic() + DEADLINE_S
    while not os.path.exists(taken) and time.monotonic() < deadline:
        time.sleep(0.005)
    die_after_keeping(1)
    yield np.full(nbytes, 99, np.uint8)


@pytest.mark.parametrize("nbytes", [200_000, 9 * MIB])
def test_items_that_were_told_stay_right_and_the_last_comes_back(nbytes, tmp_path):
    for number in range(3 if nbytes < MIB else 8):
        taken = tmp_path / str(number)
        stream = yield_and_die.options(num_returns="streaming").remote(3, nbytes, str(taken))
        arrays = [shoal.get(next(stream), timeout=DEADLINE_S) for _ in range(3)]
        taken.touch()
        with pytest.raises(exceptions.WorkerCrashedError):
            shoal.get(next(stream), timeout=DEADLINE_S)
        del stream
        others = [shoal.put(np.full(nbytes, 77, np.uint8)) for _ in range(4)]  # into what has come free
        for index, array in enumerate(arrays):
            assert (array == index).all()
        del others, arrays, array
    assert fill() == 72


@shoal.remote(num_cpus=0, max_restarts=-1)
class Maker:
    def make(self, value, nbytes):
        return np.full(nbytes, value, np.uint8)

    def make_and_die(self, nbytes):
        die_after_keeping(2)
        return np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)


@shoal.remote(num_cpus=0)
class Borrower:
    def borrow(self, refs):
        self.refs = refs

    def sum(self):
        return int(shoal.get(self.refs[0], timeout=DEADLINE_S).sum())


def test_what_a_dead_actor_has_told_is_read_on_by_borrowers_while_the_untold_is_freed():
    borrower = Borrower.remote()
    for number in range(4):
        maker = Maker.remote()
        ref = maker.make.remote(number, 500_000)
        unread = maker.make.remote(number, 500_000)
        shoal.get(borrower.borrow.remote([ref]), timeout=DEADLINE_S)
        shoal.wait([unread], timeout=DEADLINE_S)
        del ref  # the borrower alone has it now
        with pytest.raises(exceptions.ActorUnavailableError):
            shoal.get(maker.make_and_die.options(num_returns=2).remote(6 * MIB), timeout=DEADLINE_S)
        fresh = [shoal.put(np.full(6 * MIB, 99, np.uint8)) for _ in range(3)]
        assert shoal.get(borrower.sum.remote(), timeout=DEADLINE_S) == number * 500_000
        assert shoal.get(unread, timeout=DEADLINE_S).sum() == number * 500_000
        del fresh, unread
        shoal.kill(maker)


@shoal.remote(num_cpus=0)
class Nested:
    """An owner that is itself a worker."""

    def run(self, count):
        for _ in range(count):
            with pytest.raises(exceptions.WorkerCrashedError):
                shoal.get(untold.remote(200_000), timeout=DEADLINE_S)
        return count


def test_owners_in_workers_get_theirs_back_too():
    nested = Nested.remote()
    assert shoal.get(nested.run.remote(8), timeout=2 * DEADLINE_S) == 8
    assert fill() == 72


def test_a_task_that_is_run_again_after_an_untold_result_gives_its_result(tmp_path):
    @shoal.remote(max_retries=3)
    def twice(path):
        if not os.path.exists(path):
            with open(path, "w", encoding="ascii"):
                pass
            die_after_keeping(1)
        return np.full(300_000, 3, np.uint8)

    for number in range(6):  # one by one: what is told and kept keeps the slab of a dead worker
        assert (shoal.get(twice.remote(str(tmp_path / str(number))), timeout=DEADLINE_S) == 3).all()
    assert fill() == 72
