"""Queue: order, waiting, time-outs, batches, sharing, ends."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import queue as standard
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.util.queue import Empty, Full, Queue

DEADLINE_S = 30


@shoal.remote
def produce(queue, items, delay_s=0.0):
    for item in items:
        time.sleep(delay_s)
        queue.put(item, timeout=DEADLINE_S)


@shoal.remote
def consume(queue, count):
    return [queue.get(timeout=DEADLINE_S) for _ in range(count)]


@pytest.fixture
def queue():
    made = Queue()
    yield made
    made.shutdown(force=True)


@pytest.fixture
def one():
    made = Queue(maxsize=1)
    yield made
    made.shutdown(force=True)


def test_items_come_out_in_the_order_in_which_they_were_put(queue):
    for item in range(10):
        queue.put(item)
        assert queue.qsize() == queue.size() == len(queue) == item + 1
    assert [queue.get() for _ in range(10)] == list(range(10))
    assert queue.empty()


def test_a_full_queue_takes_nothing_more(one):
    one.put("a")
    assert one.full()
    for put in (one.put_nowait, lambda item: one.put(item, block=False), lambda item: one.put(item, timeout=0.05)):
        with pytest.raises(Full):
            put("b")
    assert one.get() == "a"
    assert not one.full()


def test_an_empty_queue_gives_nothing(queue):
    for get in (queue.get_nowait, lambda: queue.get(block=False), lambda: queue.get(timeout=0.05)):
        with pytest.raises(Empty):
            get()
    assert not queue.full()


def test_the_exceptions_are_those_of_the_standard_library(one):
    with pytest.raises(standard.Empty):
        one.get_nowait()
    one.put(1)
    with pytest.raises(standard.Full):
        one.put_nowait(1)


def test_a_negative_time_out_is_refused(queue):
    for call in (lambda: queue.put(1, timeout=-1), lambda: queue.get(timeout=-0.1)):
        with pytest.raises(ValueError, match="negative"):
            call()
    with pytest.raises(Empty):
        queue.get(block=False, timeout=-1)  # not looked at, as in the standard library


def test_get_waits_for_put_and_put_for_get(one):
    late = produce.remote(one, [1, 2, 3], 0.05)
    assert [one.get(timeout=DEADLINE_S) for _ in range(3)] == [1, 2, 3]
    shoal.get(late, timeout=DEADLINE_S)
    one.put("first")
    taken = consume.remote(one, 2)
    one.put("second", timeout=DEADLINE_S)
    assert shoal.get(taken, timeout=DEADLINE_S) == ["first", "second"]


def test_more_waiting_tasks_than_cpus_do_not_block_each_other(one):
    consumers = [consume.remote(one, 3) for _ in range(6)]
    producers = [produce.remote(one, range(3 * i, 3 * i + 3)) for i in range(6)]
    taken = shoal.get(consumers, timeout=DEADLINE_S)
    assert sorted(itertools.chain(*taken)) == list(range(18))
    shoal.get(producers, timeout=DEADLINE_S)


def test_a_wait_that_timed_out_takes_nothing_later(queue):
    for _ in range(5):
        with pytest.raises(Empty):
            queue.get(timeout=0.01)
    queue.put("kept")
    assert queue.get(timeout=DEADLINE_S) == "kept"


def test_batches_are_put_and_taken_whole_or_not_at_all():
    queue = Queue(maxsize=3)
    queue.put_nowait_batch(iter([1, 2]))
    with pytest.raises(Full, match="holds 2 of 3"):
        queue.put_nowait_batch([3, 4])
    assert queue.size() == 2
    with pytest.raises(Empty, match="holds 2"):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(0) == []
    assert queue.get_nowait_batch(2) == [1, 2]
    with pytest.raises(ValueError, match="negative"):
        queue.get_nowait_batch(-1)
    for wrong in (lambda: queue.get_nowait_batch(1.0), lambda: queue.put_nowait_batch(3)):
        with pytest.raises(TypeError):
            wrong()


def test_a_batch_wakes_as_many_waiters_as_it_has_items(queue):
    waiting = [queue.actor.get.remote(DEADLINE_S) for _ in range(3)]
    assert shoal.wait(waiting, timeout=0.1)[0] == []
    queue.put_nowait_batch("ab")
    ready, rest = shoal.wait(waiting, num_returns=2, timeout=DEADLINE_S)
    assert sorted(value for _, value in shoal.get(ready)) == ["a", "b"]
    queue.put("c")
    assert shoal.get(rest[0], timeout=DEADLINE_S) == (True, "c")


def test_more_callers_can_wait_than_an_async_actor_serves_at_once_by_default(queue):
    waiting = [queue.actor.get.remote(DEADLINE_S) for _ in range(1100)]
    for item in range(1100):
        queue.actor.put.remote(item, None)
    assert sorted(value for _, value in shoal.get(waiting, timeout=DEADLINE_S)) == list(range(1100))


def test_coroutines_wait_without_blocking_their_loop(one):
    async def main():
        getting = [asyncio.ensure_future(one.get_async(timeout=DEADLINE_S)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(future.done() for future in getting)
        for item in range(3):
            await one.put_async(item)
        taken = await asyncio.gather(*getting)
        with pytest.raises(Empty):
            await one.get_async(block=False)
        await one.put_async("x")
        with pytest.raises(Full):
            await one.put_async("y", timeout=0.01)
        with pytest.raises(ValueError, match="negative"):
            await one.get_async(timeout=-1)
        return taken

    assert sorted(asyncio.run(main())) == [0, 1, 2]


def test_arrays_and_refs_arrive_as_values(queue):
    array = np.arange(200_000.0)
    queue.put(array)
    queue.put(shoal.put("by reference"))
    np.testing.assert_array_equal(queue.get(), array)
    assert queue.get() == "by reference"


def test_a_copy_is_the_same_queue(queue):
    copy = pickle.loads(pickle.dumps(queue))
    copy.put(1)
    assert queue.get(timeout=DEADLINE_S) == 1
    assert copy.maxsize == queue.maxsize


def test_the_actor_takes_the_options_that_it_is_given():
    queue = Queue(actor_options={"name": "mail", "num_cpus": 1})
    queue.put("letter")
    assert shoal.get(shoal.get_actor("mail").qsize.remote(), timeout=DEADLINE_S) == 1
    queue.shutdown()


def test_shutdown_carries_out_what_was_sent_before_and_ends_who_waits():
    queue = Queue()
    copy = pickle.loads(pickle.dumps(queue))
    waiting = copy.actor.get.remote(None)
    sent = copy.actor.put_batch.remote(["a", "b"])
    queue.shutdown()
    assert shoal.get(sent, timeout=DEADLINE_S)[0]
    assert shoal.get(waiting, timeout=DEADLINE_S) == (True, "a")
    with pytest.raises(exceptions.ActorDiedError):
        copy.get(timeout=DEADLINE_S)
    with pytest.raises(RuntimeError, match="shut down"):
        queue.put(1)
    queue.shutdown()


def test_forced_shutdown_waits_for_nothing():
    queue = Queue()
    waiting = queue.actor.get.remote(None)
    queue.shutdown(force=True)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(waiting, timeout=DEADLINE_S)


def test_maxsize_is_checked():
    with pytest.raises(TypeError, match="maxsize"):
        Queue("many")
