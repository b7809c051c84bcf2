"""Ray's exceptions as shoal's. The names are the same on both sides; what differs is which class is meant:

    ray.exceptions.RayTaskError(ValueError)   ->   shoal's TaskError(ValueError), with the text and the cause
    ray.exceptions.X                          ->   shoal.exceptions.X, with the text and the attributes that X has
    anything else                             ->   itself

The translation happens where a value or an error comes out of Ray: in `get`, in futures, at calls that Ray refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.exceptions as theirs

from ... import errors
from ...errors import ShoalError, TaskError

#: The line that Ray puts before a traceback: ``ray::Foo.bar() (pid=71, ip=10.0.0.2, actor_id=..., repr=...)``.
_HEADER = re.compile(r"ray::(?P<name>.*?)\(\) \(pid=(?P<pid>\d+), ip=(?P<ip>[^,)]+)(?:.*repr=(?P<actor>.*)\))?")
_COLOR = re.compile(r"\x1b\[\d+m")
#: A frame of this package and the line that it shows.
_OWN_FRAME = re.compile(r'^  File "[^"]*ray_cluster[/\\]work\.py", line \d+, in .*\n(?:    .*\n)*', re.MULTILINE)
#: Attributes that shoal's classes have, too.
_ATTRIBUTES = ("actor_id", "actor_init_failed", "preempted", "object_ref_hex", "task_id")


def translated(error: BaseException) -> BaseException:
    """The exception that shoal raises where Ray has raised `error`."""
    if isinstance(error, theirs.RayTaskError):
        return _task_error(error)
    if not isinstance(error, theirs.RayError):
        return error
    ours: type[BaseException] = getattr(errors, type(error).__name__, ShoalError)
    made = ours(_COLOR.sub("", str(error)))
    for name in _ATTRIBUTES:
        if hasattr(error, name) and hasattr(made, name):
            value = getattr(error, name)
            setattr(made, name, value.hex() if isinstance(value, bytes) else value)
    return made


@contextmanager
def translating() -> Iterator[None]:
    """What Ray raises inside comes out as shoal's."""
    try:
        yield
    except theirs.RayError as error:
        raise translated(error) from None


def _task_error(error: Any) -> TaskError:
    text = _OWN_FRAME.sub("", _COLOR.sub("", str(error)))
    found = _HEADER.search(text)
    name, pid, ip, actor = found.group("name", "pid", "ip", "actor") if found else ("", None, None, None)
    cause = error.cause
    while isinstance(cause, (TaskError, theirs.RayTaskError)) and cause.cause is not None:
        cause = cause.cause  # a task that failed because another did tells the first reason
    if isinstance(cause, theirs.RayError):
        cause = translated(cause)
    made = TaskError(name, text, cause, pid=int(pid) if pid else 0, ip=ip, actor_repr=actor)
    return made.as_instance_of_cause()
