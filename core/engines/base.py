"""The seam: what the public API asks of an engine. A handful of calls carry the whole programming model.

`api.py` and `remote.py` have checked arguments and options before they come here. Refs are always `refs.ObjectRef`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeAlias

from .. import ids
from ..errors import ActorAlreadyExistsError, PlacementGroupNameTakenError
from ..generators import ObjectRefGenerator
from ..options import ActorOptions, TaskOptions
from ..protocol.specs import WireMethod
from ..refs import ObjectRef
from ..runtime.equipment import Equipment
from ..runtime.questions import Question

#: What a task or call gives at once.
Returns: TypeAlias = "list[ObjectRef] | ObjectRefGenerator"


@dataclass(frozen=True, slots=True)
class ActorIdentity:
    """What a handle is made of. `ref` stands for the actor's life: None in a weak handle, as `find_actor` gives."""

    actor_id: bytes
    class_name: str
    methods: Mapping[str, WireMethod]  #: public methods and how they are called
    ref: ObjectRef | None
    max_pending_calls: int = -1  #: calls of one process that may be under way; not positive: any number


@dataclass(frozen=True, slots=True)
class ActorDescription:
    """An actor as others see it; `identity` is that of a weak handle. `name` is empty if it has none."""

    identity: ActorIdentity
    name: str
    namespace: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where code runs; ids of what does not apply are empty."""

    job_id: bytes
    node_id: bytes
    worker_id: bytes
    task_id: bytes
    task_name: str
    actor_id: bytes
    namespace: str
    equipment: Equipment  #: what the work holds
    gpus_listed: bool  #: ids of GPUs are those of the session's CUDA_VISIBLE_DEVICES, else numbers
    node_labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """A machine of the session. `total`: what it has, in 1/10_000."""

    node_id: bytes
    address: str
    hostname: str
    total: Mapping[str, int]
    labels: Mapping[str, str]
    is_alive: bool = True
    is_head: bool = True  #: the session was started there
    further: Mapping[str, Any] = field(default_factory=dict)  #: ports, sockets, cause of death: as `nodes` names them


@dataclass(frozen=True, slots=True)
class Stock:
    """What all living nodes have together, and what of it nobody has taken, in 1/10_000."""

    total: Mapping[str, int]
    available: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A placement group. `bundles` in 1/10_000; `nodes`: where each of them is, empty if nowhere yet; `progress`: Ray's
    word for what its making has come to; `creation_s`: how long it has waited for its resources; -1: it has not got
    them.
    """

    group_id: bytes
    name: str
    strategy: str
    bundles: Sequence[Mapping[str, int]]
    nodes: Sequence[bytes]
    state: str
    progress: str
    attempts: int
    creation_s: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out about a subject (`runtime.inspecting`), as rows."""

    facts: list[dict[str, Any]]  #: of the session as a whole
    answers: Mapping[bytes, list[dict[str, Any]]]  #: of each process, by its worker id
    silent: list[str]  #: processes that did not answer in time, in words
    is_all: bool  #: no process had more rows than it was let tell


class Engine(Protocol):
    """One running session, as one process sees it."""

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> Returns:
        """Run a function; one ref for each of its `options.num_returns`, or a generator of them."""
        ...

    def create_actor(
        self,
        cls: type,
        methods: Mapping[str, WireMethod],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: ActorOptions,
    ) -> ActorIdentity:
        """Create an actor; raises ActorAlreadyExistsError when its name is taken and `options.get_if_exists` is not
        set.
        """
        ...

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> Returns:
        """Call an actor's method, after all earlier calls of this process to it.

        Args:
          how: number of returns; times that the call is made again when the actor restarts; whether also after
            exceptions; concurrency group; items of a generator that may be ahead of their consumer.
        """
        ...

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        """Values in order, or the first error."""
        ...

    def put(self, value: Any) -> ObjectRef: ...

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """(ready, not ready)."""
        ...

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel the task or call that makes the object; ValueError: `force` on a call."""
        ...

    def is_canceled(self) -> bool:
        """Whether the call that the calling thread runs has been cancelled."""
        ...

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None: ...

    def exit_actor(self) -> NoReturn:
        """End the actor whose method calls this, after the call; TypeError: none does."""
        ...

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None: ...

    def describe_actor(self, actor_id: bytes) -> ActorDescription | None:
        """An actor by its id; None if nobody knows it. On a Ray cluster an actor is told of itself only."""
        ...

    def place(self) -> Place:
        """Where the caller runs."""
        ...

    def environment(self) -> Mapping[str, Any]:
        """The ``runtime_env`` that the caller's process was started with; `working_dir`, `py_modules`: copies."""
        ...

    def directory(self) -> str:
        """The session's directory; empty if it has none."""
        ...

    def whereabouts(self) -> Mapping[str, Any]:
        """What Ray's `address_info` holds, under Ray's names: addresses of the cluster, directories, ..."""
        ...

    def address(self) -> str:
        """Of the session, as ``host:port``."""
        ...

    def nodes(self) -> list[NodeDescription]:
        """The machines; also those that have been lost, where there can be such."""
        ...

    def stock(self) -> Stock:
        """The resources of all living nodes, as they are now."""
        ...

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
        """Set resources aside, now or when they are free. Nobody waits for it.

        Args:
          bundles: in 1/10_000.
          selectors: for each bundle, labels that its node must have; empty: any node.
          near: the node to take if it can be had; empty: any.

        Raises:
          PlacementGroupNameTakenError: another group of the namespace has the name.
          UnschedulableError: there is one machine, and it can never hold such a group.
        """
        ...

    def remove_group(self, group_id: bytes) -> None:
        """End the group and what runs inside. One that is gone is ignored."""
        ...

    def group_ready(self, group_id: bytes, value: Any) -> ObjectRef:
        """A ref to `value` that is there when the group has its resources."""
        ...

    def describe_groups(self, *, group_id: bytes = b"", name: str = "") -> list[GroupDescription]:
        """The group of this id or name, or none; with neither, all."""
        ...

    def named_actors(self) -> list[tuple[str, str]] | None:
        """(namespace, name) of living actors that have one, if the engine knows; None: a survey tells it."""
        ...

    def trace(self) -> list[dict[str, Any]] | None:
        """What was done and when, as Chrome's events, if the engine has them made; None: surveys tell it."""
        ...

    def survey(self, question: Question) -> Survey:
        """Ask what goes on."""
        ...

    def explain(self, ref: ObjectRef) -> str:
        """What a ref is waiting for, in words."""
        ...

    def shutdown(self) -> None:
        """End the session (a driver), or leave it."""
        ...


def actor_name_taken(name: str, namespace: str) -> ActorAlreadyExistsError:
    """What `Engine.create_actor` raises."""
    return ActorAlreadyExistsError(
        f"The name {name} (namespace={namespace}) is already taken: use another, get_actor, or get_if_exists=True"
    )


def group_name_taken(name: str, namespace: str) -> PlacementGroupNameTakenError:
    """What `Engine.create_group` raises."""
    return PlacementGroupNameTakenError(
        f"the name {name!r} (namespace {namespace!r}) is already taken by a placement group; use another, or "
        "get_placement_group"
    )
