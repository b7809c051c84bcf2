"""Arguments of tasks and calls: packed by who submits, unpacked by who runs.

    f.remote(1, ref, x=[other])     args (1, Slot(0)), kwargs {"x": [other]}
                                    dependencies: ref, whose value goes into slot 0
                                    uses: ref, and `other`, which stays a ref

Only top-level refs become values; refs inside containers stay refs. No arguments cost nothing: neither pickle nor
frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from ..protocol.specs import Slot, WireRef
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.values import Serialized

#: As a set, which asks for the identity of classes: `in` would ask a class's metaclass whether it is equal.
_REFS = frozenset({ObjectRef})


#: Python lets a keyword be any text, also one that is no Unicode.
_ANY = "surrogatepass"


@dataclass(slots=True)
class Packed:
    """`serialized` is None when there are no arguments. The refs in `refs` must be kept until they are counted."""

    serialized: Serialized | None
    dependencies: list[WireRef]
    refs: list[ObjectRef]


def pack(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Packed:
    """Serialise arguments, their top-level refs taken out.

    Raises:
      TypeError: something in them cannot be pickled.
    """
    if not kwargs and _REFS.isdisjoint(map(type, args)):
        serialized = values.serialize(tuple(args)) if args else None
        return Packed(serialized, [], [] if serialized is None else serialized.refs)
    if values.are_simple(every := [*args, *kwargs.values()]):
        # One list, so that it is flat if it may be: a third of the time.
        serialized = values.serialize([*every, msgpack.packb(list(kwargs), unicode_errors=_ANY)])
        return Packed(serialized, [], serialized.refs)  # in an array of objects there may be some
    dependencies: list[WireRef] = []
    refs: list[ObjectRef] = []

    def take(argument: Any) -> Any:
        if type(argument) is not ObjectRef:
            return argument
        refs.append(argument)
        dependencies.append((argument.binary(), argument.owner))
        return Slot(len(dependencies) - 1)

    positional = tuple([take(argument) for argument in args])
    if kwargs:
        # Lists tell the receiver that there are keywords; a dict at its end, that it is not one as above.
        serialized = values.serialize([positional, {name: take(argument) for name, argument in kwargs.items()}])
    else:
        serialized = values.serialize(positional)
    refs += serialized.refs
    return Packed(serialized, dependencies, refs)


def unpack(value: Any, slots: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inverse: `value` as it was packed, `slots` the values of the dependencies."""
    args, kwargs = value, {}
    if type(value) is list and type(value[-1]) is bytes:
        names = msgpack.unpackb(value.pop(), unicode_errors=_ANY)
        first = len(value) - len(names)
        args, kwargs = tuple(value[:first]), dict(zip(names, value[first:], strict=True))
    elif type(value) is list:
        args, kwargs = value
    if slots:
        args = tuple([slots[a.index] if type(a) is Slot else a for a in args])
        kwargs = {name: slots[a.index] if type(a) is Slot else a for name, a in kwargs.items()}
    return args, kwargs
