"""The exception that ``get`` raises where the user's code raised: a `TaskError` that is also what was raised.

    cause: ValueError("x")   ->   TaskError(ValueError): `except ValueError` and `except TaskError` both catch it

The class of such a dual error is made once per class of causes. The base of all errors of the runtime is here too,
because a `TaskError` is one; `errors` has the others and these.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from .exception_parts import MISSING, put_together, take_apart


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
      ip: the machine; proctitle: what the process was called (these two are for Ray programs).
      actor_repr: description of the actor it was raised in; None for a task.
    """

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: BaseException | None = None,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
    ) -> None:
        """Ray's order of arguments. A text alone is the message."""
        super().__init__(traceback_str or function_name)
        self.function_name = function_name
        self.traceback_str = traceback_str or function_name
        self.cause = cause
        self.proctitle = proctitle or f"shoal::{function_name}"
        self.pid = os.getpid() if pid is None else pid
        self.ip = ip or "127.0.0.1"
        self.actor_repr = actor_repr

    def __str__(self) -> str:
        return self.traceback_str

    # Not __reduce__: in a dual class the cause's own __reduce_ex__ would come before it.
    def __reduce_ex__(self, _protocol: object) -> tuple[Callable[..., TaskError], tuple[object, ...]]:
        fields = (self.function_name, self.traceback_str, self.cause, self.proctitle, self.pid, self.ip)
        return _rebuild_dual if isinstance(self, _Dual) else TaskError, (*fields, self.actor_repr)

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
        try:
            if isinstance(self, type(cause)):
                return self
            args, members, attributes = take_apart(cause)
            own = {name: getattr(self, name) for name in _TASK_ERROR_FIELDS}
            dual = put_together(_dual_class(type(cause)), args, members, {**vars(self), **attributes, **own})
            # A property of the cause's class may hide ours: then the promised attributes would lie.
            if not isinstance(dual, TaskError) or any(getattr(dual, name, MISSING) is not own[name] for name in own):
                return self
        except Exception:  # noqa: BLE001  its metaclass, __init_subclass__, __getattribute__ are the user's: anything may be raised
            return self
        return dual

    as_instanceof_cause = as_instance_of_cause  #: Ray's spelling


# ---- a failure that is an instance of its cause

_SIGNALS = (StopIteration, StopAsyncIteration)
_TASK_ERROR_FIELDS = ("function_name", "traceback_str", "cause", "pid", "actor_repr")


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


def _rebuild_dual(*fields: Any) -> TaskError:
    return TaskError(*fields).as_instance_of_cause()
