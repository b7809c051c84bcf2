"""Flat values: a tuple, a list or a plain object, of items and small arrays, as one pickle in which no class is named.

    (1, array)         -> pickle of (_TUPLE, [1, FOLDED], [1])
    Reply(array, 7)    -> pickle of ((module, name, attributes or None), [FOLDED, 7], [0])
    FOLDED             (dtype, shape, order, memory) of a contiguous array of numbers

What calls are given and what they return is most often such a value. Pickle would look up ``numpy.ndarray``, and the
object's class, by name at both ends: 4 us of 5.5 for an object with one array, five times as much where the caches are
cold, as they are at each of a few hundred requests a second.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: An array: dtype, shape, order, memory.
Folded: TypeAlias = "tuple[str, tuple[int, ...], Literal['C', 'F'], bytes]"

PROTOCOL = 5
#: Memory of arrays up to this size is copied into the stream: a buffer beside it costs 4 us on its way, a copy 0.2.
SMALL_BYTES = 4096
#: Characters of the dtypes which their character, or ``dtype.str``, names fully, and which export their memory. Not
#: kinds: those of other packages (float8) call themselves floating, too, and do neither.
NUMERIC = frozenset("?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"])

_TUPLE, _LIST = 0, 1
#: By these a class has a say in how it is pickled.
_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_dumps, _loads = pickle.dumps, pickle.loads


def is_small(array: _Array) -> bool:
    """Whether it is one of numbers that may be folded."""
    return array.nbytes <= SMALL_BYTES and array.dtype.char in NUMERIC


def folded(array: _Array) -> Folded:
    """A small array as what needs no class to load; its memory is copied."""
    flags, dtype = array.flags, array.dtype
    order: Literal["C", "F"] = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    return dtype.char if dtype.isnative else dtype.str, array.shape, order, array.tobytes(order)


def unfolded(array: Folded) -> _Array:
    """The array again: read-only, for its memory is `bytes`."""
    dtype, shape, order, memory = array
    made: _Array = np.ndarray(shape, dtype, memory, 0, None, order)
    return made


@lru_cache(maxsize=256)
def has_only_attributes(kind: type) -> bool:
    """Whether an object of this class is its attributes: it is pickled as Python does by default."""
    if any(getattr(kind, name, None) is not getattr(object, name, None) for name in _OWN_WAYS):
        return False
    return not any(vars(each).get("__slots__") for each in kind.__mro__) and bool(kind.__dictoffset__)


def is_named(kind: type) -> bool:
    """Whether the class is found by its name, at the moment: another may be since its module was loaded again."""
    try:
        return _class(kind.__module__, kind.__qualname__) is kind
    except (ImportError, AttributeError):
        return False


def flatten(value: Any, parts: Sequence[Any]) -> bytes | None:
    """The stream of a tuple, a list or a plain object with these parts, items and arrays.

    None: an array is not small, or is there twice, and is to be one array at the other end, too.
    """
    stream_parts, places = list(parts), []
    for place, part in enumerate(parts):
        if type(part) is np.ndarray:
            if not is_small(part):
                return None
            stream_parts[place] = folded(part)
            places.append(place)
    if len(places) > 1 and len({id(parts[place]) for place in places}) < len(places):
        return None
    kind: Any = type(value)
    made_of: Any
    if kind is tuple:
        made_of = _TUPLE
    elif kind is list:
        made_of = _LIST
    else:
        attributes = tuple(value.__dict__)
        made_of = kind.__module__, kind.__qualname__, None if attributes == _fields(kind) else attributes
    return _dumps((made_of, stream_parts, places), PROTOCOL)


def unflatten(stream: Any) -> Any:
    """The value again."""
    made_of, parts, places = _loads(stream)
    for place in places:
        parts[place] = unfolded(parts[place])
    if made_of == _LIST:
        return parts
    if made_of == _TUPLE:
        return tuple(parts)
    module, name, attributes = made_of
    kind = _class(module, name)
    made = object.__new__(kind)
    made.__dict__.update(zip(attributes or _fields(kind), parts, strict=True))
    return made


@lru_cache(maxsize=256)
def _fields(kind: Any) -> tuple[str, ...]:
    """The attributes of a dataclass that has no others, in their order: they need not be sent."""
    return tuple([field.name for field in fields(kind)]) if is_dataclass(kind) else ()


def _class(module: str, name: str) -> Any:
    """As pickle finds it, at the moment."""
    __import__(module)  # waits if another thread imports it: half of a module may be in sys.modules already
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found
