"""The control's shell: actors' lives, names, exported functions. Speaks with every process, and with the node.

Whoever changes an actor's state ends in `_publish`, which tells its watchers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .. import ids
from ..clock import Clock
from ..errors import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    ShoalError,
)
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, Value, WireMethod
from ..scheduling import bundles
from ..serialization.failures import serialize_error
from ..transport.loop import Loop
from .actors import ActorRecord, ActorTable
from .group_server import GroupNode, GroupServer


class Node(GroupNode, Protocol):
    """What the control asks of the node it shares a process with."""

    def place_actor(
        self, actor: bytes, creator: bytes, required: dict[str, int], placement: dict[str, int], environment: bytes
    ) -> None: ...
    def withdraw_actor(self, actor: bytes) -> None: ...
    def kill_worker(self, worker_id: bytes, why: str) -> None: ...


class ControlServer:
    """Actors and functions of the cluster."""

    def __init__(
        self, loop: Loop, node: Node, *, clock: Clock, infeasible: type[Exception], on_shutdown: Callable[[], None]
    ) -> None:
        """
        Args:
          infeasible: what `node.place_actor` raises when no node can ever hold the actor.
          on_shutdown: the session is to end.
        """
        self._loop = loop
        self._node = node
        self._infeasible = infeasible
        self.actors = ActorTable()
        self.groups = GroupServer(
            loop, node, clock=clock, holder_of=self._detached_actor_in, end_actor=self._actor_lost_its_group
        )
        self._functions: dict[bytes, bytes] = {}
        #: Actor whose process a worker is; also from placement to the end of ``__init__``.
        self._hosts: dict[bytes, bytes] = {}
        #: Who watches actors that have not been announced: a handle can overtake its CreateActor.
        self._early: dict[bytes, set[bytes]] = {}
        loop.on(m.ExportFunction, self._export_function)
        loop.on(m.FetchFunction, self._fetch_function)
        loop.on(m.CreateActor, self._create_actor)
        loop.on(m.ActorStarted, self._actor_started)
        loop.on(m.WatchActor, self._watch_actor)
        loop.on(m.FindActor, self._find_actor)
        loop.on(m.KillActor, self._kill_actor)
        loop.on(m.ActorExits, self._actor_exits)
        loop.on(m.DescribeActor, self._describe_actor)
        loop.on(m.ActorOutOfScope, self._actor_out_of_scope)
        loop.on(m.Shutdown, lambda peer, message: on_shutdown())

    # ---- for those who ask what goes on

    def describe_actors(self, pid_of: Callable[[bytes], int]) -> list[dict[str, Any]]:
        """A row for each actor, as `rows.ActorState` has them; what is missing there is filled in by the head."""
        return [
            {
                "actor_id": record.actor_id.hex(),
                "class_name": record.spec.class_name,
                "state": "PENDING_CREATION" if record.state == "PENDING" else record.state,
                "name": record.spec.name,
                "ray_namespace": record.spec.namespace,
                "pid": pid_of(record.worker_id) if record.worker_id else 0,
                "worker_id": record.worker_id.hex() or None,
                "owner_id": record.creator.hex(),
                "required_resources": dict(record.spec.required),
                # As it is: to load it may take the user's classes, which have no business in the head.
                "failure": None if record.failure is None else [record.failure.payload, record.failure.buffers],
                "is_detached": record.spec.detached,
                "num_restarts": record.restarts,
            }
            for record in self.actors
        ]

    # ---- functions

    def _export_function(self, peer: bytes, message: m.ExportFunction) -> None:
        self._functions[message.key] = message.blob
        self._loop.send(peer, m.Answer(message.request, True))

    def _fetch_function(self, peer: bytes, message: m.FetchFunction) -> None:
        self._loop.send(peer, m.Answer(message.request, self._functions.get(message.key)))

    # ---- actors

    def _create_actor(self, peer: bytes, message: m.CreateActor) -> None:
        record = self.actors.create(peer, message)
        if record is None:
            existing = self.actors.find(message.name, message.namespace)
            assert existing is not None, "create refuses only a name that is taken"
            self._loop.send(peer, m.Answer(message.request, _handle_parts(existing)))
            return
        record.watchers |= self._early.pop(message.actor_id, set())
        if message.request:
            self._loop.send(peer, m.Answer(message.request, None))
            return  # the name is reserved; the creation follows when its arguments are there
        if record.state == "DEAD":
            return  # killed while it waited for them
        self._place(record)

    def _place(self, record: ActorRecord) -> None:
        if record.spec.refused:
            why = f"{record.description} can never be placed: {record.spec.refused}"
            self._end(record, "died", ActorUnschedulableError(why))
            return
        group = bundles.group_of(record.spec.required)
        if group and self.groups.is_gone(group):
            self._actor_lost_its_group(record.actor_id)
            return
        try:
            spec = record.spec
            self._node.place_actor(record.actor_id, record.creator, spec.required, spec.placement, spec.environment)
        except self._infeasible as why:
            self._end(record, "died", ActorUnschedulableError(f"{record.description} can never be placed: {why}"))

    def actor_refused(self, actor_id: bytes, why: str) -> None:
        """The node cannot start a worker for the actor."""
        record = self.actors.get(actor_id)
        if record is not None:
            what = "with its runtime_env " if record.spec.environment else ""
            record.verdict = f"no process could be started for it {what}({why})"
            self._end(record, "died", _death(record, ""))

    def actor_placed(self, actor_id: bytes, worker_id: bytes, gpus: list[str]) -> None:
        """The node has a worker for the actor, and these GPUs."""
        record = self.actors.get(actor_id)
        if record is None or record.state == "DEAD":
            # It died while the worker was on its way.
            self._node.kill_worker(worker_id, "the actor that it was for has died")
            return
        self._hosts[worker_id] = actor_id
        record.worker_id = worker_id
        spec = record.spec
        self._loop.send(worker_id, m.Equip(spec.required, gpus, spec.captures))
        self._loop.send(
            worker_id,
            m.StartActor(
                actor_id,
                record.creator,
                spec.class_key,
                spec.class_name,
                spec.max_concurrency,
                spec.groups,
                spec.arguments,
                spec.arguments_object,
                spec.slots,
                spec.buffers,
            ),
        )

    def _actor_started(self, peer: bytes, message: m.ActorStarted) -> None:
        record = self.actors.get(message.actor_id)
        if record is None or record.state == "DEAD":
            return  # killed meanwhile
        if message.failure == NO_VALUE:
            self.actors.created(message.actor_id, peer)
            self._publish(record)
        else:
            kind, payload, _ = message.failure
            ended = self.actors.ended(message.actor_id, "init_failed", Value(kind, payload, message.buffers, []))
            assert ended is not None, "checked above"
            self._publish(ended)
            self._node.kill_worker(peer, "its actor's __init__ has raised")

    def process_died(self, worker_id: bytes, cause: str) -> None:
        """The node has seen a process end: its actor is dead, and so are the actors it created."""
        actor_id = self._hosts.pop(worker_id, None)
        record = self.actors.get(actor_id) if actor_id is not None else None
        if record is not None:
            self._actor_lost(record, cause)
            if record.state == "DEAD":
                self.groups.actor_died(record.actor_id)
        for doomed in self.actors.process_died(worker_id):
            self._doom(doomed, "the process that created it has died")
        for actor_id in [actor_id for actor_id in self._early if ids.creator_of(actor_id) == worker_id]:
            for watcher in self._early.pop(actor_id):
                self._send_unknown(watcher, actor_id)
        self.groups.process_died(worker_id)
        for member in self._node.members:
            self._loop.send(member, m.ProcessDied(worker_id, cause))

    def _actor_lost(self, record: ActorRecord, cause: str) -> None:
        """Its process has ended: restart it or let it end."""
        unavailable = ActorUnavailableError(
            f"{record.description} is being restarted, and this call may have run or not: its process ended with "
            f"{cause}",
            actor_id=record.actor_id.hex(),
        )
        if self.actors.lost(record.actor_id, _failure(unavailable)) is None:
            self._end(record, "died", _death(record, cause))
        else:
            self._publish(record)
            self._place(record)

    def _watch_actor(self, peer: bytes, message: m.WatchActor) -> None:
        record = self.actors.get(message.actor_id)
        if record is None:
            if ids.creator_of(message.actor_id) in self._node.members:
                self._early.setdefault(message.actor_id, set()).add(peer)
            else:
                self._send_unknown(peer, message.actor_id)
            return
        record.watchers.add(peer)
        self._send_update(peer, record.actor_id, record.state, record.worker_id, record.failure)

    def _find_actor(self, peer: bytes, message: m.FindActor) -> None:
        record = self.actors.find(message.name, message.namespace)
        self._loop.send(peer, m.Answer(message.request, None if record is None else _handle_parts(record)))

    def _kill_actor(self, peer: bytes, message: m.KillActor) -> None:
        record = self.actors.get(message.actor_id)
        if record is not None and message.no_restart:
            self._doom(record, "it was killed by kill()")
        elif record is not None and record.worker_id:
            self._node.kill_worker(record.worker_id, "kill() was called")
        for watcher in self._early.pop(message.actor_id, ()):
            self._send_unknown(watcher, message.actor_id)

    def _describe_actor(self, peer: bytes, message: m.DescribeActor) -> None:
        record = self.actors.get(message.actor_id)
        facts = None
        if record is not None:
            facts = (*_handle_parts(record), record.spec.name, record.spec.namespace, record.restarts)
        self._loop.send(peer, m.Answer(message.request, facts))

    def _actor_exits(self, peer: bytes, message: m.ActorExits) -> None:
        record = self.actors.get(message.actor_id)
        if record is not None and record.state != "DEAD":
            record.verdict = "it left by exit_actor()"
        self._loop.send(peer, m.Answer(message.request, True))

    def _actor_out_of_scope(self, peer: bytes, message: m.ActorOutOfScope) -> None:
        record = self.actors.get(message.actor_id)
        if record is None or record.spec.detached or record.state == "DEAD":
            return
        record.verdict = "its last handle went out of scope"
        if record.state == "ALIVE":
            self._loop.send(record.worker_id, m.Exit())
        else:
            self._doom(record, record.verdict)

    def _doom(self, record: ActorRecord, verdict: str) -> None:
        """End an actor at once, wherever it is on its way."""
        if record.state == "DEAD":
            return
        record.verdict = verdict
        self._node.withdraw_actor(record.actor_id)
        self._end(record, "died", _death(record, ""))
        if record.worker_id:
            self._node.kill_worker(record.worker_id, f"the actor is dead: {record.verdict}")

    def _detached_actor_in(self, worker_id: bytes) -> bytes:
        """The detached actor that a process is; empty for all others."""
        record = self.actors.get(self._hosts.get(worker_id, b""))
        return record.actor_id if record is not None and record.spec.detached else b""

    def _actor_lost_its_group(self, actor_id: bytes) -> None:
        """The placement group it lives in, or was to live in, is gone; its process is being killed, if it has one."""
        record = self.actors.get(actor_id)
        if record is not None and record.state != "DEAD":
            record.verdict = "its placement group has been removed"
            why = f"{record.description} is dead: {record.verdict}"
            self._end(record, "died", ActorPlacementGroupRemoved(why))

    def _end(self, record: ActorRecord, event: str, error: ShoalError) -> None:
        if self.actors.ended(record.actor_id, event, _failure(error)) is not None:
            self._publish(record)

    def _publish(self, record: ActorRecord) -> None:
        for watcher in record.watchers:
            self._send_update(watcher, record.actor_id, record.state, record.worker_id, record.failure)

    def _send_unknown(self, peer: bytes, actor_id: bytes) -> None:
        why = f"actor {actor_id.hex()} is not known to this session, and the process that could have created it is gone"
        self._send_update(peer, actor_id, "DEAD", b"", _failure(ActorDiedError(why, actor_id=actor_id.hex())))

    def _send_update(self, peer: bytes, actor_id: bytes, state: str, worker_id: bytes, failure: Value | None) -> None:
        buffers: list[object] = []
        wire = NO_VALUE if failure is None else failure.wire(buffers)
        self._loop.send(peer, m.ActorUpdate(actor_id, state, worker_id if state == "ALIVE" else b"", wire, buffers))


def _handle_parts(record: ActorRecord) -> tuple[bytes, str, dict[str, WireMethod], int]:
    """What a handle is made from."""
    return (record.actor_id, record.spec.class_name, record.spec.methods, record.spec.max_pending_calls)


def _death(record: ActorRecord, cause: str) -> ActorDiedError:
    before = f" after {record.restarts} restarts" if record.restarts else ""
    why = record.verdict or f"its process ended with {cause}"
    return ActorDiedError(f"{record.description} is dead{before}: {why}", actor_id=record.actor_id.hex())


def _failure(error: ShoalError) -> Value:
    serialized = serialize_error(error)
    return Value(serialized.kind, serialized.data, [], [])
