"""The engine of a Ray cluster: each call of the seam on Ray's public API.

Remote functions and classes are made once for each function and its options, and methods once for each handle: what is
left of a call is turning shoal's refs into Ray's on the way in, and Ray's into shoal's on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import ray.exceptions

from ... import ids
from ...errors import ActorAlreadyExistsError
from ...options import ActorOptions, TaskOptions
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from .. import current
from ..base import ActorDescription, ActorIdentity, GroupDescription, NodeDescription, Place, Returns, Stock, Survey
from . import groups, nodes, options as ray_options, shipping, work
from .failures import translated, translating
from .handles import ActorLife, RayRef, inner_of, life_of, received, returned
from .place import Places, session_directory

#: Functions and classes that are kept ready.
_READY = 4096


class RayEngine:
    """A connection to a Ray cluster, as a driver or one of its workers sees it. `base.Engine`."""

    def __init__(self, *, disconnects: bool = False, whereabouts: Mapping[str, Any] | None = None) -> None:
        """
        Args:
          disconnects: Ray was connected for this engine, so it ends that connection.
          whereabouts: as `base.Engine.whereabouts`; only drivers are told.
        """
        self._disconnects = disconnects
        self._whereabouts = dict(whereabouts or {})
        self._places = Places()
        self._functions: dict[tuple[int, int], tuple[Any, Any, Callable[..., Any]]] = {}
        self._classes: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    # ---- tasks

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> Returns:
        found = self._functions.get((id(function), id(options)))
        remote = self._function(function, options) if found is None else found[2]
        try:
            return returned(remote(*_inner(args), **_inner_named(kwargs)))
        except ray.exceptions.RayError as error:
            raise translated(error) from None

    def _function(self, function: Callable[..., Any], options: TaskOptions) -> Callable[..., Any]:
        declared: dict[str, Any] = {"max_calls": options.max_calls} if options.max_calls else {}
        made = (
            ray.remote(**declared)(work.task(function, attach)) if declared else ray.remote(work.task(function, attach))
        )
        if len(self._functions) >= _READY:
            self._functions.clear()
        remote: Callable[..., Any] = made.options(**ray_options.of_task(options)).remote
        # Both are kept beside it: as long as they live, nothing else has their ids.
        self._functions[id(function), id(options)] = function, options, remote
        return remote

    # ---- actors

    def create_actor(
        self,
        cls: type,
        methods: Mapping[str, WireMethod],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: ActorOptions,
    ) -> ActorIdentity:
        found = self._classes.get((id(cls), id(options)))
        made = self._class(cls, options) if found is None else found[2]
        try:
            handle = made.remote(*_inner(args), **_inner_named(kwargs))
        except ray.exceptions.RayError as error:
            raise translated(error) from None
        except ValueError as error:
            if "already taken" in str(error):
                raise ActorAlreadyExistsError(str(error)) from None
            raise
        life = ActorLife(handle)
        return ActorIdentity(life.binary()[:16], cls.__name__, methods, life, options.max_pending_calls)

    def _class(self, cls: type, options: ActorOptions) -> Any:
        if len(self._classes) >= _READY:
            self._classes.clear()
        declared = {"concurrency_groups": dict(options.concurrency_groups)} if options.concurrency_groups else {}
        wrapped = work.actor_class(cls, attach)
        remote = ray.remote(**declared)(wrapped) if declared else ray.remote(wrapped)
        made = remote.options(**ray_options.of_actor(options))
        self._classes[id(cls), id(options)] = cls, options, made
        return made

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> Returns:
        life = actor.ref
        if not isinstance(life, ActorLife):
            life = life_of(life, actor.class_name)
        remote = life.methods.get((method, how))
        if remote is None:
            remote = getattr(life.handle, method).options(**ray_options.of_call(how)).remote
            life.methods[method, how] = remote
        try:
            return returned(remote(*_inner(args), **_inner_named(kwargs)))
        except ray.exceptions.RayError as error:
            raise translated(error) from None

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None:
        ray.kill(life_of(actor.ref, actor.class_name).handle, no_restart=no_restart)

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None:
        try:
            handle = ray.get_actor(name, namespace)
        except ValueError:
            return None
        life = ActorLife(handle)
        methods = dict.fromkeys(dir(handle), (1, 0, False, "", -1))
        return ActorIdentity(life.binary()[:16], "Actor", methods, life)

    def describe_actor(self, actor_id: bytes) -> ActorDescription | None:
        raise NotImplementedError

    # ---- objects

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        try:
            values = ray.get([inner_of(ref) for ref in refs], timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise translated(error) from None
        return [received(value) for value in values]

    def put(self, value: Any) -> ObjectRef:
        with translating():
            return RayRef(ray.put(value))

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        inner = {inner_of(ref): ref for ref in refs}
        with translating():
            ready, rest = ray.wait(list(inner), num_returns=num_returns, timeout=timeout_s)
        return [inner[ref] for ref in ready], [inner[ref] for ref in rest]

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        with translating():
            ray.cancel(inner_of(ref), force=force, recursive=recursive)

    def is_canceled(self) -> bool:
        return bool(ray.get_runtime_context().is_canceled())

    # ---- where the caller is, what there is

    def place(self) -> Place:
        return self._places.here()

    def environment(self) -> Mapping[str, Any]:
        return shipping.without_shoal(ray.get_runtime_context().runtime_env, ships=self._disconnects)

    def directory(self) -> str:
        return session_directory()

    def whereabouts(self) -> Mapping[str, Any]:
        return self._whereabouts

    def address(self) -> str:
        return str(ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[NodeDescription]:
        return nodes.described()

    def stock(self) -> Stock:
        return nodes.stock()

    def create_group(
        self,
        bundles: Sequence[Mapping[str, int]],
        *,
        strategy: str,
        name: str,
        detached: bool,
        selectors: Sequence[Mapping[str, str]],
        near: bytes,
    ) -> ids.PlacementGroupID:
        return groups.create(bundles, strategy=strategy, name=name, detached=detached, selectors=selectors, near=near)

    def remove_group(self, group_id: bytes) -> None:
        groups.remove(group_id)

    def group_ready(self, group_id: bytes, value: Any) -> ObjectRef:
        return groups.ready(group_id, value)

    def describe_groups(self, *, group_id: bytes = b"", name: str = "") -> list[GroupDescription]:
        return groups.described(group_id=group_id, name=name)

    def survey(
        self,
        subject: str,
        *,
        key: bytes = b"",
        target: bytes | None = None,
        limit: int = 10_000,
        timeout_s: float | None = None,
        unless: Callable[[], Any] = lambda: False,
    ) -> Survey:
        raise NotImplementedError

    def explain(self, ref: ObjectRef) -> str:
        raise NotImplementedError

    def shutdown(self) -> None:
        if self._disconnects:
            ray.shutdown()


def _inner(args: Sequence[Any]) -> Sequence[Any]:
    """Refs among the arguments as Ray knows them, so that their values arrive in their place."""
    for argument in args:
        if isinstance(argument, ObjectRef):
            return [inner_of(one) if isinstance(one, ObjectRef) else one for one in args]
    return args


def _inner_named(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    if not kwargs:
        return kwargs
    return {name: inner_of(one) if isinstance(one, ObjectRef) else one for name, one in kwargs.items()}


def attach() -> None:
    """Give a process of Ray's an engine. Every piece of work calls it; all but the first find it done."""
    if current.running() is None:
        with current.starting:
            if current.running() is None:
                current.set_engine(RayEngine())
