"""Every exception of the runtime.

    ShoalError
     |- TaskError                      the user's code raised; at get() also an instance of what it raised
     |- TaskCancelledError
     |- WorkerCrashedError
     |- OutOfMemoryError
     |- ActorError
     |   |- ActorDiedError
     |   `- ActorUnavailableError
     |- ObjectLostError
     |   |- OwnerDiedError
     |   |- ObjectFreedError
     |   `- ObjectReconstructionFailedError
     |- ObjectStoreFullError
     |- GetTimeoutError                also TimeoutError
     |- HeadDiedError
     |- SessionError
     |- UnschedulableError
     |   |- TaskUnschedulableError
     |   `- ActorUnschedulableError
     |- PendingCallsLimitExceeded
     |- RuntimeEnvSetupError
     |- ActorAlreadyExistsError        also ValueError
     |- ActorHandleNotFoundError       also ValueError
     |- AuthenticationError
     `- ProtocolError

Some are here for programs that name them in ``except``, and are raised by nothing in this version: OutOfMemoryError,
ObjectReconstructionFailedError, PendingCallsLimitExceeded, RuntimeEnvSetupError, AuthenticationError.

Wrong arguments are not here: they are ValueError and TypeError where they are given. Every class is made from one
message and keyword attributes, and comes back from plain pickle with its type, message and attributes. Ray's names
for the same classes stand at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any
from weakref import WeakValueDictionary


class ShoalError(Exception):
    """Base of all errors that the runtime raises by itself. Also stands in for a user's exception that could not be
    sent.
    """


class TaskError(ShoalError):
    """The user's function raised: the exception that ``get`` of its ref raises.

    Raised by ``get``, ``await`` and by every task that takes the failed ref as an argument. Not for a process that died
    (`WorkerCrashedError`, `ActorDiedError`). A retry helps as far as the user's code may behave otherwise: see
    ``retry_exceptions``.

    ``get`` raises it as an instance of the cause's class too, where that is possible (`as_instance_of_cause`).

    Attributes:
      function_name: what ran, ``f`` or ``Foo.bar``.
      traceback_str: text of the remote traceback; ``str()`` of this error.
      cause: the exception that was raised; a `ShoalError` that names it if it could not be sent.
      pid: the process it was raised in.
      actor: description of the actor it was raised in; None for a task.
    """

    def __init__(
        self,
        traceback_str: str = "",
        *,
        function_name: str = "",
        cause: BaseException | None = None,
        pid: int = 0,
        actor: str | None = None,
    ) -> None:
        super().__init__(traceback_str)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.pid = pid
        self.actor = actor

    def __str__(self) -> str:
        return self.traceback_str

    # Not __reduce__: in a dual class the cause's own __reduce_ex__ would come before it.
    def __reduce_ex__(self, _protocol: object) -> tuple[Callable[..., TaskError], tuple[object, ...]]:
        rebuild = _rebuild_dual if isinstance(self, _Dual) else _rebuild_plain
        return rebuild, (self.traceback_str, self.function_name, self.cause, self.pid, self.actor)

    def as_instance_of_cause(self) -> TaskError:
        """This failure as an instance of both TaskError and the class of `cause`, so that ``except ValueError``
        catches it.

        Returns:
          An instance of a class named ``TaskError(ValueError)``, made once per cause class, with the cause's ``args``
          and attributes. No constructor of the cause's class runs. Plain `self` where no such class can be: the class
          refuses to be subclassed or its layout cannot be shared; the cause is no ``Exception`` (``except
          KeyboardInterrupt`` must mean this process); or it is one of the iteration signals, which generators and
          futures may not carry.
        """
        cause = self.cause
        if isinstance(self, _Dual) or not isinstance(cause, Exception) or isinstance(cause, _SIGNALS):
            return self
        if isinstance(self, type(cause)):
            return self
        try:
            args, members, attributes = take_apart(cause)
            own = {name: getattr(self, name) for name in _TASK_ERROR_FIELDS}
            dual = put_together(_dual_class(type(cause)), args, members, {**attributes, **own})
        except Exception:  # noqa: BLE001  the class's metaclass or __init_subclass__ is the user's code and may raise anything
            return self
        # A property of the cause's class may hide ours: then the promised attributes would lie.
        if not isinstance(dual, TaskError) or any(getattr(dual, name, _MISSING) is not own[name] for name in own):
            return self
        return dual


class TaskCancelledError(ShoalError):
    """The task was cancelled by ``cancel`` before it had a result. Raised by ``get``. Never retried by the runtime;
    submit it again to run it.
    """

    def __init__(self, message: str = "the task was cancelled", *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id  #: hex


class WorkerCrashedError(ShoalError):
    """The process that ran the task died (signal, exit) and no retries were left. Raised by ``get``.

    Not when the user's code raised (`TaskError`), nor for an actor (`ActorDiedError`). A retry helps unless the task
    itself kills its process.
    """


class OutOfMemoryError(ShoalError):
    """The task's process was killed because the machine ran out of memory. Raised by ``get``. A retry helps with
    fewer tasks at a time.
    """


class ActorError(ShoalError):
    """Base of errors of calls to an actor that is not there; never raised itself.

    Attributes:
      actor_id: hex id of the actor.
      actor_init_failed: its ``__init__`` raised; every restart would raise again.
    """

    def __init__(self, message: str = "", *, actor_id: str | None = None, actor_init_failed: bool = False) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        self.actor_init_failed = actor_init_failed


class ActorDiedError(ActorError):
    """The actor is dead for good: killed, crashed with no restarts left, out of scope, or its ``__init__`` raised.

    Raised by ``get`` of a method call, never by the call itself. A retry of the call cannot help; create another actor.
    """


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now (it restarts) and may come back; the call may or may not have run. Raised by
    ``get``.

    A retry can help, if the method may run twice. Not when the actor is known to be dead (`ActorDiedError`).
    """


class ObjectLostError(ShoalError):
    """All copies of the object are gone and it cannot be made again (a ``put`` object has no task to run again).
    Raised by ``get``.

    A retry of the ``get`` cannot help; make the object again.
    """

    def __init__(self, message: str = "", *, object_ref_hex: str | None = None) -> None:
        super().__init__(message)
        self.object_ref_hex = object_ref_hex


class OwnerDiedError(ObjectLostError):
    """The process that submitted the task or called ``put`` has died, and its objects with it. Raised by ``get`` in a
    borrower.
    """


class ObjectFreedError(ObjectLostError):
    """The object was freed on purpose while a ref to it was left. Raised by ``get``. The program frees too early; no
    retry helps.
    """


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and the task that made it could not be run again: retries are used up or switched off.
    Raised by ``get``.
    """


class ObjectStoreFullError(ShoalError):
    """No room for an object in shared memory, or the machine has no memory to back it. Raised by ``put`` and by
    returning a large result.

    A retry helps once refs to other objects are dropped. Not for small values, which do not enter the store.
    """


class GetTimeoutError(ShoalError, TimeoutError):
    """``get`` was given a timeout and the value was not there in time. The task goes on; a later ``get`` of the same
    ref can succeed.
    """


class HeadDiedError(ShoalError):
    """The head process of the session is gone, so nothing can be scheduled. Raised by every waiting call. Call
    shutdown() and init() again.
    """


class SessionError(ShoalError):
    """The call needs another state of the session: it is not started, is shut down, or has failed inside. The message
    says which.
    """


class UnschedulableError(ShoalError):
    """No machine of the cluster can ever satisfy the demand. Raised by ``get``, at once rather than never; base of
    the two below.

    Not while the resources exist but are busy: such work waits. A retry helps only with a smaller demand or a larger
    cluster.
    """


class TaskUnschedulableError(UnschedulableError):
    """As `UnschedulableError`, of a task."""


class ActorUnschedulableError(UnschedulableError):
    """As `UnschedulableError`, of an actor: raised by ``get`` of its method calls."""


class PendingCallsLimitExceeded(ShoalError):  # noqa: N818  Ray's name
    """The handle has ``max_pending_calls`` calls unanswered. Raised by ``.remote()`` itself. A retry helps once some
    are answered.
    """


class RuntimeEnvSetupError(ShoalError):
    """The environment that a task or actor asked for (``runtime_env``) could not be made. Raised by ``get``. The
    message says which step failed.
    """


class ActorAlreadyExistsError(ValueError, ShoalError):
    """A living actor of the namespace has the name. Raised by ``.remote()``. Use ``get_actor`` or
    ``get_if_exists=True``; the name is free on its death.
    """


class ActorHandleNotFoundError(ValueError, ShoalError):
    """No such actor: no living one has the name (``get_actor``), or the handle is of an earlier session (``kill`` on
    the inline engine). Create it first, or wait until its creator has.
    """


class AuthenticationError(ShoalError):
    """The peer did not show the session's key, so nothing it sent was read. Raised on connecting. Check which session
    the address belongs to.
    """


class ProtocolError(ShoalError):
    """A peer said what it may not say: an unknown message, a wrong field, another version. Raised by the codec; a
    fault in shoal, no retry helps.
    """


# ---- exceptions as parts

#: What `put_together` needs: ``args``, values of C-level members and slots, ``__dict__``.
Parts = tuple[tuple[object, ...], dict[str, object], dict[str, object]]

_MISSING = object()
_SIGNALS = (StopIteration, StopAsyncIteration)
_TASK_ERROR_FIELDS = ("function_name", "traceback_str", "cause", "pid", "actor")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes made by a class statement, not for those written in C


class _Dual:
    """Marks the classes that `_dual_class` makes."""

    __slots__ = ()


# Weak in the values: a dual class lives while one of its exceptions does. Weak keys would never die, since the dual
# holds its base.
_duals: WeakValueDictionary[type, type] = WeakValueDictionary()
_duals_lock = threading.Lock()


def _dual_class(cause_class: type[BaseException]) -> type[BaseException]:
    with _duals_lock:
        dual = _duals.get(cause_class)
        if dual is None:
            name = f"TaskError({cause_class.__name__})"
            dual = type(name, (_Dual, TaskError, cause_class), {"__module__": TaskError.__module__})
            _duals[cause_class] = dual
    return dual


def _rebuild_plain(
    traceback_str: str, function_name: str, cause: BaseException | None, pid: int, actor: str | None
) -> TaskError:
    return TaskError(traceback_str, function_name=function_name, cause=cause, pid=pid, actor=actor)


def _rebuild_dual(*fields: Any) -> TaskError:
    return _rebuild_plain(*fields).as_instance_of_cause()


def take_apart(error: BaseException) -> Parts:
    """The state of an exception, read without any method of its class."""
    members: dict[str, object] = {}
    for cls in type(error).__mro__:
        if cls is BaseException:
            break  # what is left belongs to the raising: __traceback__, __context__
        for name, descriptor in vars(cls).items():
            if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                value = _read(descriptor, error)
                if value is not _MISSING:
                    members.setdefault(name, value)
    return error.args, members, dict(vars(error))


def put_together(
    cls: type[BaseException], args: tuple[object, ...], members: dict[str, object], attributes: dict[str, object]
) -> BaseException:
    """An exception of class `cls` in the state that `take_apart` read, made without ``cls.__init__``, ``__new__`` or
    ``__setstate__``.

    Constructors with required keywords, or which put something else than their arguments into ``args``, are the
    common reason why exceptions do not survive pickle.

    Raises:
      TypeError: the C base of `cls` cannot be made from `args`.
    """
    native: Any = next(
        base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE and issubclass(base, BaseException)
    )
    error: BaseException = native.__new__(cls, *args)
    error.args = args
    for base in cls.__mro__:
        for name, descriptor in vars(base).items():
            if name in members and isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)):
                _write(descriptor, error, members[name])
    vars(error).update(attributes)
    return error


def _read(descriptor: MemberDescriptorType | GetSetDescriptorType, error: BaseException) -> object:
    try:
        return descriptor.__get__(error)
    except AttributeError:  # a slot that was never filled
        return _MISSING


def _write(descriptor: MemberDescriptorType | GetSetDescriptorType, error: BaseException, value: object) -> None:
    try:
        descriptor.__set__(error, value)
    except (AttributeError, TypeError):  # read-only, as the exceptions of a group: __new__ has set it from the args
        if descriptor.__get__(error) != value:
            raise


# ---- Ray's names

RayError = ShoalError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = SessionError
LocalRayletDiedError = HeadDiedError
