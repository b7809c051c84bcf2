"""The background thread's decisions one by one, without the thread: what costs time only, and no message."""

import math
import os
import time
import types

import pytest

from shoal.core.transport import standby
from shoal.core.transport.standby import Standby

BACKGROUND_S = 0.005


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def watching(pipe):
    """One that waits for anything, without a deadline, while somebody drives."""
    loop = types.SimpleNamespace(left_at=0.0, posts=[], is_closed=False, due_at=lambda: math.inf)
    made = Standby(loop, BACKGROUND_S, pipe[0])
    made._watch.open(pipe[0])
    made._watching, made._deadline = True, time.monotonic() + 3600.0
    yield made
    made._watch.close()


def test_what_arrives_while_somebody_waits_for_it_wakes_nobody_else(watching, pipe):
    watching.left()
    watching.blocks()
    os.write(pipe[1], b"!")
    assert not watching._watch.wait(0.0)
    watching.left()
    assert watching._watch.wait(time.monotonic() + 60.0)


def test_only_what_is_due_before_it_wakes_by_itself_rings(watching):
    rung = []
    watching._watch.ring = lambda: rung.append(1)
    watching.hurry(watching._deadline)
    assert not rung
    watching.hurry(watching._deadline - 1.0)
    assert rung
    watching._watching = False
    watching.hurry(0.0)
    assert len(rung) == 1


@pytest.mark.parametrize("comes_by", [False, True])
def test_it_rests_for_as_long_as_user_code_may_see_to_it_and_works_if_that_did_not(watching, monkeypatch, comes_by):
    loop, slept = watching._loop, []
    loop.left_at = 10.0

    def sleep(seconds):
        slept.append(seconds)
        if comes_by:
            loop.left_at = 10.003

    monkeypatch.setattr(standby, "time", types.SimpleNamespace(monotonic=lambda: 10.002, sleep=sleep))
    assert watching._has_work(arrived=True) is not comes_by
    assert slept == [pytest.approx(0.003)]
