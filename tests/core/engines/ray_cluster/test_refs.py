"""Refs, handles and generators on a Ray cluster: where they may stand, how they travel, what outlives what."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import threading
import time

import cloudpickle
import pytest

import shoal
from shoal import exceptions

pytestmark = pytest.mark.ray

DEADLINE_S = 30


@pytest.fixture(scope="module", autouse=True)
def session():
    with start():
        yield


def start():
    return shoal.init(engine="ray", address="local", num_cpus=2, object_store_memory=200_000_000)


@shoal.remote
def identity(value):
    return value


@shoal.remote
def look(refs):
    return shoal.get(list(refs))


@shoal.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self, amount=1):
        self.count += amount
        return self.count

    @shoal.method(num_returns=2)
    def both(self):
        return self.count, -self.count

    def stream(self, n):
        yield from range(n)

    def fail(self):
        raise KeyError("counted")

    def own_failure(self):
        try:
            self.fail()
        except KeyError as error:
            return type(error).__name__


@shoal.remote
class Awaiting:
    async def total(self, refs):
        return sum(await asyncio.gather(*refs))

    async def one_by_one(self, n):
        return [await identity.remote(number) for number in range(n)]

    async def caught(self, refs):
        try:
            await refs[0]
        except ValueError as error:
            return isinstance(error, exceptions.TaskError), str(error.cause)

    async def streamed(self, n):
        return [await ref async for ref in Counter.remote().stream.remote(n)]


@shoal.remote
def fail(text):
    raise ValueError(text)


def is_dead(counter):
    try:
        shoal.get(counter.add.remote(), timeout=DEADLINE_S)
    except exceptions.ActorDiedError:
        return True
    return False


class Holder:
    def __init__(self, *parts):
        self.parts = parts


def test_a_ref_is_equal_to_its_copies_and_hashes_like_them():
    ref = shoal.put(1)
    for other in (copy.copy(ref), copy.deepcopy(ref), pickle.loads(pickle.dumps(ref)), shoal.ObjectRef(ref.binary())):
        assert isinstance(other, shoal.ObjectRef)
        assert other == ref
        assert hash(other) == hash(ref)
        assert {ref: "found"}[other] == "found"
        assert shoal.get(other, timeout=DEADLINE_S) == 1
    assert ref != shoal.put(1)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_ref_in_a_plain_pickle_is_good_in_another_process(pickler):
    @shoal.remote
    def load(data):
        return shoal.get(pickle.loads(data), timeout=DEADLINE_S)

    for value in (5, bytes(300_000)):
        ref = shoal.put(value)
        data = pickler.dumps({"ref": [ref]})
        del ref
        loaded = pickle.loads(data)["ref"][0]
        assert shoal.get(loaded, timeout=DEADLINE_S) == value
        assert shoal.get(load.remote(pickler.dumps(loaded)), timeout=DEADLINE_S) == value


def test_refs_inside_values_arguments_and_refs_arrive_as_refs():
    inner = identity.remote("inner")
    nested = shoal.put({"deep": [Holder(inner)]})
    del inner
    found = shoal.get(identity.remote(nested), timeout=DEADLINE_S)["deep"][0].parts[0]
    assert isinstance(found, shoal.ObjectRef)
    assert shoal.get(found, timeout=DEADLINE_S) == "inner"
    outer = identity.remote([found])
    assert shoal.get(look.remote(shoal.get(outer, timeout=DEADLINE_S)), timeout=DEADLINE_S) == ["inner"]


def test_a_ref_that_a_task_has_made_outlives_it():
    @shoal.remote
    def make():
        return [shoal.put(bytes(300_000)), identity.remote("small")]

    big, small = shoal.get(make.remote(), timeout=DEADLINE_S)
    assert shoal.get([big, small], timeout=DEADLINE_S) == [bytes(300_000), "small"]


def test_handles_travel_inside_values_and_keep_their_actor():
    @shoal.remote
    def use(held):
        return shoal.get(held["counter"].parts[0].add.remote(10))

    counter = Counter.remote()
    held = shoal.put({"counter": Holder(counter)})
    del counter
    assert shoal.get(use.remote(held), timeout=DEADLINE_S) == 10
    again = shoal.get(held, timeout=DEADLINE_S)["counter"].parts[0]
    assert shoal.get(again.add.remote(), timeout=DEADLINE_S) == 11
    assert again == shoal.get(held, timeout=DEADLINE_S)["counter"].parts[0]
    assert hash(again) == hash(shoal.get(held, timeout=DEADLINE_S)["counter"].parts[0])


def test_a_handle_by_name_knows_the_methods_and_does_not_keep_the_actor():
    counter = Counter.options(name="weak", max_pending_calls=1000).remote()
    found = shoal.get_actor("weak")
    assert found == counter
    assert repr(found) == repr(counter)
    assert shoal.get(found.both.remote(), timeout=DEADLINE_S) == [0, 0]
    assert [shoal.get(ref, timeout=DEADLINE_S) for ref in found.stream.remote(3)] == [0, 1, 2]
    assert shoal.get(found.both.options(max_task_retries=1).remote(), timeout=DEADLINE_S) == [0, 0]
    with pytest.raises(AttributeError, match="did you mean add"):
        _ = found.ad
    with pytest.raises(TypeError, match="unexpected keyword"):
        found.add.remote(amuont=1)
    del counter
    deadline = time.monotonic() + DEADLINE_S
    while not is_dead(found):
        assert time.monotonic() < deadline


def test_an_existing_actor_is_given_with_its_own_methods():
    first = Counter.options(name="shared").remote()
    shoal.get(first.add.remote(5), timeout=DEADLINE_S)
    second = Awaiting.options(name="shared", get_if_exists=True).remote()
    assert shoal.get(second.add.remote(), timeout=DEADLINE_S) == 6
    assert second == first
    made = Counter.options(name="made", get_if_exists=True).remote()
    assert shoal.get(made.add.remote(), timeout=DEADLINE_S) == 1
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="shared"):
        Counter.options(name="shared").remote()


def test_an_actor_of_a_plain_ray_program_can_be_called():
    import ray

    @ray.remote
    class Plain:
        @ray.method(num_returns=2)
        def pair(self):
            return 1, 2

        def fail(self):
            raise IndexError("theirs")

    kept = Plain.options(name="plain").remote()
    found = shoal.get_actor("plain")
    assert shoal.get(found.pair.remote(), timeout=DEADLINE_S) == [1, 2]
    assert shoal.get(found.__ray_call__.remote(lambda self: type(self).__name__), timeout=DEADLINE_S) == "Plain"
    with pytest.raises(IndexError, match="theirs") as caught:
        shoal.get(found.fail.remote(), timeout=DEADLINE_S)
    assert isinstance(caught.value, exceptions.TaskError)
    assert caught.value.function_name == "Plain.fail"
    del kept


def test_a_plain_ray_program_can_call_an_actor_of_ours():
    import ray

    counter = Counter.options(name="ours").remote()
    theirs = ray.get_actor("ours")
    assert ray.get(theirs.add.remote(3), timeout=DEADLINE_S) == 3
    with pytest.raises(ray.exceptions.RayTaskError, match="KeyError: 'counted'"):
        ray.get(theirs.fail.remote(), timeout=DEADLINE_S)
    del counter


def test_what_one_method_raises_into_another_is_what_was_raised():
    assert shoal.get(Counter.remote().own_failure.remote(), timeout=DEADLINE_S) == "KeyError"


def test_coroutines_of_actors_await_refs_errors_and_generators():
    awaiting = Awaiting.remote()
    assert shoal.get(awaiting.total.remote([identity.remote(n) for n in range(5)]), timeout=DEADLINE_S) == 10
    assert shoal.get(awaiting.one_by_one.remote(3), timeout=DEADLINE_S) == [0, 1, 2]
    assert shoal.get(awaiting.caught.remote([fail.remote("awaited")]), timeout=DEADLINE_S) == (True, "awaited")
    assert shoal.get(awaiting.streamed.remote(3), timeout=DEADLINE_S) == [0, 1, 2]


def test_a_driver_awaits_refs_in_any_number_of_event_loops():
    async def both(n):
        with pytest.raises(ValueError, match="in a loop"):
            await fail.remote("in a loop")
        return await asyncio.gather(*[identity.remote(i) for i in range(n)])

    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(asyncio.run(both(n)))) for n in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(found) == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_a_future_may_be_cancelled_and_its_callback_may_wait_for_others():
    done = threading.Event()
    found = []

    def callback(future):
        found.append(shoal.get(identity.remote(future.result() + 1), timeout=DEADLINE_S))
        done.set()

    assert identity.remote(0).future().cancel()
    identity.remote(1).future().add_done_callback(callback)
    assert done.wait(DEADLINE_S)
    assert found == [2]
    with pytest.raises(ValueError, match="in a future"):
        fail.remote("in a future").future().result(DEADLINE_S)


def test_a_ref_by_hand_of_what_nobody_holds_is_not_waited_for():
    for ask in (lambda ref: shoal.get(ref, timeout=DEADLINE_S), identity.remote, lambda ref: shoal.wait([ref])):
        with pytest.raises(exceptions.ObjectLostError, match="by hand"):
            ask(shoal.ObjectRef.from_random())


def test_refs_and_handles_of_an_earlier_session_are_told_as_such():
    ref, big, counter = identity.remote(1), shoal.put(bytes(300_000)), Counter.remote()
    shoal.get([ref, counter.add.remote()], timeout=DEADLINE_S)
    shoal.shutdown()
    assert ref == ref  # noqa: PLR0124  the id is its own
    start()
    for lost in (ref, big):
        with pytest.raises(exceptions.ObjectLostError, match=r"before shutdown\(\)"):
            shoal.get(lost, timeout=DEADLINE_S)
        with pytest.raises(exceptions.ObjectLostError):
            identity.remote([lost])
    with pytest.raises(exceptions.ActorHandleNotFoundError, match="not known to this session"):
        counter.add.remote()
    with pytest.raises(exceptions.ActorHandleNotFoundError, match="not known to this session"):
        shoal.kill(counter)


def test_refs_die_quietly_after_the_session(tmp_path):
    program = """
import shoal
shoal.init(engine="ray", address="local", num_cpus=1, object_store_memory=100_000_000)
@shoal.remote
class A:
    def stream(self):
        yield 1
ref, actor = shoal.put(1), A.remote()
generator = actor.stream.remote()
next(generator)
shoal.shutdown()
del ref, actor, generator
print("over")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False, env=dict(os.environ)
    )
    assert ran.returncode == 0, ran.stderr
    assert "over" in ran.stdout
    assert "Traceback" not in ran.stderr
