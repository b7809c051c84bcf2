"""What simulators say of their episodes as bytes and back, in the two forms of ``wire.py``. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import numpy as np

from . import forms, wire
from .checking import SESSION
from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStarted, EpisodeStep, StartEpisode, StepReply
from .errors import BadObservation, BadRequest
from .requests import Actions

Asking = TypeVar("Asking", StartEpisode, EpisodeStep, EpisodeEnd)
Telling = TypeVar("Telling", EpisodeStarted, StepReply, EpisodeEnded)
Reader = Callable[[Any, str], np.ndarray]

#: Largest reward: it is learned from as float32.
MAX_REWARD = float(np.finfo(np.float32).max)


def read(kind: type[Asking], body: bytes, form: str) -> Asking:
    """What a body asks.

    Args:
      kind: The request that belongs to the path.
      body: Not empty.
      form: Content type, one of wire.py's two.

    Raises:
      BadRequest: it is no such request; names the field.
      BadObservation: a reward that is no number.
    """
    values, read_array = (
        (wire.read_json(body), wire.array_of_lists)
        if form == wire.JSON_FORM
        else (wire.read_tensors(body), wire.array_as_it_is)
    )
    if not isinstance(values, dict):
        raise BadRequest("the body is no object with the fields of a request")
    defaults = {item.name: item.default for item in fields(kind)}
    for name in values:
        if name not in defaults:
            told = f"there is no such field; there are {', '.join(defaults)}"
            raise BadRequest(told, field=wire.shown_name(name))
    read_so_far: dict[str, Any] = {}
    for name, default in defaults.items():
        if name not in values or (values[name] is None and default is None):
            if default is MISSING:
                raise BadRequest("missing", field=name)
            continue
        read_so_far[name] = _READERS[name](values[name], name, read_array)
    return kind(**read_so_far)


def write(asking: StartEpisode | EpisodeStep | EpisodeEnd) -> bytes:
    """The tensor form of a request.

    Raises:
      TypeError: an array is of something else than numbers.
    """
    values = {item.name: getattr(asking, item.name) for item in fields(asking)}
    return wire.write_tensors({name: value for name, value in values.items() if value is not None})


def write_reply(reply: EpisodeStarted | StepReply | EpisodeEnded, form: str) -> bytes:
    """An answer in the form of its request."""
    values = {item.name: getattr(reply, item.name) for item in fields(reply)}
    if form == wire.TENSOR_FORM:
        return wire.write_tensors(values)
    if isinstance(reply, StepReply):
        values["action"] = _plain(reply.action)
    return forms.encode(values)


def read_reply(kind: type[Telling], body: bytes) -> Telling:
    """The inverse of ``write_reply``, for the tensor form.

    Raises:
      BadRequest: it is no such answer.
    """
    values = wire.read_tensors(body)
    try:
        return kind(**values)
    except TypeError as error:
        raise BadRequest(f"this is no {kind.__name__}: {error}") from error


def check_name(episode: str) -> str:
    """The name itself.

    Raises:
      BadRequest: an episode cannot be called so.
    """
    if SESSION.fullmatch(episode) is None or "/" in episode:  # it stands in logs and in paths
        raise BadRequest("an episode's name has 1 to 128 letters of ASCII, no space and no slash", field="episode")
    return episode


def _plain(action: Actions) -> Any:
    if isinstance(action, dict):
        return {name: _plain(part) for name, part in action.items()}
    if isinstance(action, tuple):
        return [_plain(part) for part in action]
    return action.tolist()


def _name(value: Any, name: str, _: Reader) -> str:
    if not isinstance(value, str):
        raise BadRequest("no name", field=name)
    return check_name(value) if name == "episode" else value


def _step(value: Any, name: str, _: Reader) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise BadRequest("steps are counted from 0, in whole numbers", field=name)
    return value


def _reward(value: Any, name: str, _: Reader) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("no number", field=name)
    if not abs(value) <= MAX_REWARD:  # nor is NaN
        told = f"{value:g}" if isinstance(value, float) else "more than a float32 holds, it"
        raise BadObservation(f"{told} is no number that can be learned from", field=name)
    return float(value)


def _flag(value: Any, name: str, _: Reader) -> bool:
    if not isinstance(value, bool):
        raise BadRequest("neither true nor false", field=name)
    return value


_READERS: dict[str, Callable[[Any, str, Reader], Any]] = {
    "episode": _name,
    "policy": _name,
    "step": _step,
    "observation": wire.columns_from,
    "reward": _reward,
    "action_mask": lambda value, name, read_array: read_array(value, name),
    "timeout_s": lambda value, _, __: wire.seconds_from(value),
    "terminated": _flag,
    "truncated": _flag,
}
