"""When a long wait is reported."""

from __future__ import annotations

import pytest

from shoal.core.runtime.notices import WaitWatch
from shoal.core.runtime.reasons import Kind, Reason


def looks(*reasons):
    """What is told after each look, a second apart, when notice_s is 2."""
    told = []
    watch = WaitWatch("get", 2.0, lambda cause, words: told.append((cause, words)))
    after = []
    for reason in reasons:
        watch.look(lambda reason=reason: reason)
        after.append(len(told))
    return after, told


STUCK = Reason(Kind.STUCK, "f() waits in the queue", "resources:f")


def test_the_same_cause_at_two_looks_is_told_once():
    after, told = looks(STUCK, STUCK, STUCK, STUCK)
    assert after == [0, 1, 1, 1]
    assert told == [("resources:f", "get has been waiting for 2 s: f() waits in the queue")]


def test_another_cause_is_told_too():
    other = Reason(Kind.ENDLESS, "A waits for itself", "endless:1")
    assert looks(STUCK, STUCK, other, other)[0] == [0, 1, 1, 2]


def test_a_cause_that_has_just_begun_has_time():
    assert looks(Reason(Kind.RUNNING, "g runs"), STUCK, Reason(Kind.RUNNING, "f runs"), STUCK)[0] == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", [Kind.RUNNING, Kind.OVER])
def test_what_runs_is_never_told(kind):
    assert looks(*[Reason(kind, "f runs", "key")] * 100)[1] == []


@pytest.mark.parametrize("kind", [Kind.BUSY, Kind.UNKNOWN])
def test_what_will_probably_end_is_told_late(kind):
    after, _ = looks(*[Reason(kind, "f waits", "key")] * 13)
    assert after == [0] * 11 + [1, 1]
