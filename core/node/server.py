"""The node's shell: carries out with processes and messages what pool, leases and regions decide.

It hears owners (demands, returned leases), workers (registered, blocked), the zygote (forked, reaped) and the control
in the same process (place an actor, end one). Whatever changes who could run where ends in `schedule`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import ids
from ..clock import Clock
from ..config import CoreConfig
from ..protocol import messages as m
from ..scheduling import bundles as bundle_names
from ..scheduling.labels import NODE_ID
from ..store.allocator import Slab
from ..store.regions import RegionTable
from ..transport.loop import Loop
from . import zygote_channel
from .inheritance import Inheritance
from .leases import Infeasible, LeaseTable, Shape
from .output import OutputCollector
from .pool import WorkerPool, describe_end, was_sent
from .processes import ProcessBook
from .zygote_channel import Outbox

#: When the channel to the zygote is full, the next try.
_CHANNEL_RETRY_S = 0.002


class NodeServer:
    """Workers, leases and regions of one machine."""

    def __init__(
        self,
        loop: Loop,
        channel: socket.socket,
        *,
        node_id: ids.NodeID,
        total: Shape,
        gpus: Sequence[str],
        labels: Mapping[str, str],
        regions: RegionTable,
        memory: memoryview,
        output: OutputCollector,
        config: CoreConfig,
        clock: Clock,
    ) -> None:
        """
        Args:
          channel: to the zygote.
          total: the node's resources, in 1/10_000.
          gpus: ids of its GPUs.
          labels: of the node; its id is added.
          memory: the arena that `regions` divides.
          output: of the workers.
        """
        self.node_id = node_id
        cpus = total.get("CPU", 0) // 10_000
        self.leases = LeaseTable(total, task_limit=max(16, 4 * cpus), gpus=gpus)
        self._labels = {**labels, NODE_ID: node_id.hex()}
        self.pool = WorkerPool()
        self.processes = ProcessBook(node_id)
        self.regions = regions
        self.output = output
        self._memory = memory
        self._loop = loop
        self._channel = channel
        self._config = config
        self._clock = clock
        self._to_zygote = Outbox(channel)
        self._comes_again = False  # for what the channel to the zygote had no room for
        #: Workers that we have asked to be killed, and why.
        self._killed: dict[bytes, str] = {}
        self._members: set[bytes] = set()
        self._orphans: dict[int, memoryview] = {}
        self._inheritance = Inheritance(
            loop,
            regions,
            memory,
            members=lambda: self._members,
            release_region=self._take_back,
            drain=self._drain_orphans,
        )
        self._region_requests: list[tuple[bytes, m.RequestRegion]] = []
        self._keep_idle = max(1, cpus)
        #: Set by the head: an actor has got this worker with these GPUs; an actor gets none, and why; a process of the
        #: session has died, and why; resources have come back; whether a placement group, by its id in hexadecimal, has
        #: been removed.
        self.on_actor_placed: Callable[[bytes, bytes, list[str]], None]
        self.on_actor_refused: Callable[[bytes, str], None]
        self.on_freed: Callable[[], None]
        self.is_gone: Callable[[str], bool]
        self.on_process_died: Callable[[bytes, str], None]
        loop.on(m.Register, self._register)
        loop.on(m.DemandLeases, self._demand_leases)
        loop.on(m.KillLeased, self._kill_leased)
        loop.on(m.ReturnLease, self._return_lease)
        loop.on(m.Blocked, self._blocked)
        loop.on(m.Stay, self._stay)
        loop.on(m.DescribeNode, self._describe)
        loop.on(m.RequestRegion, self._request_region)
        loop.on(m.ReleaseRegion, self._release_region)
        loop.watch(channel.fileno(), self._hear_zygote)
        loop.watch(output.descriptor, output.ready)

    @property
    def members(self) -> set[bytes]:
        """Every process that has joined and lives: drivers and workers."""
        return self._members

    # ---- for the control

    def place_actor(self, actor: bytes, creator: bytes, required: Shape, placement: Shape, environment: bytes) -> None:
        """Find a worker for an actor; `on_actor_placed` will tell.

        Raises:
          Infeasible: never on this node.
        """
        self.leases.demand_actor(actor, creator, required, placement, environment)
        self.schedule()

    def withdraw_actor(self, actor: bytes) -> None:
        """The actor is dead before it had a worker."""
        self.leases.withdraw_actor(actor)
        self.schedule()

    def kill_worker(self, worker_id: bytes, why: str) -> None:
        """SIGKILL; `on_process_died` will tell, and say that it was us, because `why`."""
        if worker_id in self.pool:
            self._killed.setdefault(worker_id, why)
            self.pool.retire(worker_id)  # its owner may be returning it at this moment: nobody else must get it
            self._tell_zygote(m.KillWorker(worker_id))

    def reserve_group(self, group: str, bundles: Sequence[Shape]) -> bool:
        """Set the resources of a placement group aside, if they are free. `schedule` follows, once for many."""
        return self.leases.stock.reserve_group(group, bundles)

    def close_group(self, group: str) -> list[bytes]:
        """End the tasks in a placement group and give its resources back. `schedule` follows.

        Returns:
          The actors that lived inside, or were to; their processes are being killed.
        """
        closed = self.leases.close_group(group)
        # Before anybody hears that the workers have died: else the owners would run their tasks again.
        for owner, key in closed.refused:
            self._loop.send(owner, m.LeaseRefused(key, _removed(group), False, True))
        for worker_id in closed.workers:
            self.kill_worker(worker_id, "its placement group was removed")
        return closed.actors

    def groups_wanted(self) -> set[str]:
        """The placement groups that somebody waits for."""
        return self.leases.groups_wanted()

    # ---- for those who ask what goes on

    def usage(self) -> list[dict[str, Any]]:
        """Who holds which resources: a row for each reservation and lease, in 1/10_000."""
        return [
            {
                "worker_id": worker_id,
                "pid": self.processes.pid(worker_id),
                "owner": reservation.owner,
                "actor_id": reservation.actor,
                "shape": dict(reservation.shape),
                "blocked": blocked,
            }
            for worker_id, reservation, blocked in self.leases.holders()
        ]

    # ---- messages

    def _register(self, peer: bytes, message: m.Register) -> None:
        self._members.add(peer)
        self.processes.joined(peer, message.kind, message.pid, time.time() * 1e3)
        self._loop.send(peer, m.Registered(self.node_id, self.leases.stock.own, self._labels))
        if peer in self.pool:
            self.pool.registered(peer, self._clock())
            self.schedule()

    def _demand_leases(self, peer: bytes, message: m.DemandLeases) -> None:
        group = bundle_names.group_of(message.shape)
        if group and self.is_gone(group):
            if message.wanted > 0:
                self._loop.send(peer, m.LeaseRefused(message.key, _removed(group), False, True))
            return
        try:
            self.leases.demand(peer, message.key, message.shape, message.wanted, message.environment)
        except Infeasible as why:
            self._loop.send(peer, m.LeaseRefused(message.key, str(why), False, False))
            return
        self.schedule()

    def _return_lease(self, peer: bytes, message: m.ReturnLease) -> None:
        used_for = self.leases.release(message.worker_id)
        if used_for is not None:
            if message.retired or used_for.gpus:
                # With GPUs: CUDA sees for ever what it saw first, so the process must not run with others.
                self.pool.retire(message.worker_id)
                self._loop.send(message.worker_id, m.Exit() if message.retired else m.LeaveIfIdle())
            else:
                self.pool.put_back(message.worker_id, self._clock())
            self.schedule()
            self._loop.after(self._config.worker_idle_s, self._trim)

    def _kill_leased(self, peer: bytes, message: m.KillLeased) -> None:
        lease = self.leases.leases.get(message.worker_id)
        if lease is not None and lease.reservation.owner == peer and not lease.reservation.actor:
            self.kill_worker(message.worker_id, "its task was cancelled")

    def _blocked(self, peer: bytes, message: m.Blocked) -> None:
        self.leases.block(peer, blocked=message.blocked)
        if message.blocked:
            self.schedule()

    def _describe(self, peer: bytes, message: m.DescribeNode) -> None:
        self._loop.send(peer, m.Answer(message.request, (self.node_id, self.leases.total, self.leases.available)))

    def _stay(self, peer: bytes, message: m.Stay) -> None:
        if self.pool.is_retired(peer):
            self._loop.after(self._config.worker_idle_s, lambda: self._ask_to_leave(peer))
            return
        self.pool.stays(peer, self._clock())
        self.schedule()
        self._loop.after(self._config.worker_idle_s, self._trim)

    def _ask_to_leave(self, worker_id: bytes) -> None:
        if worker_id in self.pool:
            self._loop.send(worker_id, m.LeaveIfIdle())

    def _request_region(self, peer: bytes, message: m.RequestRegion) -> None:
        if not self._answer_region(peer, message):
            # Full, perhaps only until what others have just let go is back: ReleaseRegion may be on its way.
            self._region_requests.append((peer, message))
            self._loop.after(self._config.store_patience_s, lambda: self._refuse_region(peer, message))

    def _answer_region(self, peer: bytes, message: m.RequestRegion) -> bool:
        offset = self.regions.allocate(message.size_bytes, peer)
        if offset is None and self._drain_orphans():
            offset = self.regions.allocate(message.size_bytes, peer)
        if offset is None:
            return False
        self._loop.send(peer, m.Answer(message.request, offset))
        return True

    def _refuse_region(self, peer: bytes, message: m.RequestRegion) -> None:
        if (peer, message) in self._region_requests:
            self._region_requests.remove((peer, message))
            if not self._answer_region(peer, message):
                self._loop.send(peer, m.Answer(message.request, None))

    def _release_region(self, peer: bytes, message: m.ReleaseRegion) -> None:
        self._take_back(message.offset)

    def _take_back(self, region: int) -> None:
        """A region is free, and whoever waits for one may have it."""
        self._orphans.pop(region, None)
        self.regions.release(region)
        self._region_requests = [entry for entry in self._region_requests if not self._answer_region(*entry)]

    # ---- the zygote

    def _tell_zygote(self, message: m.Message, descriptors: Sequence[int] = ()) -> None:
        """Args: descriptors: copies go along; ours are closed."""
        self._to_zygote.tell(message, descriptors)
        if not self._comes_again:  # one that comes again for each message would do nothing else
            self._send_to_zygote()

    def _send_to_zygote(self) -> None:
        self._to_zygote.send_on()
        self._comes_again = not self._to_zygote.is_empty
        if self._comes_again:
            self._loop.after(_CHANNEL_RETRY_S, self._send_to_zygote)

    def _hear_zygote(self) -> None:
        message, _ = zygote_channel.receive(self._channel)
        if isinstance(message, m.Reaped):
            why, words = self._killed.pop(message.worker_id, None), self.output.last_words(message.worker_id)
            cause = describe_end(message.status, killed_because=why, last_words=words)
            intended = why is not None or message.status == 0
            interrupted = why is None and was_sent(message.status)
            self._worker_died(message.worker_id, cause, intended=intended, interrupted=interrupted)
        elif isinstance(message, m.ForkFailed):
            self.output.last_words(message.worker_id)  # there were none; it is forgotten
            self._worker_died(message.worker_id, message.reason, intended=False, interrupted=False)
        elif message is None:
            self._loop.unwatch(self._channel.fileno())  # the zygote is dead, and the kernel is about to kill us too

    def _worker_died(self, worker_id: bytes, cause: str, *, intended: bool, interrupted: bool) -> None:
        """
        Args:
          intended: we have killed it, or it has left as it should.
          interrupted: somebody else has killed it.
        """
        self._loop.hear_out(worker_id)  # its last words come before its death
        self._region_requests = [entry for entry in self._region_requests if entry[0] != worker_id]
        record = self.pool.reaped(worker_id, interrupted=interrupted)
        self.leases.release(worker_id)
        self._members.discard(worker_id)
        self.processes.died(worker_id, cause, time.time() * 1e3, intended=intended)
        for region in self.regions.holder_died(worker_id):
            self._orphans[region.offset] = self._memory[region.offset : region.offset + region.size]
        self._inheritance.process_died(worker_id)
        self._drain_orphans()
        for doomed in self.leases.owner_died(worker_id):
            self.kill_worker(doomed, "the process that it worked for has died")
        self.on_process_died(worker_id, cause)
        if record is not None:
            self._give_up_starting(record.environment, cause)
        self.schedule()

    def _give_up_starting(self, environment: bytes, cause: str) -> None:
        """After enough tries whoever waits for a worker of this environment learns why none comes up."""
        failed, interrupted = self.pool.failed_starts(environment), self.pool.interrupted_starts(environment)
        if failed < self._config.start_attempts and interrupted < self._config.interrupted_starts:
            return
        self.pool.forget_failed_starts(environment)
        why = f"{failed + interrupted} workers in a row ended while they started, the last with {cause}"
        demands, actors = self.leases.refuse(environment)
        for owner, key in demands:
            self._loop.send(owner, m.LeaseRefused(key, why, True, False))
        for actor in actors:
            self.on_actor_refused(actor, why)

    def _drain_orphans(self) -> bool:
        """Take back the slabs of dead workers in which nothing lives any more; whether there were any.

        Owners free objects there by a store into shared memory, which nobody hears of: so look, when a worker has died
        and when memory is wanted. (A large object's region comes back by ReleaseRegion, whoever held it.)
        """
        empty = [offset for offset, memory in self._orphans.items() if _is_empty(memory)]
        for offset in empty:
            del self._orphans[offset]
            self.regions.release(offset)
        return bool(empty)

    # ---- scheduling

    def schedule(self) -> None:
        """Turn demands that fit into reservations, reservations into leases, and fork for those that find no idle
        worker.
        """
        if self.leases.stock.freed:
            self.leases.stock.freed = False
            self.on_freed()
        self.leases.admit()
        if self.leases.unstaffed:
            for environment, count in self.leases.unstaffed_by_environment.items():
                self._staff(environment, count)

    def _staff(self, environment: bytes, count: int) -> None:
        """Find workers for `count` reservations of an environment: idle ones, else new ones."""
        # CUDA sees for ever what it saw first, and a process that has had work may have asked: with GPUs only new ones.
        with_gpus = self.leases.unstaffed_with_gpus(environment)
        missing = -self.pool.starting(environment)
        for gpus, wanted in ((True, with_gpus), (False, count - with_gpus)):
            left = wanted
            while left and (worker_id := self.pool.take_idle(environment, unused=gpus)) is not None:
                self._grant(worker_id, environment, gpus=gpus)
                left -= 1
            missing += left
        if missing <= 0:
            return
        for worker_id in self.pool.displaced(environment, missing, self._keep_idle):
            self._loop.send(worker_id, m.LeaveIfIdle())
        for _ in range(missing):
            fresh = ids.new_worker_id()
            self.pool.started(fresh, environment)
            self._tell_zygote(m.Fork(fresh, environment), self.output.open(fresh))
            self._loop.after(self._config.start_timeout_s, partial(self._end_if_starting, fresh))

    def _end_if_starting(self, worker_id: bytes) -> None:
        """A worker that hangs while it starts would be waited for for ever."""
        if self.pool.is_starting(worker_id):
            self.kill_worker(worker_id, f"it did not come up within {self._config.start_timeout_s:g} s")

    def _grant(self, worker_id: bytes, environment: bytes, *, gpus: bool) -> None:
        reservation = self.leases.assign(worker_id, environment, gpus=gpus)
        assert reservation is not None, "the caller has counted"
        if reservation.actor:
            self.on_actor_placed(reservation.actor, worker_id, reservation.gpus)
        else:
            self._loop.send(reservation.owner, m.LeaseGranted(reservation.key, worker_id, reservation.gpus))

    def _trim(self) -> None:
        """Let surplus idle workers go."""
        for worker_id in self.pool.surplus(self._keep_idle, self._clock() - self._config.worker_idle_s):
            self._loop.send(worker_id, m.LeaveIfIdle())


def _removed(group: str) -> str:
    return f"placement group {group} has been removed"


def _is_empty(memory: memoryview) -> bool:
    """Whether nothing lives in the region of a dead worker."""
    try:
        return Slab.open(memory).is_empty
    except ValueError:
        return True  # it died before it had written anything there
