"""Generators: items as refs while the task runs, or all of them by one ref; on every engine."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import time

import numpy as np
import pytest

import shoal
from shoal.core.generators import DynamicObjectRefGenerator

DEADLINE_S = 20.0


def values(generator):
    return [shoal.get(ref, timeout=DEADLINE_S) for ref in generator]


@shoal.remote
def count_to(n):
    yield from range(n)


@shoal.remote
def fail_after(n):
    yield from range(n)
    raise ValueError("no more of this")


@shoal.remote
class Numbers:
    def count_to(self, n):
        yield from range(n)

    @shoal.method(num_returns=1)
    def first(self):
        yield 1

    @shoal.method(num_returns=2)
    def pair(self):
        yield 1
        yield 2


@shoal.remote
class AsyncNumbers:
    async def count_to(self, n):
        for number in range(n):
            await asyncio.sleep(0)
            yield number


def test_the_items_of_a_generator_come_as_refs_in_order():
    generator = count_to.remote(5)
    assert isinstance(generator, shoal.ObjectRefGenerator)
    assert not generator.is_finished()
    assert values(generator) == [0, 1, 2, 3, 4]
    assert generator.is_finished()
    assert list(generator) == []
    assert shoal.get(generator.completed(), timeout=DEADLINE_S) is None


def test_a_generator_may_yield_nothing():
    assert values(count_to.remote(0)) == []


def test_methods_and_coroutines_of_actors_stream_too():
    assert values(Numbers.remote().count_to.remote(3)) == [0, 1, 2]
    assert values(AsyncNumbers.remote().count_to.remote(3)) == [0, 1, 2]


def test_an_exception_comes_as_the_last_ref():
    refs = list(fail_after.remote(2))
    assert shoal.get(refs[:2], timeout=DEADLINE_S) == [0, 1]
    with pytest.raises(ValueError, match="no more of this"):
        shoal.get(refs[2], timeout=DEADLINE_S)
    assert len(refs) == 3


def test_a_generator_that_raised_has_come_to_its_end():
    generator = fail_after.remote(1)
    assert shoal.get(generator.completed(), timeout=DEADLINE_S) is None
    assert len(list(generator)) == 2


def test_large_items_and_refs_inside_items_survive():
    @shoal.remote
    def make():
        for number in range(3):
            yield {"array": np.full(100_000, number), "ref": shoal.put(number)}

    generator = make.remote()
    for number, ref in enumerate(generator):
        item = shoal.get(ref, timeout=DEADLINE_S)
        assert item["array"][0] == number
        assert shoal.get(item["ref"], timeout=DEADLINE_S) == number


def test_items_can_be_arguments():
    @shoal.remote
    def double(number):
        return 2 * number

    assert shoal.get([double.remote(ref) for ref in count_to.remote(4)], timeout=DEADLINE_S) == [0, 2, 4, 6]


def test_a_dynamic_generator_is_one_ref_to_all_items():
    ref = count_to.options(num_returns="dynamic").remote(3)
    assert isinstance(ref, shoal.ObjectRef)
    generator = shoal.get(ref, timeout=DEADLINE_S)
    assert isinstance(generator, DynamicObjectRefGenerator)
    assert len(generator) == 3
    assert values(generator) == [0, 1, 2]


def test_a_dynamic_generator_can_be_handed_on():
    @shoal.remote
    def total(generator):
        return sum(shoal.get(ref) for ref in generator)

    ref = count_to.options(num_returns="dynamic").remote(4)
    assert shoal.get(total.remote(ref), timeout=DEADLINE_S) == 6


def test_a_dynamic_generator_that_raises_has_the_exception_as_its_last_ref():
    refs = list(shoal.get(fail_after.options(num_returns="dynamic").remote(1), timeout=DEADLINE_S))
    assert shoal.get(refs[0], timeout=DEADLINE_S) == 0
    with pytest.raises(ValueError, match="no more"):
        shoal.get(refs[1], timeout=DEADLINE_S)


def test_a_generator_with_a_fixed_number_of_returns_is_a_list_of_refs():
    assert shoal.get(count_to.options(num_returns=2).remote(2), timeout=DEADLINE_S) == [0, 1]
    assert shoal.get(Numbers.remote().pair.remote(), timeout=DEADLINE_S) == [1, 2]
    with pytest.raises(ValueError, match="num_returns=3"):
        shoal.get(count_to.options(num_returns=3).remote(2), timeout=DEADLINE_S)
    assert shoal.get(Numbers.remote().first.remote(), timeout=DEADLINE_S) == 1
    assert shoal.get(count_to.options(num_returns=1).remote(5), timeout=DEADLINE_S) == 0, "what is more is left"


def test_wait_takes_generators():
    generator, value = count_to.remote(1), shoal.put(1)
    ready, rest = shoal.wait([generator, value], num_returns=2, timeout=DEADLINE_S)
    assert ready == [generator, value]
    assert rest == []


def test_asynchronous_iteration():
    async def main():
        return [await ref async for ref in count_to.remote(3)]

    assert asyncio.run(asyncio.wait_for(main(), DEADLINE_S)) == [0, 1, 2]


def test_a_generator_stays_in_its_process():
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(count_to.remote(1))


@pytest.mark.parametrize("verb", ["send", "throw", "close", "asend", "athrow", "aclose"])
def test_the_generator_itself_is_out_of_reach(verb):
    with pytest.raises(NotImplementedError, match="only iterated over"):
        getattr(count_to.remote(1), verb)()


@pytest.mark.parametrize("returns", ["streaming", "dynamic"])
def test_streaming_is_refused_for_what_is_no_generator(returns):
    with pytest.raises(ValueError, match="generators"):

        @shoal.remote(num_returns=returns)
        def plain():
            return 1


def test_backpressure_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        count_to.options(_generator_backpressure_num_objects=0)


@pytest.mark.not_inline("the inline engine runs a generator to its end at once")
def test_items_can_be_had_while_the_generator_runs(tmp_path):
    @shoal.remote
    def slow(gate):
        yield 1
        while not os.path.exists(gate):
            time.sleep(0.01)
        yield 2

    gate = tmp_path / "gate"
    generator = slow.remote(str(gate))
    assert shoal.get(next(generator), timeout=DEADLINE_S) == 1
    assert not generator.next_ready()
    assert generator._next_sync(0.05) == shoal.ObjectRef(b"\xff" * 28), "nothing in time"
    gate.touch()
    assert shoal.get(next(generator), timeout=DEADLINE_S) == 2


@pytest.mark.not_inline("the inline engine runs a generator to its end at once")
def test_backpressure_holds_the_generator_back(tmp_path):
    @shoal.remote
    def count(log):
        for number in range(20):
            with open(log, "a") as file:
                file.write(f"{number}\n")
            yield number

    log = tmp_path / "log"
    generator = count.options(_generator_backpressure_num_objects=2).remote(str(log))
    first = [next(generator) for _ in range(3)]
    time.sleep(0.3)
    assert 3 <= len(log.read_text().splitlines()) <= 6
    assert shoal.get(first, timeout=DEADLINE_S) == [0, 1, 2]
    assert values(generator) == list(range(3, 20))


@pytest.mark.not_inline("the inline engine runs a generator to its end at once")
def test_a_dropped_generator_runs_on_and_lets_go_of_its_items(tmp_path):
    @shoal.remote
    def count(done):
        for number in range(50):
            yield np.full(100_000, number)
        open(done, "w").close()

    done = tmp_path / "done"
    generator = count.options(_generator_backpressure_num_objects=1).remote(str(done))
    next(generator)
    del generator
    deadline = time.monotonic() + DEADLINE_S
    while not done.exists():
        assert time.monotonic() < deadline, "the generator is held back although nobody takes its items"
        time.sleep(0.01)


@pytest.mark.not_inline("kills a worker")
def test_a_generator_whose_worker_dies_begins_again_and_repeats_nothing(tmp_path):
    @shoal.remote
    def count(flag):
        for number in range(6):
            if number == 3 and not os.path.exists(flag):
                time.sleep(0.2)  # the items so far are on their way
                open(flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    assert values(count.remote(str(tmp_path / "flag"))) == list(range(6))


@pytest.mark.native_only("kills a worker; Ray takes the items of a shorter second run for all of them")
def test_a_generator_that_yields_less_the_second_time_is_an_error(tmp_path):
    @shoal.remote
    def count(flag):
        if os.path.exists(flag):
            yield 0
            return
        yield from range(3)
        time.sleep(0.2)
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

    refs = list(count.remote(str(tmp_path / "flag")))
    assert shoal.get(refs[:3], timeout=DEADLINE_S) == [0, 1, 2]
    with pytest.raises(shoal.exceptions.StreamingGeneratorReplayInconsistentError, match="has yielded 1 items"):
        shoal.get(refs[3], timeout=DEADLINE_S)


@pytest.mark.not_inline("kills a worker")
def test_a_generator_that_may_not_run_twice_ends_with_the_death_of_its_worker():
    @shoal.remote(max_retries=0)
    def count():
        yield 1
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    refs = list(count.remote())
    assert shoal.get(refs[0], timeout=DEADLINE_S) == 1
    with pytest.raises(shoal.exceptions.WorkerCrashedError, match=r"SIGKILL|died unexpectedly"):
        shoal.get(refs[1], timeout=DEADLINE_S)


@pytest.mark.not_inline("the inline engine runs a generator to its end at once")
def test_any_number_of_coroutines_can_wait_for_their_consumers():
    actor = AsyncNumbers.remote()
    held = actor.count_to.options(_generator_backpressure_num_objects=1)
    generators = [held.remote(4) for _ in range(20)]
    for generator in reversed(generators):
        assert values(generator) == [0, 1, 2, 3]
    generators = [held.remote(4) for _ in range(20)]
    for generator in generators:
        next(generator)
        shoal.cancel(generator)
    for generator in generators:
        shoal.wait([generator.completed()], timeout=DEADLINE_S)
    assert values(held.remote(4)) == [0, 1, 2, 3]


@pytest.mark.not_inline("the inline engine runs a generator to its end at once")
def test_what_stands_behind_a_generator_that_is_held_back_runs_elsewhere():
    @shoal.remote
    def count(n):
        yield from range(n)

    for _ in range(20):
        values(count.remote(1))  # it is known to be short
    # No more than there are CPUs: whichever two of three began first would hold both, and the one that is asked none.
    generators = [count.options(_generator_backpressure_num_objects=1).remote(5) for _ in range(2)]
    assert values(generators[1]) == [0, 1, 2, 3, 4], "a queue at one worker goes to the next"
    assert values(generators[0]) == [0, 1, 2, 3, 4]


@pytest.mark.not_inline("looks into this process")
def test_looking_for_the_next_item_leaves_nothing_behind(tmp_path):
    @shoal.remote
    def wait_for(gate):
        while not os.path.exists(gate):
            time.sleep(0.01)
        yield 1

    generator = wait_for.remote(str(tmp_path / "gate"))
    generator.next_ready()
    before = len(gc.get_referrers(generator._peek()))
    for _ in range(1000):
        assert not generator.next_ready()
    assert len(gc.get_referrers(generator._peek())) <= before + 2
    (tmp_path / "gate").touch()
    assert values(generator) == [1]
