"""What an actor can ask about itself, on every engine."""

from __future__ import annotations

import os
import time

import pytest

import shoal

DEADLINE_S = 20.0


@shoal.remote(max_restarts=1)
class Introspective:
    def name(self):
        return shoal.get_runtime_context().get_actor_name()

    def me(self):
        return shoal.get_runtime_context().current_actor

    def was_restarted(self):
        return shoal.get_runtime_context().was_current_actor_reconstructed

    def pid(self):
        return os.getpid()


def test_an_actor_knows_its_name():
    assert shoal.get(Introspective.remote().name.remote(), timeout=DEADLINE_S) == ""
    named = Introspective.options(name="the introspective one").remote()
    assert shoal.get(named.name.remote(), timeout=DEADLINE_S) == "the introspective one"


def test_an_actor_can_hand_itself_on():
    actor = Introspective.remote()
    same = shoal.get(actor.me.remote(), timeout=DEADLINE_S)
    assert same == actor
    assert shoal.get(same.pid.remote(), timeout=DEADLINE_S) == shoal.get(actor.pid.remote(), timeout=DEADLINE_S)


def test_an_actor_knows_whether_it_was_restarted():
    actor = Introspective.remote()
    assert shoal.get(actor.was_restarted.remote(), timeout=DEADLINE_S) is False
    shoal.kill(actor, no_restart=False)

    deadline = time.monotonic() + DEADLINE_S

    def asked_again():
        """False may come from the old process: calls go to it directly, and the kill by way of the head."""
        while time.monotonic() < deadline:
            try:
                if shoal.get(actor.was_restarted.remote(), timeout=DEADLINE_S):
                    return True
            except shoal.exceptions.ActorUnavailableError:
                pass
        return False

    assert asked_again() is True


def test_outside_actors_there_is_nothing_to_ask():
    context = shoal.get_runtime_context()
    assert context.get_actor_name() is None
    with pytest.raises(RuntimeError, match="in an actor"):
        _ = context.current_actor
    with pytest.raises(RuntimeError, match="in an actor"):
        _ = context.was_current_actor_reconstructed
