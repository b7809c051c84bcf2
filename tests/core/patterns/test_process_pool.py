"""multiprocessing.Pool on actors: results, order, errors, callbacks, replacements, ends. Where the standard library's
pool can be asked, it is asked the same.
"""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing.pool
import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.util.multiprocessing import Pool, TimeoutError  # noqa: A004  what programs import

DEADLINE_S = 30


@pytest.fixture(scope="module")
def pool(session):
    made = Pool(2)
    yield made
    made.terminate()
    made.join()


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def nap(seconds):
    time.sleep(seconds)
    return seconds


def pid(_=None):
    return os.getpid()


def fail_on_three(x):
    if x == 3:
        raise KeyError("three")
    return x


def die(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def eventually(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        gc.collect()
        time.sleep(0.01)


def test_apply_runs_one_call(pool):
    assert pool.apply(add, (1,), {"y": 2}) == 3
    assert pool.apply(add, [4]) == 4
    assert pool.apply(os.getpid) != os.getpid()
    assert pool.apply_async(lambda: 5).get(timeout=DEADLINE_S) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000])
def test_maps_of_every_size_equal_the_builtin(pool, count, chunksize):
    items = range(count)
    expected = [square(item) for item in items]
    assert pool.map(square, items, chunksize) == expected
    assert list(pool.imap(square, items, chunksize)) == expected
    assert sorted(pool.imap_unordered(square, iter(items), chunksize)) == expected
    assert pool.starmap(add, [(item, item) for item in items], chunksize) == [2 * item for item in items]


def test_functions_may_be_lambdas_closures_and_partials(pool):
    factor = 3
    assert pool.map(lambda x: factor * x, range(9)) == [3 * x for x in range(9)]
    assert pool.map(functools.partial(add, 10), range(9)) == [10 + x for x in range(9)]


def test_work_is_spread_over_the_workers(pool):
    assert len(set(pool.map(lambda _: (time.sleep(0.02), os.getpid())[1], range(20), chunksize=1))) == 2


def test_a_short_call_does_not_wait_behind_a_long_one(pool):
    long = pool.apply_async(nap, (1.5,))
    short = [pool.apply_async(nap, (0.0,)) for _ in range(6)]
    for result in short:
        result.get(timeout=DEADLINE_S)
    assert not long.ready()
    assert long.get(timeout=DEADLINE_S) == 1.5


def test_large_arrays_come_and_go(pool):
    array = np.arange(300_000.0)
    for doubled in pool.imap(lambda x: 2 * x, [array, array + 1]):
        assert doubled.nbytes == array.nbytes
    assert pool.apply(np.sum, (array,)) == array.sum()


def test_an_exception_is_raised_as_it_was_raised_with_the_remote_traceback(pool):
    for call in (
        lambda: pool.apply(fail_on_three, (3,)),
        lambda: pool.map(fail_on_three, range(10), 2),
        lambda: list(pool.imap(fail_on_three, range(10))),
        lambda: list(pool.imap_unordered(fail_on_three, range(10))),
        lambda: pool.starmap(fail_on_three, [(3,)]),
    ):
        with pytest.raises(KeyError, match="three") as raised:
            call()
        assert type(raised.value) is KeyError
        assert "in fail_on_three" in str(raised.value.__cause__)
    assert pool.apply(square, (3,)) == 9


def test_imap_goes_on_after_an_exception(pool):
    results = pool.imap(fail_on_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4, 5]


def test_arguments_that_cannot_be_pickled_fail_their_call_and_no_other(pool):
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(square, (threading.Lock(),))
    results = pool.imap(type, [1, threading.Lock(), "a"])
    assert next(results) is int
    with pytest.raises(TypeError, match="pickle"):
        next(results)
    assert next(results) is str


@pytest.mark.parametrize("kind", ["shoal", "multiprocessing"])
def test_results_tell_whether_they_are_there_as_in_the_standard_library(pool, kind):
    pool = pool if kind == "shoal" else multiprocessing.pool.ThreadPool(2)
    result = pool.apply_async(nap, (0.3,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    result.wait(0.01)
    assert not result.ready()
    result.wait(DEADLINE_S)
    assert result.ready()
    assert result.successful()
    assert result.get() == 0.3
    failed = pool.map_async(fail_on_three, range(10), 1)
    failed.wait(DEADLINE_S)
    assert failed.ready()
    assert not failed.successful()
    with pytest.raises(KeyError):
        failed.get()
    assert pool.map_async(square, []).get() == []


@pytest.mark.parametrize("kind", ["shoal", "multiprocessing"])
def test_callbacks_get_the_result_or_the_first_error_once(pool, kind):
    pool = pool if kind == "shoal" else multiprocessing.pool.ThreadPool(2)
    heard = []
    hear = {
        "callback": lambda value: heard.append(("value", value)),
        "error_callback": lambda error: heard.append(("error", repr(error))),
    }
    pool.apply_async(square, (3,), **hear).wait(DEADLINE_S)
    pool.map_async(square, range(5), 1, **hear).wait(DEADLINE_S)
    pool.starmap_async(add, [(1, 2)], **hear).wait(DEADLINE_S)
    pool.map_async(fail_on_three, [3, 3, 1], 1, **hear).wait(DEADLINE_S)
    assert heard == [("value", 9), ("value", [0, 1, 4, 9, 16]), ("value", [3]), ("error", "KeyError('three')")]


def test_a_callback_that_fails_is_told_and_spoils_nothing(pool, capfd):
    assert pool.apply_async(square, (2,), callback=lambda _: 1 / 0).get(timeout=DEADLINE_S) == 4
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert pool.apply(square, (3,)) == 9


def test_imap_gives_results_in_order_and_imap_unordered_as_they_come(pool):
    pool.map(nap, [0.05, 0.05], 1)
    assert list(pool.imap(nap, [0.3, 0.0, 0.0])) == [0.3, 0.0, 0.0]
    assert list(pool.imap_unordered(nap, [0.3, 0.0, 0.01])) == [0.0, 0.01, 0.3]


def test_next_of_imap_takes_a_time_out(pool):
    results = pool.imap(nap, [0.3])
    with pytest.raises(TimeoutError):
        results.next(timeout=0.01)
    assert results.next(timeout=DEADLINE_S) == 0.3
    with pytest.raises(StopIteration):
        results.next(timeout=0.01)
    with pytest.raises(StopIteration):
        next(results)


def test_imap_reads_an_endless_input_only_a_few_chunks_ahead(pool):
    read = []

    def items():
        for item in itertools.count():
            read.append(item)
            yield item

    results = pool.imap(square, items(), chunksize=2)
    assert [next(results) for _ in range(40)] == [x * x for x in range(40)]
    assert len(read) <= 40 + 2 * 10
    threads = [thread for thread in threading.enumerate() if thread.name == "shoal-pool-input"]
    assert threads
    del results
    eventually(lambda: not any(thread.is_alive() for thread in threads), "the input is read although nobody listens")


def test_the_input_of_imap_may_wait_for_its_own_results(pool):
    turns = threading.Semaphore(1)

    def items():
        for item in range(5):
            assert turns.acquire(timeout=DEADLINE_S)
            yield item

    seen = []
    for value in pool.imap(square, items()):
        seen.append(value)
        turns.release()
    assert seen == [0, 1, 4, 9, 16]


def test_an_error_of_the_input_stands_where_the_input_ended(pool):
    def items():
        yield 1
        yield 2
        raise OSError("no more")

    results = pool.imap(square, items(), chunksize=5)
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(OSError, match="no more"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(OSError, match="no more"):
        pool.map(square, items())


def test_the_initializer_runs_in_every_worker():
    def prepare(value):
        os.environ["PREPARED"] = value

    with Pool(2, initializer=prepare, initargs=("yes",)) as pool:
        assert set(pool.map(lambda _: os.environ.get("PREPARED"), range(8), 1)) == {"yes"}


def test_an_initializer_that_fails_fails_the_work():
    def fail():
        raise RuntimeError("not today")

    with Pool(1, fail) as pool:
        for _ in range(2):
            with pytest.raises(exceptions.ActorDiedError, match="not today"):
                pool.apply_async(square, (1,)).get(timeout=DEADLINE_S)


def test_workers_are_replaced_after_so_many_tasks():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(pid) for _ in range(6)]
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
        assert len(set(pool.map(pid, range(8), chunksize=2))) == 2


def test_a_worker_that_dies_fails_its_work_and_is_replaced():
    with Pool(1) as pool:
        lost = pool.apply_async(die)
        after = pool.apply_async(square, (4,))
        with pytest.raises(exceptions.ActorDiedError):
            lost.get(timeout=DEADLINE_S)
        assert after.get(timeout=DEADLINE_S) == 16


def test_close_lets_all_work_end_and_join_waits_for_it():
    pool = Pool(2)
    workers = set(pool.map(pid, range(8), 1))
    heard = []
    results = [pool.apply_async(nap, (0.05,), callback=heard.append) for _ in range(6)]
    images = pool.imap(square, iter(range(100)))
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (lambda: pool.apply(square, (1,)), lambda: pool.map(square, [1]), lambda: pool.imap(square, [1])):
        with pytest.raises(ValueError, match="closed"):
            call()
    pool.join()
    assert all(result.ready() for result in results)
    assert len(heard) == 6
    assert list(images) == [x * x for x in range(100)]
    eventually(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), "the workers are left")


def test_terminate_ends_what_runs_and_what_waits():
    pool = Pool(1)
    pool.apply(pid)
    running = pool.apply_async(nap, (60,))
    waiting = pool.apply_async(square, (1,))
    endless = pool.imap(square, itertools.count())
    time.sleep(0.1)
    pool.terminate()
    pool.join()
    with pytest.raises(exceptions.ActorDiedError):
        running.get(timeout=DEADLINE_S)
    with pytest.raises(exceptions.TaskCancelledError, match="terminated"):
        waiting.get(timeout=DEADLINE_S)
    with pytest.raises((exceptions.TaskCancelledError, exceptions.ActorDiedError)):
        for _ in endless:
            pass
    pool.terminate()
    with pytest.raises(ValueError, match="terminated"), pool:
        pass


def test_a_with_block_terminates_the_pool():
    with Pool(1) as pool:
        result = pool.apply_async(nap, (60,))
        pool.apply_async(square, (1,))
    with pytest.raises(exceptions.ActorDiedError):
        result.get(timeout=DEADLINE_S)


def test_a_pool_can_be_used_inside_a_task():
    @shoal.remote
    def inside():
        with Pool(2) as pool:
            return pool.map(square, range(10))

    assert shoal.get([inside.remote(), inside.remote()], timeout=DEADLINE_S) == [[x * x for x in range(10)]] * 2


def test_workers_take_options():
    with Pool(1, ray_remote_args={"num_cpus": 1, "name": "worker of a pool"}) as pool:
        pool.apply(pid)
        assert shoal.get_actor("worker of a pool") is not None


def test_arguments_are_checked():
    for wrong, words in (
        ({"processes": 0}, "processes"),
        ({"maxtasksperchild": 0}, "maxtasksperchild"),
        ({"ray_address": "auto"}, "shoal.init"),
    ):
        with pytest.raises(ValueError, match=words):
            Pool(**wrong)
    with pytest.raises(TypeError, match="callable"):
        Pool(1, initializer=3)
    with pytest.warns(UserWarning, match="context"):
        Pool(1, context=object()).terminate()


def test_chunk_sizes_are_checked(pool):
    for call in (pool.map, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="chunksize"):
            call(square, [1], chunksize=0)


def test_there_is_a_worker_for_each_cpu_of_the_session_unless_told_otherwise():
    with Pool() as pool:
        assert repr(pool) == "Pool(processes=2, state=RUN)"
