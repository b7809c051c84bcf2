"""Functions and classes by content: pickled once where they are first used, loaded once where they run.

The owner exports a function when it is first submitted and names it by the hash of its bytes from then on; so what
the function captures is frozen at that moment, as in Ray. Whoever runs it loads the bytes once for each key. This
module neither sends nor stores the bytes.
"""

from __future__ import annotations

import pickle
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ..refs import ObjectRef
from .values import dump

Function = Callable[..., Any]

KEY_BYTES = 16
#: Ray's limits, so that what passes there passes here.
WARN_BYTES = 10_000_000
MAX_BYTES = 100_000_000


@dataclass(slots=True, frozen=True)
class ExportedFunction:
    """A function or class as bytes."""

    key: bytes  #: 16 bytes, the hash of `blob`
    name: str  #: for messages: ``f``, ``Foo``
    blob: bytes  #: its pickle
    refs: tuple[ObjectRef[Any], ...] = ()  #: refs that it captured; they live as long as this


class FunctionExporter:
    """Pickles functions and remembers them by identity, as long as they live. Safe to call from any thread."""

    def __init__(self) -> None:
        # By id and with a weak reference beside it: functions hash by identity, but a class may have a metaclass that
        # does not.
        self._exported: dict[int, tuple[weakref.ref[Any], ExportedFunction]] = {}

    def export(self, function: Function) -> ExportedFunction:
        """The bytes and the key of `function`, which may be a class too.

        Raises:
          TypeError: it captures something that cannot be pickled; the message names the variable.
          ValueError: its pickle is over 100 MB.
        """
        entry = self._exported.get(id(function))
        if entry is not None and entry[0]() is function:
            return entry[1]
        exported = _export(function)
        self._remember(function, exported)
        return exported

    def _remember(self, function: Function, exported: ExportedFunction) -> None:
        identity, table = id(function), self._exported

        def forget(dead: weakref.ref[Any]) -> None:
            entry = table.get(identity)
            if entry is not None and entry[0] is dead:  # not the entry of another function at the same address
                del table[identity]

        try:
            table[identity] = (weakref.ref(function, forget), exported)
        except TypeError:  # cannot be referenced weakly (some callables written in C): exported again at each call
            return


class FunctionTable:
    """The functions that this process has loaded. Safe to call from any thread."""

    def __init__(self) -> None:
        self._loaded: dict[bytes, Function] = {}
        self._lock = threading.RLock()  # loading may import a module that loads functions

    def get(self, key: bytes) -> Function | None:
        """The function, if it has been loaded before."""
        return self._loaded.get(key)

    def load(self, key: bytes, blob: bytes) -> Function:
        """The function that was exported under `key`; the same object every time.

        Raises:
          Exception: what loading raises, for instance ModuleNotFoundError. It is tried again at the next call.
        """
        function = self._loaded.get(key)
        if function is None:
            # One thread loads: a class loaded twice would exist twice.
            with self._lock:
                function = self._loaded.get(key)
                if function is None:
                    function = self._loaded[key] = pickle.loads(blob)  # noqa: S301  from an owner that has authenticated
        return function


def _export(function: Function) -> ExportedFunction:
    name = getattr(function, "__name__", type(function).__name__)
    blob, refs = dump(function)
    if len(blob) > MAX_BYTES:
        raise ValueError(
            f"{name} is {len(blob) / 1e6:.0f} MB as bytes, over the limit of {MAX_BYTES / 1e6:.0f} MB; {_ADVICE}"
        )
    if len(blob) > WARN_BYTES:
        warnings.warn(f"{name} is {len(blob) / 1e6:.0f} MB as bytes; {_ADVICE}", stacklevel=4)
    return ExportedFunction(blake2b(blob, digest_size=KEY_BYTES).digest(), name, blob, tuple(refs))


_ADVICE = "put() the large values that it captures and pass the refs as arguments"
