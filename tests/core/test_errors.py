"""The exception tree: every class survives pickle, and a failed task's error is an instance of its cause."""

# ruff: noqa: N818  these are exceptions of users, who name them as they like

from __future__ import annotations

import builtins
import gc
import inspect
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from shoal.core import errors, task_error
from shoal.core.errors import ShoalError, TaskError

Group: Any = vars(builtins).get("ExceptionGroup")
CLASSES = sorted(
    {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, ShoalError)},
    key=lambda cls: cls.__name__,
)


def failed(cause: BaseException | None) -> Any:
    return TaskError("f", "shoal::f() (pid=7)\nValueError: x", cause, pid=7, actor_repr="Foo(1)")


class NeedsKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Slotted(Exception):
    __slots__ = ("detail", "never_filled")
    detail: object
    never_filled: object


class RefusesToReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("I do not travel")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class HasOwnCause(Exception):
    @property
    def cause(self) -> str:
        return "mine"


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("do not subclass me")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_keeps_type_message_and_attributes_through_pickle(cls):
    error = cls("what happened")
    vars(error).update({name: "changed" for name in vars(error) if name not in ("traceback_str", "cause")})
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error) == "what happened"
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_what_it_is_and_stands_in_the_drawn_tree(cls):
    assert cls.__doc__
    assert cls.__name__ in errors.__doc__


def test_rays_names_are_the_same_classes():
    assert errors.RayError is ShoalError
    assert errors.RayTaskError is TaskError
    assert errors.RayActorError is errors.ActorError
    assert errors.LocalRayletDiedError is errors.HeadDiedError


def test_errors_that_are_also_builtins_are_caught_as_such():
    assert issubclass(errors.GetTimeoutError, TimeoutError)
    assert issubclass(errors.ActorAlreadyExistsError, ValueError)
    assert issubclass(errors.ActorHandleNotFoundError, ValueError)


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("x"),
        KeyError("k"),
        FileNotFoundError(2, "no such file", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ImportError("m", name="mod"),
        SyntaxError("bad", ("f.py", 3, 2, "text")),
        NeedsKeyword(code=3),
        RefusesToReduce("r"),
        Frozen(4),
        errors.GetTimeoutError("late"),
        errors.ActorDiedError("dead", actor_id="ab"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_a_failed_tasks_error_is_an_instance_of_its_cause(cause):
    error = failed(cause).as_instance_of_cause()
    assert isinstance(error, TaskError)
    assert isinstance(error, type(cause))
    assert type(error).__name__ == f"TaskError({type(cause).__name__})"
    assert error.cause is cause
    assert error.args == cause.args
    assert str(error) == error.traceback_str == "shoal::f() (pid=7)\nValueError: x"
    assert (error.function_name, error.pid, error.actor_repr) == ("f", 7, "Foo(1)")
    assert error.as_instance_of_cause() is error


def test_the_dual_error_has_the_causes_own_attributes():
    error = failed(FileNotFoundError(2, "no such file", "a.txt")).as_instance_of_cause()
    assert (error.errno, error.strerror, error.filename) == (2, "no such file", "a.txt")
    assert failed(NeedsKeyword(code=3)).as_instance_of_cause().code == 3
    assert failed(ImportError("m", name="mod")).as_instance_of_cause().name == "mod"
    slotted = Slotted("s")
    slotted.detail = [1]
    dual = failed(slotted).as_instance_of_cause()
    assert dual.detail == [1]
    assert not hasattr(dual, "never_filled")


@pytest.mark.skipif(Group is None, reason="ExceptionGroup came with Python 3.11")
def test_an_exception_group_is_caught_as_one():
    group = Group("several", [ValueError(1), KeyError(2)])
    error = failed(group).as_instance_of_cause()
    assert isinstance(error, Group)
    assert error.exceptions == group.exceptions


@pytest.mark.parametrize(
    "cause",
    [
        None,
        KeyboardInterrupt(),
        SystemExit(3),
        StopIteration(1),
        StopAsyncIteration(),
        Exception("of no special class"),
        Final("f"),
        HasOwnCause("h"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_where_no_dual_class_can_be_the_error_stays_a_plain_task_error(cause):
    error = failed(cause).as_instance_of_cause()
    assert type(error) is TaskError
    assert error.cause is cause


def test_a_dual_error_is_one_again_after_pickle():
    error = failed(FileNotFoundError(2, "no such file", "a.txt")).as_instance_of_cause()
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.filename, copy.pid, str(copy)) == ("a.txt", 7, str(error))
    assert type(pickle.loads(pickle.dumps(failed(ValueError("x"))))) is TaskError


def test_the_dual_class_is_made_once_and_dies_with_its_exceptions():
    class Local(Exception):
        pass

    first, second = (failed(Local()).as_instance_of_cause() for _ in range(2))
    assert type(first) is type(second)
    del first, second
    gc.collect()
    assert Local not in task_error._duals


def test_threads_get_the_same_dual_class():
    class Local(Exception):
        pass

    made, start = [], threading.Barrier(4)

    def make() -> None:
        start.wait(timeout=10)
        made.append(failed(Local()).as_instance_of_cause())

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len({type(error) for error in made}) == 1
    assert len(made) == 4


RAYS = [
    "RayError", "CrossLanguageError", "TaskCancelledError", "RayTaskError", "LocalRayletDiedError",
    "WorkerCrashedError", "RayActorError", "ActorDiedError", "ActorUnavailableError", "RaySystemError",
    "AuthenticationError", "UserCodeException", "ObjectStoreFullError", "OutOfDiskError", "OutOfMemoryError",
    "NodeDiedError", "ObjectLostError", "ObjectFetchTimedOutError", "RpcError", "ReferenceCountingAssertionError",
    "ObjectFreedError", "OwnerDiedError", "ObjectReconstructionFailedError", "GetTimeoutError",
    "PlasmaObjectNotAvailable", "AsyncioActorExit", "RuntimeEnvSetupError", "TaskPlacementGroupRemoved",
    "ActorPlacementGroupRemoved", "PendingCallsLimitExceeded", "TaskUnschedulableError", "ActorUnschedulableError",
    "ObjectRefStreamEndOfStreamError", "StreamingGeneratorReplayInconsistentError",
    "OufOfBandObjectRefSerializationException", "RayChannelError", "RayChannelTimeoutError",
    "RayCgraphCapacityExceeded", "RayDirectTransportError", "UnserializableException", "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
]  # fmt: skip


@pytest.mark.parametrize("name", RAYS)
def test_every_exception_of_ray_has_a_class_here(name):
    cls = getattr(errors, name)
    assert issubclass(cls, errors.RayError)
    with pytest.raises(cls):
        raise cls("text")


def test_they_may_be_made_as_rays_are():
    failure = errors.RayTaskError("f", "ray::f()\nValueError: x", ValueError("x"), "ray::f", 7, "10.0.0.1")
    assert (failure.function_name, failure.pid, failure.ip, failure.proctitle) == ("f", 7, "10.0.0.1", "ray::f")
    dual = failure.as_instanceof_cause()
    assert isinstance(dual, ValueError)
    assert (dual.ip, dual.proctitle) == ("10.0.0.1", "ray::f")
    lost = errors.ObjectLostError("ab12", None, "f.py:3")
    assert (lost.object_ref_hex, lost.call_site) == ("ab12", "f.py:3")
    assert "ab12" in str(lost)
    actor = errors.RayActorError("ab12", "it fell over", actor_init_failed=True)
    assert (actor.actor_id, str(actor)) == ("ab12", "it fell over")
    assert (actor.actor_init_failed, actor.preempted) == (True, False)
    assert errors.ActorUnavailableError("away", b"\xab").actor_id == "ab"
    in_init = errors.ActorDiedError(failure)
    assert in_init.actor_init_failed
    assert "creation task" in str(in_init)
    assert str(errors.ActorDiedError())
    assert str(errors.TaskCancelledError(task_id="ab", error_message="stopped")) == "stopped"
    assert "frame" in str(errors.RaySystemError("inside", "frame"))


def test_attributes_of_the_cause_win_over_rays_own():
    class HasAddress(Exception):
        def __init__(self) -> None:
            super().__init__("x")
            self.ip = "mine"

    assert failed(HasAddress()).as_instance_of_cause().ip == "mine"
