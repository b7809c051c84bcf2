"""Actors that run several calls at once: coroutines, threads, concurrency groups."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions

DEADLINE_S = 30
#: What is said on a Ray cluster of a process that is gone.
ON_RAY = "its worker process has died"


@shoal.remote
class Gate:
    """Calls wait at the gate until another call opens it."""

    def __init__(self):
        self.event = asyncio.Event()
        self.inside = self.most = 0

    async def wait(self):
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.event.wait()
        self.inside -= 1
        return self.most

    async def waiting(self):
        return self.inside

    async def open(self):
        self.event.set()

    def plain(self):
        return asyncio.get_running_loop() is not None

    async def fail(self):
        await asyncio.sleep(0)
        raise KeyError("async")

    async def fetch(self, refs):
        return await asyncio.gather(*refs)

    async def leave(self):
        raise SystemExit(4)


@shoal.remote
class Workers:
    """Counts how many of its calls run at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def work(self, seconds=0.2):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(seconds)
        with self.lock:
            self.inside -= 1
        return threading.current_thread().name

    def highest(self):
        return self.most

    def nested(self, n):
        return shoal.get(double.remote(n))

    def array(self):
        return np.ones(200_000)

    def leave(self):
        raise SystemExit(5)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


@shoal.remote
def double(x):
    return 2 * x


def test_coroutines_of_one_actor_wait_at_the_same_time():
    gate = Gate.remote()
    waiting = [gate.wait.remote() for _ in range(50)]
    deadline = time.monotonic() + DEADLINE_S
    while shoal.get(gate.waiting.remote(), timeout=DEADLINE_S) < 50:
        assert time.monotonic() < deadline
    assert shoal.wait(waiting, timeout=0) == ([], waiting)
    shoal.get(gate.open.remote(), timeout=DEADLINE_S)
    assert set(shoal.get(waiting, timeout=DEADLINE_S)) == {50}
    assert shoal.get(gate.plain.remote(), timeout=DEADLINE_S)


def test_max_concurrency_bounds_coroutines():
    gate = Gate.options(max_concurrency=3).remote()
    waiting = [gate.wait.remote() for _ in range(2)]
    shoal.get(gate.open.remote(), timeout=DEADLINE_S)
    assert max(shoal.get(waiting, timeout=DEADLINE_S)) <= 2


def test_an_error_in_a_coroutine_is_the_calls_own():
    gate = Gate.remote()
    with pytest.raises(KeyError, match="async") as caught:
        shoal.get(gate.fail.remote(), timeout=DEADLINE_S)
    assert "test_concurrent_actors.py" in str(caught.value)
    assert shoal.get(gate.plain.remote(), timeout=DEADLINE_S)


def test_refs_can_be_awaited_in_coroutines():
    assert shoal.get(Gate.remote().fetch.remote([double.remote(i) for i in range(5)]), timeout=DEADLINE_S) == [
        0,
        2,
        4,
        6,
        8,
    ]


def test_calls_of_a_threaded_actor_run_at_once_up_to_its_bound():
    workers = Workers.options(max_concurrency=4).remote()
    names = shoal.get([workers.work.remote() for _ in range(12)], timeout=DEADLINE_S)
    assert len(set(names)) == 4
    assert shoal.get(workers.highest.remote(), timeout=DEADLINE_S) == 4


def test_threads_may_use_the_api_and_return_large_arrays():
    workers = Workers.options(max_concurrency=8).remote()
    refs = [workers.nested.remote(i) for i in range(40)]
    arrays = [workers.array.remote() for _ in range(10)]
    assert shoal.get(refs, timeout=DEADLINE_S) == [2 * i for i in range(40)]
    assert all(array.sum() == 200_000 for array in shoal.get(arrays, timeout=DEADLINE_S))


def test_concurrency_groups_do_not_hold_each_other_up():
    @shoal.remote(concurrency_groups={"io": 1, "slow": 1})
    class Grouped:
        @shoal.method(concurrency_group="slow")
        def sleep(self):
            time.sleep(1)

        @shoal.method(concurrency_group="io")
        def quick(self):
            return threading.get_ident()

        def default(self):
            return threading.get_ident()

    grouped = Grouped.remote()
    slow = grouped.sleep.remote()
    io = shoal.get(grouped.quick.remote(), timeout=DEADLINE_S)
    assert shoal.get(grouped.default.remote(), timeout=DEADLINE_S) != io
    assert shoal.get(grouped.default.options(concurrency_group="io").remote(), timeout=DEADLINE_S) == io
    assert shoal.wait([slow], timeout=0) == ([], [slow])
    with pytest.raises(ValueError, match="no concurrency group 'nowhere'"):
        shoal.get(grouped.quick.options(concurrency_group="nowhere").remote(), timeout=DEADLINE_S)
    shoal.get(slow, timeout=DEADLINE_S)


@pytest.mark.parametrize("make", [lambda: Gate.remote(), lambda: Workers.options(max_concurrency=2).remote()])
def test_leaving_from_a_call_ends_the_actor_with_its_code(make):
    actor = make()
    with pytest.raises(exceptions.ActorDiedError, match=rf"exit code [45]|{ON_RAY}"):
        shoal.get(actor.leave.remote(), timeout=DEADLINE_S)


@pytest.mark.not_inline("kills its process")
def test_calls_under_way_in_several_threads_fail_with_the_death_of_the_actor():
    workers = Workers.options(max_concurrency=4).remote()
    refs = [workers.work.remote(30) for _ in range(3)]
    shoal.wait(refs, timeout=0.3)
    workers.die.remote()
    for ref in refs:
        with pytest.raises(exceptions.ActorDiedError, match=f"SIGKILL|{ON_RAY}"):
            shoal.get(ref, timeout=DEADLINE_S)


def test_an_actor_out_of_scope_finishes_the_calls_under_way_first(tmp_path):
    @shoal.remote(max_concurrency=2)
    class Writer:
        def write(self, name):
            time.sleep(0.3)
            (tmp_path / name).touch()

    writer = Writer.remote()
    refs = [writer.write.remote(name) for name in ("a", "b", "c")]
    del writer
    shoal.get(refs, timeout=DEADLINE_S)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_groups_belong_to_the_class_and_have_sound_bounds():
    with pytest.raises(ValueError, match="@remote"):
        Workers.options(concurrency_groups={"io": 1})
    with pytest.raises(ValueError, match="io"):
        shoal.remote(concurrency_groups={"io": 0})(type("Empty", (), {}))
    with pytest.raises(ValueError, match="max_concurrency"):
        Workers.options(max_concurrency=0)


@shoal.remote
class Careless:
    """Harms the loop that it shares with the runtime."""

    async def harm(self, how):
        if how == "stop":
            asyncio.get_running_loop().stop()
        else:
            self.task = asyncio.create_task(self.end_all(how))
            # Else asyncio tells of it when the task is collected; Python 3.11 fails if that is within ast.parse.
            self.task.add_done_callback(asyncio.Task.exception)
        await asyncio.sleep(0.01)
        return how

    async def end_all(self, how):
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[how]

    async def ping(self):
        return "pong"


@pytest.mark.not_on_ray("the event loop is Ray's, and nobody starts it again")
@pytest.mark.parametrize("how", ["stop", "exit", "interrupt"])
def test_calls_go_on_when_user_code_ends_the_event_loop(how):
    actor = Careless.remote()
    assert shoal.get(actor.harm.remote(how), timeout=DEADLINE_S) == how
    assert shoal.get(actor.ping.remote(), timeout=DEADLINE_S) == "pong"


class CannotBeLookedAt(Exception):  # noqa: N818  a user's
    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.not_inline("ends a process")
@pytest.mark.parametrize("kind", ["async", "threads"])
def test_an_exception_that_cannot_be_looked_at_ends_the_actor_and_not_only_the_call(kind):
    class Raising:
        def fail(self):
            raise CannotBeLookedAt

        async def fail_async(self):
            raise CannotBeLookedAt

    if kind == "threads":
        del Raising.fail_async
    actor = shoal.remote(Raising).options(max_concurrency=2).remote()
    call = actor.fail if kind == "threads" else actor.fail_async
    with pytest.raises(exceptions.ActorDiedError, match=f"exit code 1|{ON_RAY}"):
        shoal.get(call.remote(), timeout=DEADLINE_S)
