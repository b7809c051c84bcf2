"""Lanes end with their actor, whatever still runs in them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from shoal.core.runtime.async_lanes import AsyncLanes
from shoal.core.runtime.concurrency import ThreadLanes

DEADLINE_S = 10


class Waiting:
    """A call that waits until it is told to go on."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.end = ""

    def run(self) -> None:
        self.began.set()
        self.go_on.wait(DEADLINE_S)
        self.end = "ran"

    async def run_async(self) -> None:
        self.began.set()
        try:
            await asyncio.sleep(DEADLINE_S)
            self.end = "ran"
        except asyncio.CancelledError:
            self.end = "cancelled"

    def cancelled(self) -> None:
        self.end = "cancelled before it began"


def eventually(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def descriptors():
    gc.collect()  # sessions of other tests, cyclic as they are, may have some
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors")
def test_an_event_loop_ends_though_its_lane_is_full_and_leaves_no_descriptor():
    gc.collect()  # event loops of other tests close theirs when they are collected
    before = descriptors()
    lanes = AsyncLanes(1, {})
    first, second = Waiting(b"1"), Waiting(b"2")
    lanes.start("", first)
    lanes.start("", second)
    assert first.began.wait(DEADLINE_S)
    lanes.close()
    eventually(lambda: not threads("shoal-asyncio"), "the thread of the loop has ended")
    assert (first.end, second.end) == ("cancelled", "cancelled before it began")
    assert descriptors() <= before


def test_threads_end_with_what_they_do_and_begin_nothing_more():
    lanes = ThreadLanes(1, {"other": 1})
    first, second = Waiting(b"1"), Waiting(b"2")
    lanes.start("", first)
    lanes.start("", second)
    assert first.began.wait(DEADLINE_S)
    lanes.close()
    first.go_on.set()
    eventually(lambda: not threads("shoal-call"), "the threads have ended")
    assert (first.end, second.end) == ("ran", "")
