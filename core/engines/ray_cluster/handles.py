"""Refs, actors and generators of this engine: shoal's, with Ray's inside.

    RayRef              shoal.ObjectRef  around  ray.ObjectRef        counted by Ray, by the life of the inner one
    ActorLife           what an ActorIdentity holds: Ray's handle, strong or weak as Ray has made it
    RayStream           what an ObjectRefGenerator reads from: ray.ObjectRefGenerator
    NextItem            the ref by which `wait` knows a generator: Ray waits for the generator itself

In Ray's own serialiser they become what is inside (`learn_refs`), so Ray sees every ref and handle that leaves,
wherever in a value it stands, and counts it. To any other pickler they say where the object's owner is, as Ray does,
and the object lives as long as the process that pickled them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
import ray.cloudpickle
from ray.util import register_serializer

from ...errors import ActorHandleNotFoundError
from ...generators import DynamicObjectRefGenerator, ObjectRefGenerator
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from ..base import ActorIdentity
from . import callbacks
from .failures import stranger, translated, translating
from .options import how_of, of_call

if TYPE_CHECKING:
    from asyncio import Future as AsyncioFuture

#: Who owns an object is Ray's knowledge; a ref says only that somebody does.
_OWNER = b"ray"
_NO_OBJECT = b"\xff" * 12
_DESCRIBED = re.compile(r"Actor\((?P<name>.*), [0-9a-f]+\)")

#: How a method is called that declares nothing.
PLAIN: WireMethod = (1, 0, False, "", -1)
#: What a shell (work.py) has under a name that Ray would put a method of its own in the place of.
SHELL_NAMES: Mapping[str, str] = {"__ray_call__": "_shoal_call"}


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
        self.inner.future().add_done_callback(lambda inner: callbacks.run(partial(_settle, outer, inner)))
        return outer

    def as_future(self) -> AsyncioFuture[Any]:
        """An ``asyncio.Future`` of the value, on the running loop. Cancelling it does not cancel the task."""
        import asyncio  # only coroutines come here; `import shoal` need not pay for it

        outer: Future[Any] = Future()
        # In Ray's thread: what is called there is asyncio's, which does not wait.
        self.inner.future().add_done_callback(lambda inner: _settle(outer, inner))
        return asyncio.wrap_future(outer)

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[Any, ...]]:
        with translating():
            return _loaded, (ray.cloudpickle.dumps(self.inner),)


class ActorLife(ObjectRef):
    """Ray's handle of an actor.

    groups: its concurrency groups; None: not known here.
    methods: calls that have been made through it, ready to be made again.
    """

    __slots__ = ("groups", "handle", "methods")

    def __init__(self, handle: Any, groups: Sequence[str] | None = None) -> None:
        super().__init__(handle._actor_id.binary() + _NO_OBJECT)  # noqa: SLF001  the id has no other door
        self.handle = handle
        self.groups = groups
        self.methods: dict[Any, Callable[..., Any]] = {}

    def prepare(self, actor: ActorIdentity, method: str, how: WireMethod) -> Callable[..., Any]:
        """What makes such a call.

        Raises:
          ValueError: the actor has no such concurrency group. (Ray's actors die of such a call.)
        """
        if how[3] and self.groups is not None and how[3] not in self.groups:
            raise ValueError(f"{actor.class_name} has no concurrency group {how[3]!r}")
        own = SHELL_NAMES.get(method, method)
        bound = getattr(self.handle, own if own in dir(self.handle) else method)
        said = of_call(how, actor.methods[method])
        remote: Callable[..., Any] = (bound.options(**said) if said else bound).remote
        self.methods[method, how] = remote
        return remote

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[Any, ...]]:
        return ActorLife, (self.handle, self.groups)


def weak_identity(handle: Any) -> ActorIdentity:
    """What can be told of an actor by a handle that Ray has given; also of one that a plain Ray program has made."""
    described = _DESCRIBED.fullmatch(repr(handle))
    hidden = {"__init__", *SHELL_NAMES.values()}
    methods = {name: how_of(getattr(handle, name).__getstate__()) for name in dir(handle) if name not in hidden}
    life = ActorLife(handle)
    return ActorIdentity(life.binary()[:16], described["name"] if described else "Actor", methods, life)


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

    async def take_async(self) -> ObjectRef:
        return RayRef(await anext(self._generator))

    def peek(self) -> ObjectRef:
        return NextItem(self._generator)

    def is_ready(self) -> bool:
        return bool(ray.wait([self._generator], timeout=0, fetch_local=False)[0])

    def is_finished(self) -> bool:
        return bool(self._generator.is_finished())

    def close(self) -> None:
        """Ray frees what was not taken when its generator goes."""


def _settle(outer: Future[Any], inner: Future[Any]) -> None:
    if not outer.set_running_or_notify_cancel():
        return
    error = inner.exception()
    if error is None:
        outer.set_result(received(inner.result()))
    else:
        outer.set_exception(translated(error))


def learn_refs() -> None:
    """Have Ray's serialiser in this process, which is connected, put Ray's refs in the place of shoal's."""
    register_serializer(RayRef, serializer=_inner, deserializer=RayRef)


def _inner(ref: RayRef) -> ray.ObjectRef:
    return ref.inner


def _loaded(data: bytes) -> RayRef:
    return RayRef(ray.cloudpickle.loads(data))


def inner_of(ref: ObjectRef) -> Any:
    """Ray's ref; of one that was made by hand, one made by hand.

    Raises:
      ObjectLostError: no ref to the object is left in this process, so Ray would wait for it for ever.
    """
    if isinstance(ref, (RayRef, NextItem)):
        return ref.inner
    if ref.hex().encode() not in ray._private.worker.global_worker.core_worker.get_all_reference_counts():  # noqa: SLF001
        raise stranger(ref.hex())
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


def arrived(args: Sequence[Any]) -> Sequence[Any]:
    """Arguments as users see them."""
    return [received(one) for one in args] if ray.DynamicObjectRefGenerator in map(type, args) else args


def arrived_named(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """As `arrived`."""
    return {name: received(one) for name, one in kwargs.items()} if kwargs else kwargs


def returned(given: Any) -> list[ObjectRef] | ObjectRefGenerator:
    """What ``.remote()`` of Ray returns, as the seam has it."""
    if isinstance(given, ray.ObjectRef):
        return [RayRef(given)]
    if isinstance(given, ray.ObjectRefGenerator):
        return ObjectRefGenerator(RayStream(given))
    return [RayRef(ref) for ref in given or ()]
