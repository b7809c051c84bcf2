"""Exceptions of tasks whose refs go before anybody has asked for them: logged once, on every engine."""

from __future__ import annotations

import gc
import logging
import time

import pytest

import shoal

DEADLINE_S = 20.0


@shoal.remote
def fail():
    raise ValueError("nobody looks")


@shoal.remote
def take(value):
    return value


def settle():
    """Let what has happened to refs be worked off."""
    gc.collect()
    for _ in range(3):
        shoal.get(take.remote(1), timeout=DEADLINE_S)


def eventually(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def messages(caplog):
    """Of shoal; and of Ray, where Ray tells of it."""
    names = ("shoal", "ray._private.worker")
    return [record.getMessage() for record in caplog.records if record.name in names and record.levelname == "ERROR"]


def test_an_exception_that_nobody_asks_for_is_logged_once(caplog, session):
    with caplog.at_level(logging.ERROR, "shoal"):
        refs = fail.options(num_returns=3, num_cpus=2).remote()
        shoal.get(take.options(num_cpus=2).remote(1), timeout=DEADLINE_S)  # by then it is over; to Ray, a wait asks
        del refs
        settle()
        eventually(lambda: messages(caplog))
    (message, *others) = messages(caplog)
    assert not others or session == "ray", "Ray tells of each return"
    assert "Unhandled error" in message
    assert "ValueError: nobody looks" in message


@pytest.mark.parametrize(
    "ask",
    [
        lambda ref: shoal.get(ref, timeout=DEADLINE_S),
        lambda ref: ref.future().result(DEADLINE_S),
        lambda ref: shoal.get(take.remote(ref), timeout=DEADLINE_S),
    ],
    ids=["get", "future", "argument"],
)
def test_an_exception_that_somebody_has_got_is_not_logged(caplog, ask):
    with caplog.at_level(logging.ERROR, "shoal"):
        ref = fail.remote()
        with pytest.raises(ValueError, match="nobody looks"):
            ask(ref)
        del ref
        settle()
    assert messages(caplog) == []


def test_the_end_of_an_actor_is_not_an_unhandled_error(caplog):
    @shoal.remote
    class Actor:
        def wait(self):
            time.sleep(0.1)

    with caplog.at_level(logging.ERROR, "shoal"):
        actor = Actor.remote()
        ref = actor.wait.remote()
        shoal.kill(actor)
        shoal.wait([ref], timeout=DEADLINE_S)
        del ref
        settle()
    assert messages(caplog) == []


def test_who_does_not_want_to_know_is_not_told(caplog, monkeypatch, session):
    shoal.shutdown()
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    try:
        with shoal.init(num_cpus=2, engine=session, address="local"), caplog.at_level(logging.ERROR, "shoal"):
            ref = fail.remote()
            shoal.wait([ref], timeout=DEADLINE_S)
            del ref
            settle()
        assert messages(caplog) == []
    finally:
        monkeypatch.undo()
        shoal.init(num_cpus=2, engine=session, address="local")
