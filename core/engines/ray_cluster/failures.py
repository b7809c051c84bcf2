"""Failures on their way through Ray.

    user code raises E   ->  in the worker, `carried`: Carried, with all that shoal tells of a failure, as bytes
                         ->  Ray: RayTaskError(Carried)  ->  who asks, `translated`: TaskError(E)
    Ray finds something  ->  ray.exceptions.X            ->  `translated`: shoal.exceptions.X, its text and attributes
    anything else        ->  itself

Ray pickles exceptions as they are, so one that cannot be pickled, or not be loaded, would hang its task or arrive as
something else; `serialization.failures` has answers to these, and `Carried` is bytes, which nothing can happen to. The
translation is done where a value or an error comes out of Ray: in `get`, in futures, at calls that Ray refuses.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

import ray
import ray.exceptions as theirs
from ray.util import get_node_ip_address

from ... import errors
from ...errors import ShoalError, TaskError
from ...runtime.outcomes import end_fork
from ...serialization import values
from ...serialization.failures import serialize_failure

#: The line that Ray puts before a traceback: ``ray::Foo.bar() (pid=71, ip=10.0.0.2, actor_id=..., repr=...)``.
_HEADER = re.compile(r"ray::(?P<name>.*?)\(\) \(pid=(?P<pid>\d+), ip=(?P<ip>[^,)]+)(?:.*repr=(?P<actor>.*)\))?")
_COLOR = re.compile(r"\x1b\[\d+m")
#: Where in the text of another error that of a `Carried` begins.
_CARRIED = f"{__name__}.Carried: "
_ARGUMENT = "At least one of the input arguments for this task could not be computed:"
_OBJECT = re.compile(r"\b[0-9a-f]{56}\b")
_NO_ACTOR = "Can't find actor "
#: How the file of the wrappers ends, wherever it is.
_WRAPPERS = os.path.join("ray_cluster", "work.py")
#: Attributes that shoal's classes have, too.
_ATTRIBUTES = ("actor_id", "actor_init_failed", "preempted", "object_ref_hex", "task_id")
#: By these Ray itself is told something.
_SIGNALS = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, theirs.AsyncioActorExit)


# ---- in the worker


class Carried(Exception):  # noqa: N818  it is no error but carries one
    """What user code has raised, as bytes. data: as `serialization.failures` writes it."""

    def __init__(self, data: bytes, text: str) -> None:
        super().__init__(data, text)
        self.data = data
        self.text = text

    def __str__(self) -> str:
        return self.text


class CarriedAndTriedAgain(Carried):
    """One after which the task is to be run again: what Ray is given as its ``retry_exceptions``."""


def carried(
    error: BaseException, name: str, *, actor: str | None = None, retry_on: tuple[type[BaseException], ...] = ()
) -> BaseException:
    """What a piece of work raises in Ray's worker in place of `error`.

    Args:
      name: what ran.
      actor: description of the actor; None for a task.
      retry_on: classes of exceptions after which Ray shall run it again.
    """
    if in_fork():
        end_fork(error)
    if isinstance(error, _SIGNALS):
        return error
    error = error.with_traceback(_of_user(error.__traceback__))
    failure = serialize_failure(error, name=name, pid=os.getpid(), actor=actor, ran=True, ip=get_node_ip_address())
    told = cast(BaseException, values.deserialize(failure.kind, failure.data, failure.buffers))
    kind = CarriedAndTriedAgain if isinstance(error, retry_on) else Carried
    return kind(failure.data, str(told))


def _of_user(frames: TracebackType | None) -> TracebackType | None:
    """Without the wrappers, which have come from the driver and name its files: nobody knows them for the runtime's."""
    while frames is not None and frames.tb_frame.f_code.co_filename.endswith(_WRAPPERS):
        frames = frames.tb_next
    return frames


def left() -> BaseException:
    """What ends the actor that raises it on its event loop, where Ray does not hear a SystemExit."""
    try:
        ray.actor.exit_actor()
    except theirs.AsyncioActorExit as leaving:
        return cast(BaseException, leaving)
    raise AssertionError("it is on an event loop")


_forked = False


def _in_child() -> None:
    global _forked
    _forked = True


def in_fork() -> bool:
    """Whether user code has forked this process off a worker: it must not come back into Ray."""
    return _forked


os.register_at_fork(after_in_child=_in_child)


# ---- where it comes out


def translated(error: BaseException) -> BaseException:
    """The exception that shoal raises where Ray has raised `error`."""
    if isinstance(error, theirs.RayTaskError):
        return _task_error(error)
    if not isinstance(error, theirs.RayError):
        return _stranger(str(error)) or error
    ours: type[BaseException] = getattr(errors, type(error).__name__, ShoalError)
    if type(error).__name__ == "ActorHandleNotFoundError":  # which not every Ray has
        return errors.ActorHandleNotFoundError(
            "the actor is not known to this session: was it created before shutdown() and another init()?"
        )
    made = ours(_told(error))
    for name in _ATTRIBUTES:
        if hasattr(error, name) and hasattr(made, name):
            value = getattr(error, name)
            setattr(made, name, value.hex() if isinstance(value, (bytes, ray.TaskID)) else value)
    return made


@contextmanager
def translating() -> Iterator[None]:
    """What Ray raises inside comes out as shoal's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  what Ray finds about refs of other sessions is a plain one
        raise translated(error) from None


def stranger(object_id: str) -> ShoalError:
    """The error of a ref that Ray does not know, by its id in hexadecimal."""
    return errors.ObjectLostError(
        f"ObjectRef({object_id}) is not known to this session: was it made by hand, or before shutdown() and another "
        "init()?",
        object_ref_hex=object_id,
    )


def _stranger(text: str) -> ShoalError | None:
    """Of a ref or handle that Ray does not know; None: the text of its error is about something else."""
    if "whose owner is unknown" in text:
        found = _OBJECT.search(text)
        return stranger(found[0] if found else "")
    if _NO_ACTOR in text:
        return errors.ActorHandleNotFoundError(
            f"actor {text.partition(_NO_ACTOR)[2].partition('.')[0]} is not known to this session: was it created "
            "before shutdown() and another init()?"
        )
    return None


def _told(error: BaseException) -> str:
    """The text of an error of Ray's; where it tells of user code that raised, only that."""
    text = _COLOR.sub("", str(error))
    if isinstance(error, theirs.RayActorError) and error.actor_init_failed:
        _, found, failure = text.partition(_CARRIED)
        return f"the actor is dead: its __init__ raised\n{failure}" if found else text
    if isinstance(error, theirs.TaskCancelledError):
        return f"the task was cancelled: {text}" if text else "the task was cancelled"
    return text


def _task_error(error: Any) -> BaseException:
    """Of a failed task; also of one that did not run, because the one that makes an argument of it has failed."""
    cause = error.cause
    while isinstance(cause, theirs.RayTaskError):
        cause = cause.cause
    text = _COLOR.sub("", str(error))
    if isinstance(cause, theirs.TaskCancelledError) and _ARGUMENT not in text:
        return translated(cause)
    if not isinstance(cause, Carried):
        return _of_ray_itself(text, cause)
    failure = cast(TaskError, values.deserialize(values.FAILURE, cause.data, []))
    if _ARGUMENT not in text.partition(_CARRIED)[0]:
        return failure
    name, pid, ip, actor = _header(text)
    text = f"shoal::{name}() (pid={pid}, ip={ip})\n{_ARGUMENT}\n{failure.traceback_str}"
    return TaskError(name, text, failure.cause, pid=pid, ip=ip, actor_repr=actor).as_instance_of_cause()


def _of_ray_itself(text: str, cause: BaseException) -> TaskError:
    """What failed was no user code of ours: a value that cannot be pickled, a plain Ray program's actor."""
    name, pid, ip, actor = _header(text)
    made = TaskError(name, text, translated(cause), pid=pid, ip=ip, actor_repr=actor)
    return made.as_instance_of_cause()


def _header(text: str) -> tuple[str, int, str | None, str | None]:
    """Name, pid, address, description of the actor; of what failed."""
    found = _HEADER.search(text)
    if found is None:
        return "", 0, None, None
    return found["name"], int(found["pid"]), found["ip"], found["actor"]
