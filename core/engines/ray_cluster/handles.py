"""Refs and generators of this engine: shoal's, with Ray's inside.

    RayRef              shoal.ObjectRef  around  ray.ObjectRef        counted by Ray, by the life of the inner one
    ActorLife           what an ActorIdentity holds: Ray's handle, strong or weak as Ray has made it
    RayStream           what an ObjectRefGenerator reads from: ray.ObjectRefGenerator
    NextItem            the ref by which `wait` knows a generator: Ray waits for the generator itself

They pickle to what is inside, so Ray's own serialiser sees every ref and handle that leaves, wherever in a value it
stands, and counts it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray

from ...errors import ActorHandleNotFoundError
from ...generators import DynamicObjectRefGenerator, ObjectRefGenerator
from ...refs import ObjectRef
from .failures import translated

#: Who owns an object is Ray's knowledge; a ref says only that somebody does.
_OWNER = b"ray"


def _counted_by_ray(_object_id: bytes) -> None:
    """What a ref's end means here: Ray's own ref ends with it, and that is counted."""


class RayRef(ObjectRef):
    """A ref to an object of the Ray cluster."""

    __slots__ = ("inner",)

    def __init__(self, inner: ray.ObjectRef) -> None:
        # Not through the parent's __init__, which checks the id: one is made for each call, and this is a third of it.
        self._id = inner.binary()
        self._owner = _OWNER
        self._released = _counted_by_ray
        self.inner = inner

    def future(self) -> Future[Any]:
        """A ``concurrent.futures.Future`` of the value. Cancelling it does not cancel the task."""
        outer: Future[Any] = Future()

        def settle(inner: Future[Any]) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            error = inner.exception()
            if error is None:
                outer.set_result(received(inner.result()))
            else:
                outer.set_exception(translated(error))

        self.inner.future().add_done_callback(settle)
        return outer

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[Any, ...]]:
        return RayRef, (self.inner,)


class ActorLife(ObjectRef):
    """Ray's handle of an actor. methods: calls that have been made through it, ready to be made again."""

    __slots__ = ("handle", "methods")

    def __init__(self, handle: Any) -> None:
        super().__init__(handle._actor_id.binary() + _NO_OBJECT)  # noqa: SLF001  the id has no other door
        self.handle = handle
        self.methods: dict[Any, Callable[..., Any]] = {}

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[Any, ...]]:
        return ActorLife, (self.handle,)


_NO_OBJECT = b"\xff" * 12


class NextItem(ObjectRef):
    """Stands for the next item of a generator, or its end. What `wait` and `get` hand to Ray is in `inner`."""

    __slots__ = ("inner",)

    def __init__(self, generator: ray.ObjectRefGenerator) -> None:
        # Another id than that of the ref which stands for the whole.
        super().__init__(generator.completed().binary()[:-4] + b"\xff\xff\xff\xfe")
        self.inner = generator


class RayStream:
    """The items of one generator. `generators.ItemStream`."""

    def __init__(self, generator: ray.ObjectRefGenerator) -> None:
        self._generator = generator
        self.completion: ObjectRef = RayRef(generator.completed())

    def take(self, timeout_s: float | None) -> ObjectRef | None:
        ready, _ = ray.wait([self._generator], timeout=timeout_s, fetch_local=False)
        return RayRef(next(self._generator)) if ready else None

    def peek(self) -> ObjectRef:
        return NextItem(self._generator)

    def is_ready(self) -> bool:
        return bool(ray.wait([self._generator], timeout=0, fetch_local=False)[0])

    def settled(self, ref: ObjectRef) -> Future[Any]:
        done: Future[Any] = Future()
        inner_of(ref).future().add_done_callback(lambda _: done.set_result(None))
        return done

    def is_finished(self) -> bool:
        return bool(self._generator.is_finished())

    def close(self) -> None:
        """Ray frees what was not taken when its generator goes."""


def inner_of(ref: ObjectRef) -> Any:
    """Ray's ref; of one that was made by hand, one made by hand."""
    if isinstance(ref, (RayRef, NextItem)):
        return ref.inner
    return ray.ObjectRef(ref.binary())


def life_of(ref: ObjectRef | None, what: str) -> ActorLife:
    """Raises ActorHandleNotFoundError: the handle is of another engine."""
    if not isinstance(ref, ActorLife):
        raise ActorHandleNotFoundError(f"{what} was not created in this Ray cluster: handles end with their session")
    return ref


def received(value: Any) -> Any:
    """A value as users see it: what Ray has made of a dynamic generator becomes shoal's."""
    if isinstance(value, ray.DynamicObjectRefGenerator):
        return DynamicObjectRefGenerator([RayRef(ref) for ref in value])
    return value


def returned(given: Any) -> list[ObjectRef] | ObjectRefGenerator:
    """What ``.remote()`` of Ray returns, as the seam has it."""
    if isinstance(given, ray.ObjectRef):
        return [RayRef(given)]
    if isinstance(given, ray.ObjectRefGenerator):
        return ObjectRefGenerator(RayStream(given))
    return [RayRef(ref) for ref in given or ()]
