"""Futures of refs, without a process."""

from __future__ import annotations

import threading

import pytest

from shoal.core.errors import SessionError
from shoal.core.runtime.futures import FutureDesk

DEADLINE_S = 10.0


class Objects:
    """Who watches what; a value is its key."""

    def __init__(self):
        self.watchers = []
        self.desk = FutureDesk(
            lambda ref, ready: self.watchers.append((ref, ready)),
            self.unwatch,
            lambda ref: f"value of {ref}",
        )

    def unwatch(self, ref, ready):
        if (ref, ready) in self.watchers:
            self.watchers.remove((ref, ready))

    def resolve(self):
        watchers, self.watchers[:] = list(self.watchers), []
        for ref, ready in watchers:
            ready(ref)


@pytest.fixture
def objects():
    made = Objects()
    yield made
    made.desk.fail(SessionError("the test is over"))


def test_a_future_is_fulfilled_by_another_thread(objects):
    future = objects.desk.add("a")
    objects.resolve()
    assert future.result(DEADLINE_S) == "value of a"
    assert not objects.desk._open


def test_one_that_is_cancelled_is_forgotten_at_once(objects):
    for _ in range(100):
        assert objects.desk.add("a").cancel()
    assert not objects.watchers
    assert not objects.desk._open
    kept = objects.desk.add("a")
    objects.resolve()
    assert kept.result(DEADLINE_S) == "value of a"


def test_cancelling_what_is_ready_does_no_harm(objects):
    for _ in range(200):
        future = objects.desk.add("a")
        thread = threading.Thread(target=future.cancel)
        thread.start()
        objects.resolve()
        thread.join()
        assert future.cancelled() or future.result(DEADLINE_S) == "value of a"
    assert not objects.desk._open


def test_what_comes_after_the_end_fails_at_once(objects):
    waiting = objects.desk.add("a")
    objects.desk.fail(SessionError("over"))
    for future in (waiting, objects.desk.add("b")):
        with pytest.raises(SessionError, match="over"):
            future.result(DEADLINE_S)
