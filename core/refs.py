"""ObjectRef: a promise of a value, and how its comings and goings reach the reference table.

A ref is an id and the worker that owns the object. The class knows no engine: each process gives it a `RefEvents` sink
by `connect`, and every birth and death of a Python ref becomes one entry there. Entries are appended to a deque and
nothing more, because a ref may die in any thread, at any point where Python collects garbage; whoever drives the
process's loop works them off.

Invariant: for each id the birth is appended before the death, so counts worked off in order never drop to zero too
early.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from . import ids
from .ray_compat.ray_ids import JobID, TaskID

if TYPE_CHECKING:
    from asyncio import Future as AsyncioFuture

T = TypeVar("T")

_NIL = b"\xff" * ids.OBJECT_BYTES


class RefEvents(Protocol):
    """What a connected process does for its refs."""

    released: Callable[[bytes], None]

    def received(self, object_id: bytes, owner: bytes, /) -> None:
        """A ref was made from bytes that came from elsewhere."""

    def received_all(self, object_ids: list[bytes], owner: bytes, /) -> None:
        """As `received`, for many refs to objects of one owner."""

    def escaped(self, ref: ObjectRef) -> None:
        """A ref was pickled by a pickler that is not ours: its copies cannot be counted."""

    def future(self, ref: ObjectRef) -> Future:
        """A future of the ref's value."""

    def awaited(self, ref: ObjectRef, future: AsyncioFuture) -> None:
        """A coroutine waits for the ref, by this future of its event loop."""


def _forget(object_id: bytes) -> None:
    """Where refs die when no engine is connected any more."""


_events: RefEvents | None = None
_released: Callable[[bytes], None] = _forget


def connect(events: RefEvents | None) -> None:
    """Send what happens to refs to `events`; None disconnects."""
    global _events, _released
    _events = events
    _released = _forget if events is None else events.released


class ObjectRef(Generic[T]):
    """A reference to an object that a task, an actor call or ``put`` makes, perhaps later.

    Pass it to tasks (its value arrives there), ``get`` it, ``wait`` for it, await it. The object lives while a ref to
    it does.
    """

    __slots__ = ("__weakref__", "_id", "_owner", "_released")

    def __init__(self, object_id: bytes, owner: bytes = b"") -> None:
        # `__del__` comes even if this raises.
        self._id = object_id
        self._released: Callable[[bytes], None] = _forget
        if len(object_id) != ids.OBJECT_BYTES:
            raise ValueError(f"an object id has {ids.OBJECT_BYTES} bytes, this one has {len(object_id)}")
        self._owner = owner
        # Bound at birth: a ref that outlives its session must not be counted in the next one.
        self._released = _forget if not owner else _released

    def __del__(self) -> None:
        self._released(self._id)

    @property
    def owner(self) -> bytes:
        """Worker id of the process that owns the object; empty for a ref made by hand from an id."""
        return self._owner

    def binary(self) -> bytes:
        """The 28 bytes of the id."""
        return self._id

    def hex(self) -> str:
        return self._id.hex()

    @classmethod
    def nil(cls) -> ObjectRef:
        """A ref to nothing."""
        return cls(_NIL)

    @classmethod
    def from_binary(cls, object_id: bytes) -> ObjectRef:
        """A ref made by hand: it names an object and does not keep it alive."""
        return cls(object_id)

    @classmethod
    def from_hex(cls, hex_id: str | bytes) -> ObjectRef:
        """As `from_binary`, from what `hex` gives."""
        return cls(bytes.fromhex(hex_id.decode() if isinstance(hex_id, bytes) else hex_id))

    @classmethod
    def from_random(cls) -> ObjectRef:
        """A ref to an object that does not exist."""
        return cls(os.urandom(ids.OBJECT_BYTES))

    @classmethod
    def size(cls) -> int:
        """Bytes of an id."""
        return ids.OBJECT_BYTES

    def is_nil(self) -> bool:
        """Whether it is the ref to nothing."""
        return self._id == _NIL

    def task_id(self) -> TaskID:
        """The task whose return value this is."""
        return TaskID(ids.task_of(self._id))

    def job_id(self) -> JobID:
        """The job of the object."""
        return JobID(ids.job_of(self._id))

    def owner_address(self) -> bytes:
        """Which process owns the object: an opaque name; empty for a ref made by hand."""
        return self._owner

    def call_site(self) -> str:
        """Where the object was made. Empty: call sites are not recorded."""
        return ""

    def future(self) -> Future:
        """A ``concurrent.futures.Future`` of the value. Cancelling it does not cancel the task."""
        if _events is None:
            raise RuntimeError(f"{self!r}: shoal is not initialised; call shoal.init() first")
        return _events.future(self)

    def as_future(self) -> AsyncioFuture:
        """An ``asyncio.Future`` of the value, on the running loop. Cancelling it does not cancel the task."""
        import asyncio  # only coroutines come here; `import shoal` need not pay for it

        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator:
        future = self.as_future()
        if _events is not None:
            _events.awaited(self, future)
        return future.__await__()

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[bytes, bytes]]:
        # Our own pickler takes refs out before it comes to this; here a foreign pickler is at work.
        if _events is not None:
            _events.escaped(self)
        return rebuild, (self._id, self._owner)


ObjectID = ObjectRef  #: Ray's old name

_id_of = attrgetter("_id")


def object_ids(refs: Iterable[ObjectRef]) -> Iterator[bytes]:
    """Their ids, at a fifth of the cost of a method call for each."""
    return map(_id_of, refs)


def rebuild(object_id: bytes, owner: bytes) -> ObjectRef:
    """The ref that a pickled one becomes in the process that loads it."""
    if _events is not None:
        _events.received(object_id, owner)
    return ObjectRef(object_id, owner)


def rebuild_all(object_ids: list[bytes], owner: bytes) -> list[ObjectRef]:
    """`rebuild` for many: 0.1 us each where that takes 0.6, which counts for an object with 10,000 refs inside."""
    if _events is not None:
        _events.received_all(object_ids, owner)
    released = _released if owner else _forget
    new, made = ObjectRef.__new__, []
    for object_id in object_ids:
        # What `__init__` does: calling it costs as much again. The ids are what other refs had, so their size is right.
        ref = new(ObjectRef)
        ref._id, ref._owner, ref._released = object_id, owner, released  # noqa: SLF001  it is of this module
        made.append(ref)
    return made
