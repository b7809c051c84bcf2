"""How actors end themselves, what every actor answers, and how many calls may wait for one."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import shoal
from shoal.actor import exit_actor
from shoal.exceptions import ActorDiedError, PendingCallsLimitExceeded
from shoal.util.state import list_actors

DEADLINE_S = 20.0


@shoal.remote(max_restarts=5)
class Leaver:
    def __init__(self, number=0):
        self.number = number

    def leave(self):
        exit_actor()

    def add(self, amount):
        return self.number + amount


@shoal.remote
class AsyncLeaver:
    async def leave(self):
        await asyncio.sleep(0)
        exit_actor()


def test_an_actor_that_leaves_is_not_restarted():
    leaver = Leaver.remote()
    with pytest.raises(ActorDiedError, match="exit_actor"):
        shoal.get(leaver.leave.remote(), timeout=DEADLINE_S)
    with pytest.raises(ActorDiedError, match="exit_actor"):
        shoal.get(leaver.add.remote(1), timeout=DEADLINE_S)


def test_a_coroutine_can_leave():
    with pytest.raises(ActorDiedError, match="exit_actor"):
        shoal.get(AsyncLeaver.remote().leave.remote(), timeout=DEADLINE_S)


def test_only_actors_can_leave():
    with pytest.raises(TypeError, match="method of an actor"):
        exit_actor()


def test_every_actor_is_ready_calls_functions_and_can_be_told_to_end():
    leaver = Leaver.remote(10)
    assert shoal.get(leaver.__ray_ready__.remote(), timeout=DEADLINE_S) is True
    add = leaver.__ray_call__.remote(lambda self, amount: self.number + amount, amount=5)
    assert shoal.get(add, timeout=DEADLINE_S) == 15
    with pytest.raises(ActorDiedError):
        shoal.get(leaver.__ray_terminate__.remote(), timeout=DEADLINE_S)


@pytest.mark.not_inline("a process leaves")
def test_handlers_of_atexit_and_del_run_when_an_actor_leaves(tmp_path):
    @shoal.remote
    class Tidy:
        def __init__(self, folder):
            import atexit

            self.folder = folder
            atexit.register((folder / "atexit").touch)

        def __del__(self):
            (self.folder / "del").touch()

        def ready(self):
            return True

    tidy = Tidy.remote(tmp_path)
    shoal.get(tidy.ready.remote(), timeout=DEADLINE_S)
    del tidy
    deadline = time.monotonic() + DEADLINE_S
    while {path.name for path in tmp_path.iterdir()} != {"atexit", "del"}:
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.01)


@pytest.mark.not_inline("needs a call that is still running")
def test_more_calls_than_max_pending_calls_are_refused(tmp_path):
    @shoal.remote(max_pending_calls=2)
    class Slow:
        def work(self, path):
            while not path.exists():
                time.sleep(0.01)

    @shoal.remote
    def call(slow, path):
        return shoal.get(slow.work.remote(path))

    slow = Slow.remote()
    refs = [slow.work.remote(tmp_path / "go") for _ in range(2)]
    with pytest.raises(PendingCallsLimitExceeded, match=r"max_pending_calls is 2|more than 2 tasks are queued"):
        slow.work.remote(tmp_path / "go")
    other = call.remote(slow, tmp_path / "go")  # another process counts for itself
    (tmp_path / "go").touch()
    shoal.get([*refs, other], timeout=DEADLINE_S)
    shoal.get(slow.work.remote(tmp_path / "go"), timeout=DEADLINE_S)


@pytest.mark.not_inline("looks at processes")
def test_a_worker_leaves_after_max_calls_of_a_function():
    @shoal.remote(max_calls=2)
    def pid():
        return os.getpid()

    pids = [shoal.get(pid.remote(), timeout=DEADLINE_S) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2]
    assert len(set(pids)) == 3
    assert len(set(shoal.get([pid.remote() for _ in range(6)], timeout=2 * DEADLINE_S))) >= 3


@pytest.mark.not_inline("looks at processes")
def test_a_worker_that_leaves_after_max_calls_takes_nothing_with_it_that_is_needed():
    @shoal.remote(max_calls=1)
    def make():
        return [shoal.put("inner")]

    refs = [shoal.get(make.remote(), timeout=DEADLINE_S)[0] for _ in range(4)]
    time.sleep(0.2)
    assert shoal.get(refs, timeout=DEADLINE_S) == ["inner"] * 4


def test_max_calls_belongs_to_the_function():
    @shoal.remote
    def f():
        return 1

    with pytest.raises(ValueError, match="max_calls"):
        f.options(max_calls=1)


@shoal.remote(num_cpus=0)
class Taker:
    def __init__(self, *values):
        self.values = values


@shoal.remote(num_cpus=0)
class Gate:
    def __init__(self):
        self.open = asyncio.Event()

    async def wait(self):
        await self.open.wait()

    async def release(self):
        self.open.set()


def living(class_name):
    return [row for row in list_actors(timeout=10) if row.class_name == class_name and row.state != "DEAD"]


@pytest.mark.not_on_ray("it looks at the list of actors, which Ray has only with its API server")
def test_an_actor_that_nobody_holds_any_more_is_not_made_when_its_arguments_come():
    gate = Gate.remote()
    late = gate.wait.remote()
    taker = Taker.remote(late)
    del taker
    other = Taker.remote(late)
    shoal.get(gate.release.remote(), timeout=DEADLINE_S)
    shoal.get(other.__ray_ready__.remote(), timeout=DEADLINE_S)  # both had the same to wait for
    assert len(living("Taker")) == 1


def test_an_actor_may_be_killed_while_some_of_its_arguments_are_there():
    gate = Gate.remote()
    late = gate.wait.remote()
    taker = Taker.remote(shoal.put(b"early"), late)
    shoal.kill(taker)
    shoal.get(gate.release.remote(), timeout=DEADLINE_S)
    shoal.get(late, timeout=DEADLINE_S)
    with pytest.raises(ActorDiedError, match="killed"):
        shoal.get(taker.__ray_ready__.remote(), timeout=DEADLINE_S)
