"""What is the inline engine's own: when work runs, what never ends, and what one process shows. The rest is in
tests/core/api.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.core.engines import current
from shoal.core.runtime.concurrency import ThreadLanes

DEADLINE_S = 10


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    shoal.init(num_cpus=2, engine="inline", object_store_memory=64 * 1024 * 1024)
    yield
    shoal.shutdown()


@shoal.remote
def identity(value):
    return value


@shoal.remote
class Log:
    def __init__(self):
        self.lines = []

    def write(self, line):
        self.lines.append(line)
        return list(self.lines)

    def hand_on(self, me, line):
        """Call oneself: the call has to wait until this one is over."""
        later = me.write.remote(line)
        self.lines.append("first")
        return [later]

    def wait_for_oneself(self, me, timeout):
        return shoal.get(me.write.remote("never"), timeout=timeout)


def test_work_has_run_when_the_call_that_submits_it_returns(tmp_path):
    @shoal.remote
    def touch(name):
        (tmp_path / name).touch()

    for name in ("a", "b"):
        ref = touch.remote(name)
        assert (tmp_path / name).exists()
        assert shoal.wait([ref], timeout=0) == ([ref], [])


def test_work_runs_in_the_thread_that_submits_it_with_its_callers_on_the_stack():
    @shoal.remote
    def where():
        return threading.current_thread().name, os.getpid()

    assert shoal.get(where.remote()) == (threading.current_thread().name, os.getpid())


def test_what_goes_in_and_out_is_a_copy():
    log, argument = Log.remote(), ["line"]
    result = shoal.get(log.write.remote(argument))
    argument.append("changed")
    result.append("changed")
    assert shoal.get(log.write.remote("next")) == [["line"], "next"]


def test_what_a_function_captures_is_frozen_when_it_is_first_used():
    captured = [1]

    @shoal.remote
    def read():
        return captured

    assert shoal.get(read.remote()) == [1]
    captured.append(2)
    assert shoal.get(read.remote()) == [1]


def test_an_actor_that_calls_itself_is_not_entered_twice():
    log = Log.remote()
    (later,) = shoal.get(log.hand_on.remote(log, "second"))
    assert shoal.get(later) == ["first", "second"]


def test_a_wait_that_can_never_end_is_an_error_that_says_for_what():
    log = Log.remote()
    with pytest.raises(exceptions.RaySystemError, match=r"never end: .* Log.write\(\), which waits for its turn"):
        shoal.get(log.wait_for_oneself.remote(log, None))
    with pytest.raises(exceptions.GetTimeoutError):
        shoal.get(log.wait_for_oneself.remote(log, 0.01))


def test_work_that_waits_for_resources_says_so_and_runs_when_they_are_free():
    log = Log.options(num_cpus=2).remote()
    blocked = identity.remote("ran")
    with pytest.raises(exceptions.RaySystemError, match="resources that living actors hold: it needs CPU 1"):
        shoal.get(blocked)
    with pytest.raises(exceptions.RaySystemError):
        shoal.wait([blocked])
    with pytest.raises(exceptions.GetTimeoutError):
        shoal.get(blocked, timeout=0.01)
    waits_too = identity.options(num_cpus=0).remote(blocked)
    shoal.kill(log)
    assert shoal.get([blocked, waits_too]) == ["ran", "ran"]


def test_another_thread_may_end_a_wait_with_a_time_out():
    log = Log.options(num_cpus=2).remote()
    blocked = identity.remote("ran")
    killer = threading.Timer(0.1, shoal.kill, [log])
    killer.start()
    assert shoal.get(blocked, timeout=DEADLINE_S) == "ran"
    killer.join(DEADLINE_S)


def test_a_wait_for_what_another_thread_runs_lasts_until_it_is_there():
    begun, go = threading.Event(), threading.Event()
    events = {"begun": begun, "go": go}
    current.engine().events = events  # one process: the task can be handed what cannot be pickled

    @shoal.remote
    class Slow:
        def work(self):
            events = current.engine().events
            events["begun"].set()
            assert events["go"].wait(DEADLINE_S)
            return "done"

    slow, refs = Slow.remote(), []
    submitter = threading.Thread(target=lambda: refs.append(slow.work.remote()))
    submitter.start()
    assert begun.wait(DEADLINE_S)
    behind = slow.work.remote()
    assert shoal.wait([behind], timeout=0.05) == ([], [behind])
    threading.Timer(0.1, go.set).start()
    assert shoal.get(behind) == "done"
    submitter.join(DEADLINE_S)
    assert shoal.get(refs) == ["done"]


def test_the_arguments_of_failed_work_are_let_go_at_once():
    @shoal.remote
    def fail(container):
        raise ValueError("no")

    inner = shoal.put(np.zeros(4))
    object_id = inner.binary()
    gc.disable()
    try:
        ref = fail.remote([inner])
        del inner
        shoal.put(None)
        assert object_id not in current.engine().objects
        with pytest.raises(ValueError, match="no"):
            shoal.get(ref)
    finally:
        gc.enable()


def test_killing_an_actor_from_inside_its_own_call_fails_the_call():
    @shoal.remote
    class Suicidal:
        def end(self, me):
            shoal.kill(me)
            return "the code goes on, its result is dropped"

    suicidal = Suicidal.remote()
    with pytest.raises(exceptions.ActorDiedError, match="killed by kill"):
        shoal.get(suicidal.end.remote(suicidal))


def test_the_state_of_a_dead_actor_is_dropped():
    ended = []
    current.engine().ended = ended

    @shoal.remote
    class Mortal:
        def __del__(self):
            current.engine().ended.append(shoal.get(identity.remote("the API works here")))

    mortal = Mortal.remote()
    shoal.kill(mortal)
    assert ended == ["the API works here"]


def test_an_interrupt_fails_the_task_and_reaches_who_submitted_it():
    @shoal.remote
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(DEADLINE_S)

    with pytest.raises(KeyboardInterrupt):
        interrupted.remote()
    assert shoal.get(identity.remote(1)) == 1


def test_an_interrupt_ends_a_wait():
    log = Log.options(num_cpus=2).remote()
    blocked = identity.remote("ran")
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        shoal.get(blocked, timeout=DEADLINE_S)
    shoal.kill(log)
    assert shoal.get(blocked) == "ran"


def test_coroutines_may_wait_for_actors_that_call_them_back():
    @shoal.remote
    class Caller:
        def call(self, server):
            return shoal.get(server.answer.remote()) + 1

    @shoal.remote
    class Server:
        async def answer(self):
            return 41

        async def roundabout(self, caller, me):
            return await caller.call.remote(me)

    server = Server.remote()
    assert shoal.get(server.roundabout.remote(Caller.remote(), server), timeout=DEADLINE_S) == 42


def test_event_loops_end_with_their_actors():
    @shoal.remote
    class Waiter:
        async def wait(self):
            await asyncio.Event().wait()

    def there_are(loops: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while sum(thread.name == "shoal-asyncio" for thread in threading.enumerate()) != loops:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    there_are(0)  # those of earlier tests have ended
    waiter = Waiter.remote()
    pending = waiter.wait.remote()
    there_are(1)
    shoal.kill(waiter)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(pending, timeout=DEADLINE_S)
    there_are(0)


def test_refs_and_handles_of_an_earlier_session_are_refused():
    log, ref = Log.remote(), shoal.put(1)
    shoal.shutdown()
    shoal.init(num_cpus=2, engine="inline")
    with pytest.raises(exceptions.ObjectLostError):
        shoal.get(ref)
    with pytest.raises(exceptions.ActorDiedError, match="not known"):
        shoal.get(log.write.remote("x"))
    with pytest.raises(ValueError, match="not known"):
        shoal.kill(log)


def test_shutdown_fails_what_waits():
    log = Log.options(num_cpus=2).remote()
    blocked = identity.remote(log)
    future = blocked.future()
    threading.Timer(0.1, shoal.shutdown).start()
    with pytest.raises(exceptions.RaySystemError, match="shut down"):
        shoal.get(blocked, timeout=DEADLINE_S)
    with pytest.raises(exceptions.RaySystemError, match="shut down"):
        future.result(DEADLINE_S)


def test_an_unknown_engine_is_refused():
    shoal.shutdown()
    with pytest.raises(ValueError, match="'native', 'inline' and 'ray'"):
        shoal.init(engine="elsewhere")


def test_calls_of_several_threads_enter_the_lanes_of_an_actor_one_by_one(monkeypatch):
    @shoal.remote(max_concurrency=4)
    class Server:
        def serve(self):
            return 1

    inside, most = [], []
    start = ThreadLanes.start

    def watched(lanes, group, call):
        inside.append(call)
        most.append(len(inside))
        time.sleep(0.005)
        inside.pop()
        start(lanes, group, call)

    server = Server.remote()
    monkeypatch.setattr(ThreadLanes, "start", watched)
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(lambda: shoal.get(server.serve.remote(), timeout=DEADLINE_S)) for _ in range(16)]
        assert [call.result(DEADLINE_S) for call in calls] == [1] * 16
    assert set(most) == {1}
