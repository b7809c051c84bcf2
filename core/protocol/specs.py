"""The parts that messages are made of: values, refs and methods on the wire.

A value travels as `(kind, payload, number of buffers)`; its payload is bytes when it is small and a place in shared
memory when it is not. Buffers of all the values of a message ride behind it as frames of their own, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

#: Place of an object in the node's arena; made and read by `store.client`, opaque here.
Location: TypeAlias = tuple[Any, ...]

#: A block of the arena by itself: (offset of its payload, serial, whether it has a region of its own).
BlockLeft: TypeAlias = tuple[int, int, bool]

#: (kind, payload, number of buffers) as `Value` packs itself.
WireValue: TypeAlias = tuple[int, "bytes | Location", int]

#: In place of a value where there is none.
NO_VALUE: WireValue = (-1, b"", 0)

#: (number of returns, retries, retry after exceptions too, concurrency group, backpressure): how a method of an actor
#: is called unless told otherwise.
WireMethod: TypeAlias = tuple[int, int, bool, str, int]

#: (object id, owner): a ref inside a value.
WireRef: TypeAlias = tuple[bytes, bytes]


@dataclass(slots=True)
class Value:
    """A serialised value: inline (`payload` is bytes) or in shared memory (`payload` is a Location).

    kind: one of `serialization.values`: RAW, PICKLE, ARRAY, REFS, FAILURE.
    buffers: out-of-band buffers of an inline value; empty for a stored one.
    contained: the refs that stand inside the value.
    """

    kind: int
    payload: bytes | Location
    buffers: list[Any]
    contained: list[WireRef]
    #: Of a failure: somebody here has got it, or has been sent it.
    seen: bool = False

    @property
    def stored(self) -> bool:
        return isinstance(self.payload, tuple)

    def wire(self, frames: list[Any]) -> WireValue:
        """Pack: the buffers are appended to `frames`."""
        frames.extend(self.buffers)
        return (self.kind, self.payload, len(self.buffers))


def take_value(wire: WireValue, frames: list[Any], contained: list[WireRef] | None = None) -> Value:
    """Unpack: the value's buffers are taken off the front of `frames`."""
    kind, payload, count = wire
    buffers = frames[:count]
    del frames[:count]
    return Value(kind, payload, buffers, contained or [])


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in pickled arguments where a top-level ObjectRef stood; the executor puts the value there."""

    index: int
