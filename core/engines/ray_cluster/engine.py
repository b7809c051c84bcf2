"""The engine of a Ray cluster: each call of the seam on Ray's public API.

Remote functions and classes are made once for each function and its options, and methods once for each handle: what is
left of a call is turning shoal's refs into Ray's on the way in, and Ray's into shoal's on the way out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import ray
import ray.exceptions

from ... import ids
from ...errors import ActorAlreadyExistsError, GetTimeoutError
from ...observing.measures import MEASURES
from ...options import ActorOptions, TaskOptions
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from ...runtime.questions import Question
from .. import current
from ..base import ActorDescription, ActorIdentity, GroupDescription, NodeDescription, Place, Returns, Stock, Survey
from . import groups, metrics, nodes, options as ray_options, reasons, shipping, state, work
from .demands import Demands
from .failures import translated, translating
from .handles import ActorLife, RayRef, inner_of, learn_refs, life_of, received, returned, weak_identity
from .place import Places, session_directory

#: Functions and classes that are kept ready, with all the options that they have had.
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
        # By the objects that users hold, which are kept beside what is found: as long as they live, nothing else has
        # their ids. Calls are looked up by the options as well, what Ray is given only once by what it depends on.
        self._functions: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._classes: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._demands = Demands(self.nodes)
        learn_refs()
        MEASURES.exporter = metrics.Exported()

    # ---- tasks

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> Returns:
        found = self._functions.get((id(function), id(options)))
        remote = self._prepare_task(function, options) if found is None else found[0]
        try:
            return returned(remote(*_inner(args), **_inner_named(kwargs)))
        except Exception as error:  # noqa: BLE001  see `translated`
            raise translated(error) from None

    def _prepare_task(self, function: Callable[..., Any], options: TaskOptions) -> Callable[..., Any]:
        """What runs a function with such options."""
        known = (id(function), options.max_calls, options.retry_on)
        found = self._functions.get(known)
        if found is None:
            wrapped = work.task(function, attach, options.retry_on)
            made = ray.remote(max_calls=options.max_calls)(wrapped) if options.max_calls else ray.remote(wrapped)
            found = _keep(self._functions, known, (made, function))
        said = ray_options.of_task(options, generator=inspect.isgeneratorfunction(function))
        remote: Callable[..., Any] = (found[0].options(**said) if said else found[0]).remote
        _keep(self._functions, (id(function), id(options)), (remote, function, options))
        self._demands.ask(f"{function.__name__}()", options.resources, options.destination)
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
        made = self._prepare_actor(cls, methods, options) if found is None else found[0]
        with translating():
            try:
                handle = made.remote(*_inner(args), **_inner_named(kwargs))
            except ValueError as error:
                if "already taken" in str(error):
                    raise ActorAlreadyExistsError(str(error)) from None
                raise
        if options.get_if_exists:
            return weak_identity(handle)  # it may have existed, with other methods
        life = ActorLife(handle, tuple(options.concurrency_groups))
        return ActorIdentity(life.binary()[:16], cls.__name__, methods, life, options.max_pending_calls)

    def _prepare_actor(self, cls: type, methods: Mapping[str, WireMethod], options: ActorOptions) -> Any:
        """What creates an actor with such options."""
        groups = dict(options.concurrency_groups)
        known = (id(cls), tuple(methods.items()), tuple(groups.items()))
        found = self._classes.get(known)
        if found is None:
            shell = work.actor_class(cls, methods, attach)
            made = ray.remote(concurrency_groups=groups)(shell) if groups else ray.remote(shell)
            found = _keep(self._classes, known, (made, cls))
        created = found[0].options(**ray_options.of_actor(options))
        _keep(self._classes, (id(cls), id(options)), (created, cls, options))
        self._demands.ask(f"actor {cls.__name__}", options.placement, options.destination)
        return created

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> Returns:
        life = actor.ref
        if not isinstance(life, ActorLife):
            life = life_of(life, actor.class_name)
        remote = life.methods.get((method, how))
        if remote is None:
            remote = life.prepare(actor, method, how)
        try:
            return returned(remote(*_inner(args), **_inner_named(kwargs)))
        except Exception as error:  # noqa: BLE001  see `translated`
            raise translated(error) from None

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None:
        with translating():
            ray.kill(life_of(actor.ref, actor.class_name).handle, no_restart=no_restart)

    def exit_actor(self) -> NoReturn:
        if not ray.get_runtime_context().get_actor_id():
            raise TypeError("exit_actor can only be called in a method of an actor")
        ray.actor.exit_actor()
        raise AssertionError("it does not return")

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None:
        with translating():
            try:
                handle = ray.get_actor(name, namespace)
            except ValueError:
                return None
            return weak_identity(handle)

    def describe_actor(self, actor_id: bytes) -> ActorDescription | None:
        here = ray.get_runtime_context()
        if here.get_actor_id() != actor_id.hex():
            return None
        identity = weak_identity(here.current_actor)
        restarts = int(here.was_current_actor_reconstructed)
        return ActorDescription(identity, here.get_actor_name() or "", here.namespace, restarts)

    # ---- objects

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        inner = [inner_of(ref) for ref in refs]
        first_s, rest_s = self._demands.patience(timeout_s)
        try:
            try:
                values = ray.get(inner, timeout=first_s)
            except ray.exceptions.GetTimeoutError:
                if first_s == timeout_s:
                    raise
                self._demands.tell("get")
                values = ray.get(inner, timeout=rest_s)
        except ray.exceptions.GetTimeoutError:
            raise GetTimeoutError(f"{_described(refs)} not ready within {timeout_s:g} s") from None
        except Exception as error:  # noqa: BLE001  see `translated`
            raise translated(error) from None
        return [received(value) for value in values] if ray.DynamicObjectRefGenerator in map(type, values) else values

    def put(self, value: Any) -> ObjectRef:
        with translating():
            return RayRef(ray.put(value))

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        inner = {inner_of(ref): ref for ref in refs}
        first_s, rest_s = self._demands.patience(timeout_s)
        with translating():
            ready, rest = ray.wait(list(inner), num_returns=num_returns, timeout=first_s)
            if len(ready) < num_returns and first_s != timeout_s:
                self._demands.tell("wait")
                ready, rest = ray.wait(list(inner), num_returns=num_returns, timeout=rest_s)
        done = set(ready)
        # Ray tells of what is in this process before what is in its store.
        return [ref for one, ref in inner.items() if one in done], [inner[ref] for ref in rest]

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        inner = inner_of(ref)
        with translating():
            # What has finished stays as it is; to be told to cancel it just then can crash Ray in this process.
            if not ray.wait([inner], timeout=0, fetch_local=False)[0]:
                ray.cancel(inner, force=force, recursive=recursive)

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

    def named_actors(self) -> list[tuple[str, str]]:
        return [(row["namespace"], row["name"]) for row in ray.util.list_named_actors(all_namespaces=True)]

    def trace(self) -> list[dict[str, Any]]:
        return state.timeline()

    def survey(self, question: Question) -> Survey:
        return state.survey(question)

    def explain(self, ref: ObjectRef) -> str:
        return reasons.explain(ref)

    def shutdown(self) -> None:
        MEASURES.exporter = None
        if self._disconnects:
            ray.shutdown()


def _described(refs: Sequence[ObjectRef]) -> str:
    return f"{refs[0]!r} was" if len(refs) == 1 else f"{len(refs)} objects, or some of them, were"


def _keep(kept: dict[Any, Any], key: tuple[Any, ...], value: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(kept) >= _READY:
        kept.clear()
    kept[key] = value
    return value


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
