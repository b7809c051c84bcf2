"""An event loop that drives the process's loop: what it sees to, and what becomes of it when it cannot or must not.

Every order of events is in transport/test_standby.py; here are two endpoints, real threads and asyncio itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from shoal.core.protocol import messages as m
from shoal.core.runtime import driving_selector
from shoal.core.runtime.async_lanes import AsyncLanes
from shoal.core.transport.endpoint import Endpoint
from shoal.core.transport.loop import Loop

TOKEN = b"t" * 32
A, B = b"a" * 12, b"b" * 12
DEADLINE_S = 10

pytestmark = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="needs epoll")


class Call:
    """A call that does what it is told to; `Call.threads` are where."""

    def __init__(self, key, work):
        self.key, self.work = key, work
        self.thread = 0
        self.over = threading.Event()

    async def run_async(self):
        self.thread = threading.get_ident()
        await self.work()
        self.over.set()

    def cancelled(self):
        self.over.set()


class Worker:
    """A loop with lanes that drive it: calls come as questions."""

    def __init__(self, directory, carrier="unix"):
        self.endpoint = Endpoint(directory, B, TOKEN, carrier=carrier)
        self.loop = Loop(self.endpoint, background_s=0.005)
        self.loop.start_background()
        self.faults = []
        self.calls = {}
        self.seen = []
        self.lanes = AsyncLanes(100, {}, self.loop, self.faults.append)
        self.loop.on(m.FetchFunction, self._call)
        self.loop.on(m.ItemsTaken, lambda peer, message: self.seen.append(message.count))

    def _call(self, peer, message):
        self.lanes.start("", self.calls[message.request])

    def close(self):
        self.lanes.close()
        self.loop.close()
        self.endpoint.close()


class Caller:
    def __init__(self, directory):
        self.endpoint = Endpoint(directory, A, TOKEN, carrier="unix")
        self.loop = Loop(self.endpoint, background_s=0.005)

    def say(self, message):
        self.loop.submit(lambda _: self.loop.send(B, message), None)

    def close(self):
        self.loop.close()
        self.endpoint.close()


@pytest.fixture
def worker(tmp_path):
    made = Worker(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def caller(tmp_path, worker):
    made = Caller(str(tmp_path))
    yield made
    made.close()


def eventually(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def asking(worker, caller, work, number=1):
    call = worker.calls[number] = Call(b"%d" % number, work)
    caller.say(m.FetchFunction(number, b"key"))
    return call


def test_a_call_is_read_and_run_in_one_thread_while_asyncio_has_nothing_to_do(worker, caller):
    read_in = []
    worker.loop.on(m.ItemsTaken, lambda peer, message: read_in.append(threading.get_ident()))

    async def nothing():
        pass

    call = asking(worker, caller, nothing)
    assert call.over.wait(DEADLINE_S)
    caller.say(m.ItemsTaken(b"t", 1))
    eventually(lambda: read_in, "the message is read")
    assert read_in == [call.thread]


def test_what_arrives_while_a_coroutine_blocks_is_seen_to_by_another_thread(worker, caller):
    go_on = threading.Event()

    async def block():
        go_on.wait(DEADLINE_S)

    call = asking(worker, caller, block)
    eventually(lambda: call.thread, "it runs")
    caller.say(m.ItemsTaken(b"t", 1))
    eventually(lambda: worker.seen, "the background thread reads it")
    assert not call.over.is_set()
    go_on.set()
    assert call.over.wait(DEADLINE_S)


def test_an_event_loop_that_is_never_idle_sees_to_what_comes(worker, caller):
    reads, writes = os.pipe()
    try:

        async def spin():
            came = []
            asyncio.get_running_loop().add_reader(reads, lambda: came.append(os.read(reads, 1)))
            os.write(writes, b"!")
            while not (came and worker.seen):  # noqa: ASYNC110  never idle is what it is to be
                await asyncio.sleep(0)
            asyncio.get_running_loop().remove_reader(reads)

        call = asking(worker, caller, spin)
        caller.say(m.ItemsTaken(b"t", 1))
        assert call.over.wait(DEADLINE_S)
    finally:
        os.close(reads)
        os.close(writes)


def test_timers_and_other_threads_wake_asyncio_while_it_drives(worker, caller):
    async def waits():
        await asyncio.sleep(0.02)
        await asyncio.to_thread(time.sleep, 0.02)
        await asyncio.wait_for(asyncio.Event().wait(), 0.02)

    async def fails():
        with pytest.raises(asyncio.TimeoutError):
            await waits()

    began = time.monotonic()
    assert asking(worker, caller, fails).over.wait(DEADLINE_S)
    assert time.monotonic() - began >= 0.06


def test_when_it_is_to_stop_driving_another_thread_can_and_calls_still_run(worker, caller):
    async def nothing():
        pass

    read_in = []
    worker.loop.on(m.ItemsTaken, lambda peer, message: read_in.append(threading.get_ident()))
    worker.lanes.stop_driving()
    worker.loop.flush(DEADLINE_S)
    call = asking(worker, caller, nothing)
    caller.say(m.ItemsTaken(b"t", 1))
    assert worker.loop.drive_until(lambda: read_in, DEADLINE_S)
    assert read_in == [threading.get_ident()]
    assert call.over.wait(DEADLINE_S)


def test_a_call_that_comes_in_its_own_thread_is_run_though_it_stops_driving_in_that_same_turn(worker, caller):
    async def nothing():
        pass

    async def waits_in_the_loop():
        assert worker.loop.drive_until(lambda: worker.seen, DEADLINE_S)
        worker.lanes.stop_driving()

    first = asking(worker, caller, waits_in_the_loop)
    eventually(lambda: first.thread, "it waits, and drives")
    late = worker.calls[2] = Call(b"2", nothing)
    caller.say(m.FetchFunction(2, b"key"))
    caller.say(m.ItemsTaken(b"t", 1))
    assert first.over.wait(DEADLINE_S)
    assert late.over.wait(DEADLINE_S)
    assert not worker.lanes.drives


def test_a_fault_of_ours_while_it_drives_is_told(worker, caller, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    fault = RuntimeError("a handler has failed")

    def fails(peer, message):
        raise fault

    worker.loop.on(m.ItemsTaken, fails)
    caller.say(m.ItemsTaken(b"t", 1))
    eventually(lambda: worker.faults, "it is told")
    assert worker.faults == [fault]


def test_it_leaves_the_driving_to_others_where_it_cannot(tmp_path, monkeypatch):
    class Policy(asyncio.DefaultEventLoopPolicy):
        pass

    monkeypatch.setattr(driving_selector.asyncio, "get_event_loop_policy", Policy)
    other = Worker(str(tmp_path))
    assert not other.lanes.drives
    other.close()
    monkeypatch.undo()
    other = Worker(str(tmp_path), carrier="zmq")
    assert not other.lanes.drives
    other.close()
