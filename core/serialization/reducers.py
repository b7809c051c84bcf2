"""How objects of some classes are pickled: by what the program has registered, and torch's tensors.

Per process. What a serializer returns travels together with the deserializer itself, so the process that loads it need
not have registered anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..refs import ObjectRef
from .tensors import StorageBytes, reduce_tensor, tensor_types

#: Written by C code of pickle's, or by ways of our own that look at nothing else.
_FIXED = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, type,
        np.ndarray, ObjectRef,
    }
)  # fmt: skip

Reducer = Callable[[Any, dict[int, StorageBytes]], object]
#: By exact class.
reducers: dict[type, Reducer] = {}
_tensors_known = False


def learn_tensors() -> None:
    """Look whether torch has been imported meanwhile."""
    global _tensors_known
    if not _tensors_known:
        for kind in tensor_types():
            reducers.setdefault(kind, reduce_tensor)
            _tensors_known = True


def register_serializer(
    cls: type, *, serializer: Callable[[Any], object], deserializer: Callable[[Any], object]
) -> None:
    """Have this process pickle instances of exactly `cls` its own way, also inside other values.

    Args:
      serializer: makes of an instance something that can be pickled.
      deserializer: makes an instance of that; runs where the value arrives, and is pickled with it.

    Raises:
      TypeError: `cls` is no class, or the others cannot be called.
      ValueError: `cls` is a class that is never pickled by a registered serializer.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer takes a class, not {type(cls).__name__} {cls!r}")
    if not all(map(callable, (serializer, deserializer))):
        raise TypeError(f"register_serializer({cls.__name__}): serializer and deserializer are functions")
    if cls in _FIXED:
        raise ValueError(f"{cls.__name__} is always pickled the same way: wrap it in a class of your own")
    reducers[cls] = lambda instance, _storages: (deserializer, (serializer(instance),))


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer`; nothing if there was none."""
    global _tensors_known
    if reducers.get(cls) is not reduce_tensor:
        reducers.pop(cls, None)
        _tensors_known = False  # it may have been torch's
