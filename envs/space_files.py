"""Spaces from a JSON file, for simulators that no environment of this machine stands for.

    {"observation_space": {"kind": "box", "shape": [4], "dtype": "float32", "low": [null], "high": [null]},
     "action_space": {"kind": "discrete", "nvec": [2]}}

The form is that in which a server of policies tells its spaces at /v1/policies. Bounds, choices and starts are flat, in
C order, or one number for all; ``null`` is unbounded, and what is left away is unbounded, or begins at 0.

    box             shape, dtype ("float32"), low, high
    discrete        nvec: [n], start
    multi_discrete  shape, nvec, start
    multi_binary    shape
    dict, tuple     parts: {name: space}, of a tuple "0", "1", ...
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

    Space = gymnasium.Space[Any]

_FIELDS = {
    "box": {"shape", "dtype", "low", "high"},
    "discrete": {"nvec", "start"},
    "multi_discrete": {"shape", "nvec", "start"},
    "multi_binary": {"shape"},
    "dict": {"parts"},
    "tuple": {"parts"},
}
#: What every leaf may have beside, as a server tells it of all.
_TOLD_OF_ALL = {"kind", "shape", "dtype", "low", "high", "nvec", "start"}
#: Those of them that are lists of numbers; null is as if they were not there.
_LISTS = ("shape", "low", "high", "nvec", "start")

#: Numbers of one part of an observation or action, at most: twice what a picture in 4K has, or rather a mistake. Bounds
#: for each of them are in memory, several times.
_MOST_NUMBERS = 1 << 25


class SpaceFileError(ValueError):
    """The file is not there, is no JSON, or tells of no spaces. One line: the file, the place in it, what is wrong."""


def read(path: Path) -> tuple[Space, Space]:
    """Observation and action space.

    Raises:
      SpaceFileError: they cannot be made of the file.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpaceFileError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpaceFileError(f"{path} is no JSON: {error}") from error
    if not isinstance(told, dict) or set(told) != {"observation_space", "action_space"}:
        raise SpaceFileError(f"{path} is no object of observation_space and action_space")
    try:
        return _space(told["observation_space"], "observation_space"), _space(told["action_space"], "action_space")
    except SpaceFileError as error:
        raise SpaceFileError(f"{path}: {error}") from error.__cause__


def _space(told: Any, place: str) -> Space:
    from gymnasium import spaces

    kind = told.get("kind") if isinstance(told, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise SpaceFileError(f"{place} has no kind of {', '.join(_FIELDS)}")
    may_have = _FIELDS[kind] if kind in ("dict", "tuple") else _TOLD_OF_ALL
    for name in told:
        if name != "kind" and name not in may_have:
            raise SpaceFileError(f"{place}.{name}: a {kind} has {', '.join(sorted(_FIELDS[kind]))}")
    for name in _LISTS:
        if told.get(name) is not None and not isinstance(told[name], list):
            raise SpaceFileError(f"{place}.{name}: {json.dumps(told[name])} is no list of numbers, as [0]")
    try:
        if kind in ("dict", "tuple"):
            parts = {str(name): _space(part, f"{place}.{name}") for name, part in told["parts"].items()}
            if kind == "dict":
                return spaces.Dict(parts)
            return spaces.Tuple([parts[str(number)] for number in range(len(parts))])
        return _leaf(kind, told)
    except SpaceFileError:
        raise
    except KeyError as error:
        raise SpaceFileError(f"{place}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError, AssertionError, OverflowError) as error:
        raise SpaceFileError(f"{place}: {' '.join(str(error).split()) or 'this is no space'}") from error


def _leaf(kind: str, told: dict[str, Any]) -> Space:
    from gymnasium import spaces

    start = told.get("start") or [0]
    if kind == "discrete":
        (choices,) = told["nvec"]
        return spaces.Discrete(choices, start=start[0])
    shape = tuple(told["shape"])
    if (size := math.prod(shape)) > _MOST_NUMBERS:
        raise ValueError(f"its shape has {size:,} numbers; there may be {_MOST_NUMBERS:,}")
    if kind == "multi_binary":
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(_spread(told["nvec"], shape, np.int64), start=_spread(start, shape, np.int64))
    dtype = np.dtype(told.get("dtype", "float32"))
    limits: tuple[float, float] = (-math.inf, math.inf)
    if dtype.kind in "iu":  # as whole numbers: the largest of 64 bits is no float64
        limits = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    low, high = (
        _spread(
            [limit if bound is None else min(max(bound, limits[0]), limits[1]) for bound in told.get(name) or [None]],
            shape,
            dtype,
        )
        for name, limit in zip(("low", "high"), limits, strict=True)
    )
    return spaces.Box(low, high, shape, dtype.type)


def _spread(values: list[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    array = np.array(values, dtype)
    return np.broadcast_to(array, shape).copy() if array.size == 1 else array.reshape(shape)
