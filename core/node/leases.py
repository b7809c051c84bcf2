"""Who may use which worker: demands, reservations, leases, and the resources behind them. Pure.

    demand(owner, key, shape, wanted)      an owner could use `wanted` more workers of this shape; the last word counts
        | admit(): its resources are free
    reservation                            resources taken, no process yet
        | assign(worker): an idle worker takes the oldest reservation
    lease                                  the worker is the owner's, or has become an actor
        | release(worker)
    resources free

    close_group(group)                     all of this that stands in a placement group has ended

Resources are `{name: amount in 1/10_000}`. Invariant: what reservations and leases hold is what stock.py says is taken,
where a lease that is blocked holds no CPU. A demand in a placement group names the group's own resources; one for a
group that has not got them yet waits.

Not here: amounts and GPUs (stock.py), processes (pool.py), messages (server.py).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..scheduling import bundles
from .stock import Holding, Infeasible, Shape, Stock

__all__ = ["ClosedGroup", "Infeasible", "Lease", "LeaseTable", "Reservation", "Shape"]


@dataclass(slots=True)
class Demand:
    """An owner's wish for workers of one shape."""

    owner: bytes
    key: int
    shape: Shape
    wanted: int
    environment: bytes = b""


@dataclass(slots=True)
class Reservation:
    """Resources taken for a worker to come: `holding`. `actor` is empty for a lease to `owner`."""

    owner: bytes
    key: int
    shape: Shape
    actor: bytes = b""
    #: What its worker must have been started with.
    environment: bytes = b""
    holding: Holding = field(default_factory=lambda: Holding({}))

    @property
    def gpus(self) -> list[str]:
        """Ids of the GPUs that are its own, or in which it has a share."""
        return list(self.holding.gpus)


@dataclass(slots=True)
class Lease:
    """A worker in use."""

    reservation: Reservation
    blocked: bool = False


@dataclass(slots=True)
class ClosedGroup:
    """What has ended with a placement group.

    refused: (owner, key) of tasks' demands and leases. actors: those that lived, or were to live, inside.
    workers: processes at work inside.
    """

    refused: list[tuple[bytes, int]]
    actors: list[bytes]
    workers: list[bytes]


class LeaseTable:
    """The node's book of resources."""

    def __init__(self, total: Shape, *, task_limit: int, gpus: Sequence[str] = ()) -> None:
        """
        Args:
          total: what the node has.
          gpus: ids of its GPUs.
          task_limit: most workers that may run tasks at once, not counting blocked ones: tasks that ask for no resource
            would otherwise get a process each.
        """
        self.stock = Stock(total, gpus)
        self._task_limit = task_limit
        self._running = 0  # reservations and unblocked leases for tasks
        self._demands: dict[tuple[bytes, int], Demand] = {}
        self._turn: deque[tuple[bytes, int]] = deque()  # owners take turns; each demand stands here once
        self._actors: deque[Reservation] = deque()  # actors that wait for resources
        self._reserved: deque[Reservation] = deque()
        self.leases: dict[bytes, Lease] = {}

    @property
    def total(self) -> Shape:
        """What the node has, with the resources of its placement groups."""
        return self.stock.total

    @property
    def available(self) -> Shape:
        """What of it nobody has."""
        return self.stock.available

    @property
    def unstaffed(self) -> int:
        """Reservations that wait for a process."""
        return len(self._reserved)

    @property
    def unstaffed_by_environment(self) -> Mapping[bytes, int]:
        """The same, by what the process must have been started with."""
        return Counter(reservation.environment for reservation in self._reserved)

    def demand(self, owner: bytes, key: int, shape: Shape, wanted: int, environment: bytes = b"") -> None:
        """Set how many more workers the owner could use.

        Raises:
          Infeasible: never on this node.
        """
        self.stock.check(shape)
        place = (owner, key)
        if wanted <= 0:
            self._demands.pop(place, None)
            for reservation in [r for r in self._reserved if (r.owner, r.key) == place and not r.actor]:
                self._reserved.remove(reservation)
                self._running -= 1
                self.stock.give_back(reservation.holding)
            return
        if place not in self._demands:
            self._turn.append(place)
            self._demands[place] = Demand(owner, key, shape, wanted, environment)
        else:
            self._demands[place].wanted = wanted

    def demand_actor(
        self, actor: bytes, owner: bytes, required: Shape, placement: Shape, environment: bytes = b""
    ) -> None:
        """Queue an actor. `placement` must fit the empty node, `required` is held while the actor lives.

        Raises:
          Infeasible: never on this node.
        """
        self.stock.check(placement)
        self.stock.check(required)
        self._actors.append(Reservation(owner, 0, required, actor, environment))

    def withdraw_actor(self, actor: bytes) -> None:
        """The actor is no longer wanted; does nothing once it has a worker."""
        for queue, held in ((self._actors, False), (self._reserved, True)):
            for reservation in [r for r in queue if r.actor == actor]:
                queue.remove(reservation)
                if held:
                    self.stock.give_back(reservation.holding)

    def admit(self) -> None:
        """Take resources for every demand that fits now: actors first (others wait for them), then owners in turn."""
        for _ in range(len(self._actors)):
            reservation = self._actors.popleft()
            holding = self.stock.take(reservation.shape)
            if holding is None:
                self._actors.append(reservation)
            else:
                reservation.holding = holding
                self._reserved.append(reservation)
        stuck = 0
        while self._turn and stuck < len(self._turn):
            place = self._turn.popleft()
            demand = self._demands.get(place)
            if demand is None:
                continue  # withdrawn since
            holding = self.stock.take(demand.shape) if self._running < self._task_limit else None
            if holding is not None:
                self._running += 1
                self._reserved.append(
                    Reservation(demand.owner, demand.key, demand.shape, environment=demand.environment, holding=holding)
                )
                demand.wanted -= 1
                stuck = 0
            else:
                stuck += 1
            if demand.wanted:
                self._turn.append(place)
            else:
                del self._demands[place]

    def unstaffed_with_gpus(self, environment: bytes) -> int:
        """Reservations of an environment that wait for a process and have GPUs."""
        return sum(1 for r in self._reserved if r.gpus and r.environment == environment)

    def assign(self, worker: bytes, environment: bytes = b"", *, gpus: bool | None = None) -> Reservation | None:
        """Give the idle `worker` to the oldest reservation of its environment, with or without GPUs if that is said;
        None when there is none.
        """
        for reservation in self._reserved:
            if reservation.environment == environment and gpus in (None, bool(reservation.gpus)):
                self._reserved.remove(reservation)
                self.leases[worker] = Lease(reservation)
                return reservation
        return None

    def refuse(self, environment: bytes) -> tuple[list[tuple[bytes, int]], list[bytes]]:
        """No worker of this environment will come: forget what waits for one. Returns (owner, key) of the demands, and
        the actors.
        """
        places = {place for place, demand in self._demands.items() if demand.environment == environment}
        actors = [r.actor for r in (*self._actors, *self._reserved) if r.actor and r.environment == environment]
        places |= {(r.owner, r.key) for r in self._reserved if not r.actor and r.environment == environment}
        for owner, key in places:
            self.demand(owner, key, {}, 0)
        for actor in actors:
            self.withdraw_actor(actor)
        return sorted(places), actors

    def release(self, worker: bytes) -> Reservation | None:
        """The worker was returned, or died. Returns what it was used for; None if it was not in use."""
        lease = self.leases.pop(worker, None)
        if lease is None:
            return None
        if not (lease.blocked or lease.reservation.actor):
            self._running -= 1
        self.stock.give_back(lease.reservation.holding, without_cpu=lease.blocked)
        return lease.reservation

    def block(self, worker: bytes, *, blocked: bool) -> None:
        """The worker's task waits (its CPU becomes free) or goes on. Actors keep what they hold, like Ray's."""
        lease = self.leases.get(worker)
        if lease is None or lease.blocked == blocked or lease.reservation.actor:
            return
        lease.blocked = blocked
        self._running += -1 if blocked else 1
        self.stock.lend_cpu(lease.reservation.holding, lend=blocked)

    def holders(self) -> list[tuple[bytes, Reservation, bool]]:
        """(worker, what it is used for, whether it is blocked) of every lease; a reservation has no worker yet."""
        staffed = [(worker, lease.reservation, lease.blocked) for worker, lease in self.leases.items()]
        return staffed + [(b"", reservation, False) for reservation in self._reserved]

    def owner_died(self, owner: bytes) -> list[bytes]:
        """Forget the demands of a dead owner; returns the workers it had leased (their work has no receiver)."""
        for place in [place for place in self._demands if place[0] == owner]:
            self.demand(owner, place[1], {}, 0)
        for key in {r.key for r in self._reserved if r.owner == owner and not r.actor}:
            self.demand(owner, key, {}, 0)
        return [
            worker
            for worker, lease in self.leases.items()
            if lease.reservation.owner == owner and not lease.reservation.actor
        ]

    def groups_wanted(self) -> set[str]:
        """The placement groups that demands and actors wait to run in."""
        shapes = [*(demand.shape for demand in self._demands.values()), *(r.shape for r in self._actors)]
        return {bundles.group_of(shape) for shape in shapes} - {""}

    def close_group(self, group: str) -> ClosedGroup:
        """End all that stands in a placement group, and give the node back what it had set aside. The workers are still
        to be killed; their leases end as those of all workers do.
        """

        def within(shape: Shape) -> bool:
            return bundles.group_of(shape) == group

        places = [place for place, demand in self._demands.items() if within(demand.shape)]
        waiting = [r for r in (*self._actors, *self._reserved) if within(r.shape)]
        leased = [worker for worker, lease in self.leases.items() if within(lease.reservation.shape)]
        inside = [*waiting, *(self.leases[worker].reservation for worker in leased)]
        for reservation in waiting:
            if reservation.actor:
                self.withdraw_actor(reservation.actor)
            else:
                places.append((reservation.owner, reservation.key))
        for owner, key in places:
            self.demand(owner, key, {}, 0)
        places += [(r.owner, r.key) for r in inside if not r.actor]
        self.stock.release_group(group)
        return ClosedGroup(list(dict.fromkeys(places)), [r.actor for r in inside if r.actor], leased)
