"""ActorPool: order, time-outs, free and busy actors, errors, deaths."""

from __future__ import annotations

import os
import signal
import time

import pytest

import shoal
from shoal import exceptions
from shoal.util.actor_pool import ActorPool

DEADLINE_S = 30


@shoal.remote
class Worker:
    def double(self, value):
        return 2 * value

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def fail(self, value):
        raise ValueError(value)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    @shoal.method(num_returns=2)
    def pair(self, value):
        return value, value + 1


def double(actor, value):
    return actor.double.remote(value)


def sleep(actor, value):
    return actor.sleep.remote(value)


def fail(actor, value):
    return actor.fail.remote(value)


def die(actor, _):
    return actor.die.remote()


def pool_of(count: int) -> ActorPool:
    return ActorPool([Worker.remote() for _ in range(count)])


def test_map_gives_results_in_order():
    assert list(pool_of(2).map(double, range(20))) == [2 * i for i in range(20)]


def test_map_unordered_gives_what_is_ready_first():
    pool = pool_of(2)
    assert list(pool.map(double, [1, 2])) == [2, 4]  # both have started
    assert list(pool.map_unordered(sleep, [0.4, 0.0, 0.01])) == [0.0, 0.01, 0.4]


def test_map_submits_at_the_call_not_when_it_is_read():
    pool = pool_of(1)
    results = pool.map(double, [1])
    assert not pool.has_free()
    assert pool.has_next()
    assert next(results) == 2


def test_map_gives_up_earlier_submissions_and_their_errors():
    pool = pool_of(2)
    pool.submit(fail, 1)
    pool.submit(sleep, 0.2)
    pool.submit(double, 1)
    assert list(pool.map(double, [5, 6, 7])) == [10, 12, 14]
    assert list(pool.map_unordered(double, [5])) == [10]


def test_map_begun_before_the_last_was_read_starts_anew():
    pool = pool_of(1)
    pool.map(double, [1, 2, 3])
    assert list(pool.map_unordered(double, [7, 8])) == [14, 16]


def test_results_are_taken_one_by_one_and_then_iteration_stops():
    pool = pool_of(2)
    for value in range(3):
        pool.submit(double, value)
    assert [pool.get_next(), pool.get_next(timeout=DEADLINE_S), pool.get_next()] == [0, 2, 4]
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_ordered_after_a_later_result_was_taken_is_an_error():
    pool = pool_of(2)
    pool.submit(sleep, 0.5)
    pool.submit(double, 1)
    assert pool.get_next_unordered(timeout=DEADLINE_S) == 2
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    assert pool.get_next_unordered(timeout=DEADLINE_S) == 0.5
    pool.submit(double, 4)
    assert pool.get_next() == 8


@pytest.mark.parametrize("take", ["get_next", "get_next_unordered"])
def test_a_result_that_is_late_can_be_asked_for_again_or_given_up(take):
    pool = pool_of(1)
    pool.submit(sleep, 0.3)
    with pytest.raises(TimeoutError):
        getattr(pool, take)(timeout=0.01)
    assert getattr(pool, take)(timeout=DEADLINE_S) == 0.3
    pool.submit(sleep, 0.3)
    with pytest.raises(TimeoutError, match="given up"):
        getattr(pool, take)(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_next()
    assert pool.has_free()
    pool.submit(double, 3)
    assert getattr(pool, take)(timeout=DEADLINE_S) == 6


def test_methods_with_several_returns_give_lists():
    pool = pool_of(1)
    for value in range(3):
        pool.submit(lambda actor, value: actor.pair.remote(value), value)
    assert pool.get_next(timeout=DEADLINE_S) == [0, 1]
    assert pool.get_next_unordered(timeout=DEADLINE_S) == [1, 2]
    assert pool.get_next() == [2, 3]


def test_an_actor_is_free_again_after_an_error():
    pool = pool_of(1)
    pool.submit(fail, 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="1"):
        pool.get_next()
    assert pool.get_next() == 4


def test_an_actor_that_died_leaves_the_pool_and_the_others_go_on():
    pool = pool_of(2)
    pool.submit(die, None)
    for value in range(3):
        pool.submit(double, value)
    with pytest.raises(exceptions.ActorDiedError):
        pool.get_next()
    assert [pool.get_next() for _ in range(3)] == [0, 2, 4]
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None


def test_no_submission_is_lost_in_silence_when_all_actors_have_died():
    pool = pool_of(1)
    pool.submit(die, None)
    pool.submit(double, 1)
    pool.submit(double, 2)
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError):
            pool.get_next()
    assert pool.has_next()
    pool.push(Worker.remote())
    assert pool.get_next() == 4
    assert not pool.has_next()


def test_idle_actors_can_be_taken_out_and_others_put_in():
    first, second, third = (Worker.remote() for _ in range(3))
    pool = ActorPool([first])
    pool.submit(double, 1)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    pool.push(second)
    assert pool.has_free()
    with pytest.raises(ValueError, match="already"):
        pool.push(second)
    pool.submit(double, 2)
    pool.submit(double, 3)
    pool.push(third)  # takes what waits in line
    assert not pool.has_free()
    assert [pool.get_next() for _ in range(3)] == [2, 4, 6]
    assert {pool.pop_idle() for _ in range(4)} == {first, second, third, None}


def test_a_pool_without_actors_keeps_what_is_submitted_until_one_is_pushed():
    pool = ActorPool([])
    pool.submit(double, 4)
    assert not pool.has_next()
    pool.push(Worker.remote())
    assert pool.get_next() == 8


def test_a_function_that_returns_no_ref_is_told_and_costs_no_actor():
    pool = pool_of(1)
    with pytest.raises(TypeError, match="ObjectRef"):
        pool.submit(lambda actor, value: value, 1)
    assert pool.has_free()


@pytest.mark.parametrize("take", ["get_next", "get_next_unordered"])
def test_a_function_that_fails_while_in_line_spoils_no_other_result(take):
    pool = pool_of(1)
    pool.submit(double, 1)
    pool.submit(lambda actor, value: value, 2)
    pool.submit(double, 3)
    assert getattr(pool, take)() == 2
    with pytest.raises(TypeError, match="ObjectRef"):
        getattr(pool, take)()
    assert getattr(pool, take)() == 6
