"""A policy that is elsewhere, in front of an actor that follows a script."""

import types

import numpy as np
import pytest

from shoal.core import errors
from shoal.rllib.inference import inference_client
from shoal.rllib.inference.inference import Answer, Unknown, Valued
from shoal.rllib.inference.inference_client import InStore, RemotePolicy
from shoal.rllib.worker_set import WorkerLostError

ROWS, STATES = {"observation": np.zeros((2, 1), np.float32)}, np.zeros((2, 0), np.float32)


class Scripted:
    """An actor's handle. Each call's answer is the next of the script; an exception is raised by ``get``.

    Args:
      answers: By method.
    """

    def __init__(self, **answers):
        self.called = []
        for method, script in answers.items():
            setattr(self, method, types.SimpleNamespace(remote=self._remote(method, iter(script))))

    def _remote(self, method, script):
        def remote(*arguments):
            self.called.append((method, *arguments[:2]))
            return next(script)

        return remote


class Ref:
    """Of weights in the store."""

    weights = types.SimpleNamespace(spec=types.SimpleNamespace(state_size=0, is_recurrent=False), version=7)

    def hex(self):
        return "key"


@pytest.fixture(autouse=True)
def _store(monkeypatch):
    def get(ref):
        if isinstance(ref, Exception):
            raise ref
        return ref.weights if isinstance(ref, Ref) else ref

    monkeypatch.setattr(inference_client.api, "get", get)


def policy(**script):
    actor = Scripted(**{"begin": [1, 2, 3, 4], **script})
    return RemotePolicy(actor, 5, 9, InStore(Ref())), actor


def answer(life, batch_rows=2):
    return Answer(7, life, batch_rows, np.ones((2, 3), np.float32), None, None)


def test_what_was_asked_is_answered_when_it_is_called_for():
    acting, actor = policy(step=[answer(1, 6), answer(1)], values=[Valued(1, np.ones(2))])
    assert (acting.version, acting.is_elsewhere, acting.initial_states(4).shape) == (7, True, (4, 0))
    first, second = acting.ask(ROWS, STATES), acting.ask(ROWS, STATES)
    acted = second()
    assert acted.states is STATES
    np.testing.assert_array_equal(first().parameters, 1.0)
    np.testing.assert_array_equal(acting.values(ROWS), 1.0)
    assert actor.called == [("begin", 9, "key"), *[("step", 9, "key")] * 2, ("values", 9, "key")]
    exchange = acting.exchange
    assert (exchange.actor, exchange.lives, exchange.requests, exchange.batch_rows) == (5, {1}, 2, 8)
    assert exchange.asked_again == 0


def test_another_life_is_begun_with_once_and_asked_again_by_all_that_were_on_their_way():
    acting, actor = policy(step=[Unknown(2), Unknown(2), answer(2), answer(2)])
    both = [acting.ask(ROWS, STATES), acting.ask(ROWS, STATES)]
    for each in both:
        np.testing.assert_array_equal(each().parameters, 1.0)
    step, begin = ("step", 9, "key"), ("begin", 9, "key")
    assert actor.called == [begin, step, step, begin, step, step]
    assert acting.exchange.asked_again == 2
    assert acting.exchange.lives == {1, 2}


def test_an_actor_that_dies_twice_while_two_groups_have_asked_is_begun_with_once():
    # The second life says that it does not know the weights, to both; the third is there when the worker begins. A
    # further ``begin`` would withdraw what has been asked of it meanwhile.
    acting, actor = policy(begin=[1, 3], step=[Unknown(2), Unknown(2), answer(3), answer(3), answer(3)])
    first, second = acting.ask(ROWS, STATES), acting.ask(ROWS, STATES)
    first()
    third = acting.ask(ROWS, STATES)
    for each in (second, third):
        np.testing.assert_array_equal(each().parameters, 1.0)
    assert [method for method, *_ in actor.called].count("begin") == 2


def test_an_actor_that_forgets_again_and_again_ends_the_run_by_name():
    acting, _ = policy(step=[Unknown(2), Unknown(3), Unknown(4), None])
    with pytest.raises(WorkerLostError, match=r"^inference actor 5 was restarted 3 times during one request$"):
        acting.ask(ROWS, STATES)()


def test_an_actor_that_keeps_dying_ends_the_run_by_name_and_says_why():
    acting, _ = policy(step=[errors.ActorUnavailableError("its process ended with signal SIGKILL (9)")])
    with pytest.raises(WorkerLostError, match=r"^inference actor 5 keeps dying: its process ended with signal SIGKILL"):
        acting.ask(ROWS, STATES)()


def test_what_the_policy_raised_is_raised_here():
    cause = MemoryError("of the GPU")
    acting, _ = policy(step=[errors.TaskError("step", "Traceback", cause)])
    with pytest.raises(MemoryError, match="of the GPU"):
        acting.ask(ROWS, STATES)()
