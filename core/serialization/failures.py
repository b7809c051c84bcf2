"""Exceptions that travel: what a task raised, from the process that ran it to whoever calls ``get``.

The text of the traceback is made where the frames are, without the runtime's own. The exception travels inside as a
pickle of its own, so that one which cannot be written or cannot be loaded costs only itself: the failure still
arrives, with its text and a `ShoalError` in its place. Exceptions are taken apart, not pickled through their
constructors, unless their class defines its own reduction.

    shoal::g() (pid=71, ip=127.0.0.1)                    the task that failed
      File "job.py", line 9, in g
        return shoal.get(ref) + 1
    TaskError(ValueError): shoal::f() (pid=70, ip=...)   because this one did
      File "job.py", line 4, in f
        raise ValueError("text")
    ValueError: text
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from ..errors import ShoalError, TaskError
from ..exception_parts import Parts, put_together, take_apart
from ..ray_compat import ray_names
from ..refs import ObjectRef
from .traceback_text import summary, told, type_name
from .values import FAILURE, PROTOCOL, Serialized, ValuePickler, dump

_REDUCTIONS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement


def serialize_failure(
    exception: BaseException,
    *,
    name: str,
    pid: int,
    actor: str | None = None,
    ran: bool = False,
    ip: str = "127.0.0.1",
) -> Serialized:
    """What becomes of a task whose code raised `exception`, or whose argument could not be had because of it.

    Args:
      exception: as caught; its traceback goes into the text. If it is a `TaskError` (a task that this one depends on
        failed), its text follows as the reason, and its cause becomes the cause.
      name: what ran, ``f`` or ``Foo.bar``.
      pid: the process it ran in.
      actor: description of the actor; None for a task.
      ip: the machine.
      ran: it had its arguments and was begun; otherwise an error of the runtime is told as that of an argument.

    Returns:
      Of kind FAILURE; `deserialize` gives a `TaskError`, also an instance of the cause's class where that can be.
    """
    cause = exception
    if isinstance(exception, TaskError) and exception.cause is not None:
        cause = exception.cause
    return _serialize(_text(exception, name, f"pid={pid}, ip={ip}", actor, ran=ran), name, pid, actor, cause, ip)


def serialize_error(error: ShoalError) -> Serialized:
    """An error to be raised as it is: one that the runtime found by itself (a dead worker, a lost object), or a
    `TaskError` that arrived here and is sent on.
    """
    if isinstance(error, TaskError) and error.cause is not None:
        return _serialize(error.traceback_str, error.function_name, error.pid, error.actor_repr, error.cause, error.ip)
    data, refs = dump(error)
    return Serialized(FAILURE, data, [], refs)


def _serialize(text: str, name: str, pid: int, actor: str | None, cause: BaseException, ip: str) -> Serialized:
    pickled, refs, reason = _pickle_cause(cause)
    payload = _Failure(text, name, pid, actor, pickled, summary(cause), reason, ip)
    return Serialized(FAILURE, pickle.dumps(payload, PROTOCOL), [], refs)


def text_of(payload: bytes) -> str | None:
    """The text of a task's failure, without running any code of the exception's class; None for the errors that the
    runtime has found by itself.
    """
    try:
        text: str = _TextReader(BytesIO(payload)).load()
    except pickle.UnpicklingError:
        return None
    return text


class _TextReader(pickle.Unpickler):
    """Reads a `_Failure` as its text, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != (__name__, _load_failure.__name__):
            raise pickle.UnpicklingError(f"{module}.{name} is not a task's failure")
        return lambda text, *_: text


class _Failure(NamedTuple):
    text: str
    name: str
    pid: int
    actor: str | None
    cause: bytes | None  #: pickle of the exception
    summary: str  #: its type and message
    reason: str  #: why there is no pickle
    ip: str

    def __reduce__(self) -> tuple[Callable[..., TaskError], tuple[object, ...]]:
        return _load_failure, tuple(self)


def _load_failure(*fields: Any) -> TaskError:
    failure = _Failure(*fields)
    cause, reason = None, failure.reason
    if failure.cause is not None:
        try:
            cause = pickle.loads(failure.cause)  # noqa: S301  from a peer that has authenticated
        except BaseException as error:  # noqa: BLE001  the exception's class is the user's code and may raise anything
            reason = summary(error)
    if not isinstance(cause, BaseException):
        cause = ShoalError(f"{failure.summary} (the exception itself could not be sent: {reason})")
    failed = TaskError(failure.name, failure.text, cause, pid=failure.pid, ip=failure.ip, actor_repr=failure.actor)
    return failed.as_instance_of_cause()


# ---- the exception


class _CausePickler(ValuePickler):
    """Takes exceptions apart; those with a reduction of their own only if `always`."""

    def __init__(self, file: BytesIO, *, always: bool) -> None:
        super().__init__(file)
        self._always = always

    def reducer_override(self, obj: object) -> object:
        if (
            isinstance(obj, BaseException)
            and not isinstance(obj, TaskError)
            and (self._always or not _reduces_itself(obj))
        ):
            parts: Parts = take_apart(obj)
            return put_together, (type(obj), *parts)
        return super().reducer_override(obj)


def _pickle_cause(cause: BaseException) -> tuple[bytes | None, list[ObjectRef[Any]], str]:
    """The pickle and the refs in it, or None and why there is none."""
    reason = ""
    for always in (False, True):
        file = BytesIO()
        pickler = _CausePickler(file, always=always)
        try:
            pickler.dump(cause)
            # Only a class with its own reduction can fail to load here; only such a one is worth the trial.
            if not always and _reduces_itself(cause):
                pickle.loads(file.getvalue())  # noqa: S301  our own bytes
        except BaseException as error:  # noqa: BLE001  __reduce__ is the user's code and may raise anything
            reason = summary(error)
        else:
            return file.getvalue(), pickler.refs, ""
    return None, [], reason


def _reduces_itself(exception: BaseException) -> bool:
    return any(
        name in vars(cls) for cls in type(exception).__mro__ if cls.__flags__ & _HEAP_TYPE for name in _REDUCTIONS
    )


# ---- the text


def _text(exception: BaseException, name: str, where: str, actor: str | None, *, ran: bool) -> str:
    where = where if actor is None else f"{where}, actor={actor}"
    program = "ray" if ray_names.stands_for_ray() else "shoal"  # tools that read Ray's tracebacks look for the former
    header = f"{program}::{name}() ({where})\n"
    try:
        return header + told(exception, ran=ran)
    except Exception as trouble:  # noqa: BLE001  attributes of the exception are read, and its class may raise anything
        stand_in = ShoalError(f"{type_name(exception)} (its text cannot be made: {type_name(trouble)})")
        return header + told(stand_in.with_traceback(exception.__traceback__), ran=ran)
