"""Failures travel: text of the remote frames, an instance of the cause, whatever the cause's class does."""

# ruff: noqa: N818  these are exceptions of users, who name them as they like

from __future__ import annotations

import builtins
import sys
import threading
import types
from typing import Any

import pytest

from shoal.core import errors
from shoal.core.errors import ShoalError, TaskError
from shoal.core.serialization import values
from shoal.core.serialization.failures import serialize_error, serialize_failure
from shoal.core.serialization.values import FAILURE, deserialize

Group: Any = vars(builtins).get("ExceptionGroup")


def arrive(exception: BaseException, name: str = "f", actor: str | None = None) -> Any:
    sent = serialize_failure(exception, name=name, pid=1234, actor=actor)
    assert sent.kind == FAILURE
    return deserialize(sent.kind, sent.data, sent.buffers)


def caught(function, *args) -> Any:
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001  also what is no Exception
        return error
    raise AssertionError("it did not raise")


def raise_text() -> None:
    raise ValueError("text")


def raise_it(error: BaseException) -> None:
    raise error


def test_the_text_has_the_call_first_then_the_users_frames_then_the_error():
    lines = str(arrive(caught(raise_text))).splitlines()
    assert lines[0] == "shoal::f() (pid=1234, ip=127.0.0.1)"
    assert any("in raise_text" in line for line in lines)
    assert '    raise ValueError("text")' in lines
    assert lines[-1] == "ValueError: text"


def test_an_actors_text_says_which_actor():
    text = str(arrive(ValueError("x"), "Foo.bar", "Foo(3)"))
    assert text.startswith("shoal::Foo.bar() (pid=1234, ip=127.0.0.1, actor=Foo(3))\n")


def test_a_failure_is_an_instance_of_its_cause_with_the_cause_attached():
    error = arrive(caught(raise_text), actor="Foo(3)")
    assert isinstance(error, TaskError)
    assert isinstance(error, ValueError)
    assert type(error.cause) is ValueError
    assert error.cause.args == ("text",)
    assert (error.function_name, error.pid, error.actor_repr) == ("f", 1234, "Foo(3)")


def test_frames_of_the_runtime_are_hidden():
    class Explodes:
        def __reduce__(self):
            raise ValueError("in the user's __reduce__")

    def task() -> None:
        values.serialize(Explodes())

    text = str(arrive(caught(task)))
    assert "in task" in text
    assert "in __reduce__" in text
    assert "core/serialization/values.py" not in text.replace("\\", "/")
    assert "direct cause" in text


def test_an_error_of_the_runtime_alone_keeps_its_frames():
    error = caught(values.deserialize, 99, b"")
    error.__traceback__ = error.__traceback__.tb_next  # as caught inside the runtime
    assert "in deserialize" in str(arrive(error))


def test_a_task_that_raises_what_get_gave_it_reads_as_a_chain():
    inner = arrive(caught(raise_text), "f")
    outer = arrive(caught(raise_it, inner), "g")
    lines = str(outer).splitlines()
    assert lines[0] == "shoal::g() (pid=1234, ip=127.0.0.1)"
    assert any("in raise_it" in line for line in lines)
    assert any("TaskError(ValueError): shoal::f() (pid=1234, ip=127.0.0.1)" in line for line in lines)
    assert lines[-1] == "ValueError: text"
    assert isinstance(outer, ValueError)
    assert type(outer.cause) is ValueError


def test_a_task_whose_argument_failed_says_that_it_did_not_run():
    outer = arrive(arrive(caught(raise_text), "f"), "g")
    lines = str(outer).splitlines()
    assert lines[:2] == [
        "shoal::g() (pid=1234, ip=127.0.0.1)",
        "At least one of the input arguments for this task could not be computed:",
    ]
    assert any("shoal::f()" in line for line in lines)
    assert lines[-1] == "ValueError: text"
    assert isinstance(outer, ValueError)


def test_a_lost_argument_is_the_cause():
    outer = arrive(errors.OwnerDiedError("the owner is gone", object_ref_hex="ab"), "g")
    assert isinstance(outer, errors.OwnerDiedError)
    assert outer.object_ref_hex == "ab"
    assert "At least one of the input arguments for this task could not be computed" in str(outer)
    assert str(outer).endswith("OwnerDiedError: the owner is gone")


class NeedsKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class RefusesToReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("I do not travel")


class LoadsWrongly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(code)

    def __reduce__(self):
        return LoadsWrongly, (1,)


class Reduces(Exception):
    def __init__(self, lock: object, text: str) -> None:
        super().__init__(text)
        self.lock = lock

    def __reduce__(self):
        return Reduces, (None, *self.args)


class HoldsLock(Exception):
    def __init__(self) -> None:
        super().__init__("holding")
        self.lock = threading.Lock()


class CannotSpeak(Exception):
    def __str__(self) -> str:
        raise RuntimeError("mute")


@pytest.mark.parametrize(
    "cause",
    [NeedsKeyword(code=3), RefusesToReduce("r"), LoadsWrongly(code=4), CannotSpeak("c"), OSError(2, "no", "file")],
    ids=lambda cause: type(cause).__name__,
)
def test_exceptions_with_odd_constructors_survive(cause):
    error = arrive(caught(raise_it, cause))
    assert isinstance(error, type(cause))
    assert type(error.cause) is type(cause)
    assert error.cause.args == cause.args
    assert vars(error.cause) == vars(cause)


def test_an_exceptions_own_reduction_is_used():
    error = arrive(Reduces(threading.Lock(), "text"))
    assert isinstance(error, Reduces)
    assert error.cause.lock is None


def test_an_unpicklable_exception_arrives_as_text():
    error = arrive(caught(raise_it, HoldsLock()))
    assert type(error) is TaskError
    assert type(error.cause) is ShoalError
    assert "HoldsLock: holding" in str(error.cause)
    assert "lock" in str(error.cause)
    assert str(error).endswith("HoldsLock: holding")


class RaisesForAnyAttribute(Exception):
    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


def test_an_exception_whose_attributes_cannot_be_read_arrives_as_its_name():
    error = arrive(caught(raise_it, RaisesForAnyAttribute()))
    assert isinstance(error, TaskError)
    assert isinstance(error, RaisesForAnyAttribute)
    assert "in raise_it" in str(error)
    name = f"{__name__}.RaisesForAnyAttribute"
    assert str(error).endswith(f"{name} (its text cannot be made: builtins.RuntimeError)")


def test_an_exception_whose_class_is_missing_here_arrives_as_text(monkeypatch):
    module = types.ModuleType("shoal_test_only_there")
    remote = type("Remote", (Exception,), {"__module__": module.__name__})
    monkeypatch.setattr(module, "Remote", remote, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sent = serialize_failure(remote("far"), name="f", pid=1)
    monkeypatch.delitem(sys.modules, module.__name__)
    error: Any = deserialize(sent.kind, sent.data)
    assert type(error) is TaskError
    assert "Remote: far" in str(error.cause)
    assert "ModuleNotFoundError" in str(error.cause)


def test_system_exit_in_a_task_does_not_exit_here():
    error = arrive(caught(raise_it, SystemExit(3)))
    assert type(error) is TaskError
    assert error.cause.code == 3


def test_an_arrived_failure_can_be_sent_on():
    error = arrive(caught(raise_it, NeedsKeyword(code=3)))
    copy: Any = deserialize(FAILURE, serialize_error(error).data)
    assert type(copy) is type(error)
    assert (str(copy), copy.code, copy.cause.code) == (str(error), 3, 3)


@pytest.mark.parametrize(
    "error",
    [
        errors.WorkerCrashedError("signal 9"),
        errors.ActorDiedError("dead", actor_id="ab"),
        errors.TaskCancelledError(task_id="cd"),
        TaskError("text without a cause"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_runtimes_own_errors_travel_as_they_are(error):
    copy = deserialize(FAILURE, serialize_error(error).data)
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.skipif(Group is None, reason="ExceptionGroup came with Python 3.11")
def test_a_group_of_odd_exceptions_survives():
    error = arrive(Group("several", [NeedsKeyword(code=3), ValueError("v")]))
    assert isinstance(error, Group)
    assert [type(part) for part in error.exceptions] == [NeedsKeyword, ValueError]
    assert error.exceptions[0].code == 3
