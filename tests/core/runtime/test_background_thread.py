"""The thread that looks after a worker while user code runs is not woken for nothing: each time takes Python's lock
from user code.
"""

from __future__ import annotations

import time

import pytest

import shoal


@pytest.fixture(scope="module", autouse=True)
def session():
    with shoal.init(num_cpus=2):
        yield


class Counting:
    """An actor that counts how often its background thread is rung for."""

    def __init__(self):
        from shoal.core.transport import standby

        self._rings = 0
        ring = standby._Watch.ring

        def counted(watch):
            self._rings += 1
            ring(watch)

        standby._Watch.ring = counted

    def work(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass

    def rings(self):
        return self._rings


class CountingCoroutines(Counting):
    async def answer(self):
        return None


def test_calls_that_wait_behind_another_of_a_serial_actor_ring_for_nobody():
    actor = shoal.remote(Counting).remote()
    before, began = shoal.get(actor.rings.remote()), time.monotonic()
    under_way = [actor.work.remote(0.004) for _ in range(3)]
    for _ in range(50):
        shoal.get(under_way.pop(0), timeout=10)
        under_way.append(actor.work.remote(0.004))
    shoal.get(under_way, timeout=10)
    # The process's own timers ring, too, now and then; it was once for every second call, 5 ms of work.
    assert shoal.get(actor.rings.remote()) - before <= 3 + 2 * (time.monotonic() - began)


def test_an_event_loop_that_has_slept_rings_for_nobody_when_it_wakes():
    actor = shoal.remote(CountingCoroutines).remote()
    before = shoal.get(actor.rings.remote())
    for _ in range(5):
        time.sleep(0.25)  # longer than its background thread sleeps while there is something to do
        shoal.get(actor.answer.remote(), timeout=10)
    assert shoal.get(actor.rings.remote()) - before <= 4, "it was two for each call"
