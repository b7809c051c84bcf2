"""What an inline session has to do, and what of it can be done now. Pure.

    work    WAITING --started--> RUNNING --ended--> DONE          a task, the creation of an actor, or a call
               |  ^----again--------|                             its actor was restarted, or it is retried
               `-------failed-------'-------------> DONE          its actor, or who wanted it, has died

    actor   PENDING --created--> IDLE <--answered-- BUSY          one call at a time; an actor with lanes (threads or
               ^                  |  `---called------^            coroutines, runtime/concurrency.py) is never BUSY
               `--restarted-------'-----------------'
               any of them --died--> DEAD

Work waits for one of three things, in this order: arguments that are not there yet (`missing`); for a call, that its
actor exists and has answered every earlier one; for a task or a creation, resources that living actors hold. Tasks hold
nothing: of two tasks, one runs inside the other or after it. So in most programs nothing ever waits.

Invariants: `ready` holds work in the order in which it became possible, so what runs is a function of what was
submitted. A call in `ready` has its actor to itself (BUSY), unless that has lanes; a creation there holds the actor's
resources. A dead actor holds nothing, has no line and no name. `attempt` grows with every `again`, so that the end of a
run that was given up is told from that of the next.

Not here: values, locks, running (turns.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import ids
from ...lifecycle import Life, Lifecycle
from ...node.stock import Holding, Stock
from ...options import ActorOptions
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from ...resources import ResourceSet
from ...runtime.concurrency import Lanes
from ...runtime.equipment import BARE, Equipment
from ...serialization.functions import ExportedFunction
from ...serialization.values import Serialized
from .streams import InlineStream

WORK = Lifecycle(
    "inline work",
    start="WAITING",
    moves={
        ("WAITING", "started"): "RUNNING",
        ("WAITING", "failed"): "DONE",
        ("WAITING", "again"): "WAITING",
        ("RUNNING", "again"): "WAITING",
        ("RUNNING", "ended"): "DONE",
        ("RUNNING", "failed"): "DONE",  # the code goes on, for it cannot be stopped; what it returns is dropped
    },
)

ACTOR = Lifecycle(
    "inline actor",
    start="PENDING",
    moves={
        ("PENDING", "created"): "IDLE",
        ("PENDING", "died"): "DEAD",
        ("PENDING", "restarted"): "PENDING",
        ("IDLE", "restarted"): "PENDING",
        ("BUSY", "restarted"): "PENDING",
        ("IDLE", "called"): "BUSY",
        ("IDLE", "died"): "DEAD",
        ("BUSY", "answered"): "IDLE",
        ("BUSY", "died"): "DEAD",
    },
)


@dataclass(slots=True, eq=False)
class Work:
    """A task, the creation of an actor (`actor` is set, `method` empty) or a call (both are set).

    function: of a task or a creation; None in a call.
    arguments: packed; None when there are none. `slots`: the refs whose values go into them. `refs`: every ref that
      must live until the end, these and those inside the arguments.
    returns: ids of the objects that it makes. owner: worker id of who submitted it. group: the lane of a call.
    retries: times that it may be run again, after the loss of its process or an exception in `retry_on`; -1: always.
    """

    task_id: ids.TaskID
    name: str
    owner: bytes
    function: ExportedFunction | None
    arguments: Serialized | None
    slots: list[ObjectRef]
    refs: list[ObjectRef]
    returns: list[bytes]
    demand: ResourceSet = field(default_factory=ResourceSet)
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    actor: Actor | None = None
    method: str = ""
    group: str = ""
    environment: bytes = b""  #: set around the run; see resolved.py
    equipment: Equipment = BARE  #: of a task
    captures: bool = False  #: what it submits runs in its placement group
    missing: int = 0
    attempt: int = 0
    num_returns: int = 1  #: STREAMING or DYNAMIC for a generator
    stream: InlineStream | None = None  #: where the items of a generator go
    life: Life = field(default_factory=WORK.begin)

    @property
    def is_call(self) -> bool:
        return bool(self.method)

    def use_retry(self) -> bool:
        """Whether it may be run again; takes one of its retries."""
        if not self.retries:
            return False
        self.retries -= self.retries > 0
        return True


@dataclass(slots=True, eq=False)
class Actor:
    """An actor, living or dead.

    worker_id: owner of what it makes: it stands for the process that native would give it.
    creator: worker id of who created it; it dies with that one, unless it is detached.
    under_way: its creation, or the calls that are ready or run, by task id.
    leaving: its last handle has gone; it ends when its line is empty.
    failure: what its calls get, once it is DEAD.
    """

    actor_id: ids.ActorID
    worker_id: ids.WorkerID
    creator: bytes
    class_name: str
    methods: Mapping[str, WireMethod]
    name: str
    namespace: str
    options: ActorOptions
    id_source: ids.IdSource
    creation: Work | None = None  #: kept while it may run again
    environment: bytes = b""
    restarts: int = 0
    instance: Any = None
    leaving: bool = False
    failure: Serialized | None = None
    holding: Holding | None = None  #: from its placement to its death
    line: deque[Work] = field(default_factory=deque)
    under_way: dict[bytes, Work] = field(default_factory=dict)
    lanes: Lanes | None = None  #: where the calls of a concurrent actor run
    life: Life = field(default_factory=ACTOR.begin)

    @property
    def equipment(self) -> Equipment:
        """What its calls have."""
        if self.holding is None:
            return BARE
        return Equipment(self.holding.shape, list(self.holding.gpus), self.options.destination.captures)

    @property
    def is_dead(self) -> bool:
        return self.life.state == "DEAD"

    @property
    def detached(self) -> bool:
        return self.options.lifetime == "detached"

    @property
    def may_restart(self) -> bool:
        """Whether it has restarts left, and somebody to restart for."""
        allowed = self.options.max_restarts
        return not self.leaving and (allowed < 0 or self.restarts < allowed)

    @property
    def description(self) -> str:
        name = f" named {self.name!r}" if self.name else ""
        return f"{self.class_name}{name} (actor {self.actor_id.hex()})"


class Schedule:
    """All unfinished work, and all actors."""

    def __init__(self, total: ResourceSet, gpus: Sequence[str] = ()) -> None:
        self.stock = Stock(total.parts(), gpus)
        #: What a demand for resources of a placement group waits for, in words; empty for all others.
        self.reason_in_group: Callable[[Mapping[str, int]], str] = lambda shape: ""
        self.actors: dict[bytes, Actor] = {}
        self.ready: deque[Work] = deque()
        self._living: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], Actor] = {}
        self._short: list[Work] = []  # waits for resources, in order of submission
        self._unfinished: dict[bytes, Work] = {}

    @property
    def total(self) -> ResourceSet:
        """What the session has, with the resources of its placement groups."""
        return ResourceSet(self.stock.total)

    @property
    def available(self) -> ResourceSet:
        """What of it living actors do not hold."""
        return ResourceSet(self.stock.available)

    # ---- work

    def enter(self, work: Work) -> None:
        """New work; `missing` says how many arguments are not there."""
        self._unfinished[work.task_id] = work
        actor = work.actor
        if actor is not None:
            assert not actor.is_dead, "the caller fails calls to the dead"
            if work.is_call:
                actor.line.append(work)
            else:
                actor.under_way[work.task_id] = work
        self._consider(work)

    def argument_ready(self, work: Work) -> None:
        """One argument less is missing."""
        work.missing -= 1
        self._consider(work)

    def take(self) -> Work | None:
        """The next work that can run, now RUNNING; None when there is none."""
        while self.ready:
            work = self.ready.popleft()
            if work.life.state == "WAITING":  # else it has failed meanwhile
                work.life.on("started")
                return work
        return None

    def ended(self, work: Work) -> None:
        """It has run."""
        work.life.on("ended")
        del self._unfinished[work.task_id]
        self._leaves(work)

    def again(self, work: Work) -> None:
        """It is to be run once more: before everything else that waits for its actor."""
        self._back(work)
        self._leaves(work)
        self._consider(work)

    def failed(self, work: Work) -> None:
        """It shall not run, or not be waited for."""
        work.life.on("failed")
        work.refs.clear()
        work.slots.clear()
        del self._unfinished[work.task_id]

    def unfinished(self) -> list[Work]:
        """All work that is not over, in order of submission."""
        return list(self._unfinished.values())

    def cancel(self, work: Work) -> None:
        """It shall not begin."""
        if work in self._short:
            self._short.remove(work)
        if work.actor is not None and work in work.actor.line:
            work.actor.line.remove(work)
        self.failed(work)
        self._leaves(work)
        if work.actor is not None:
            self._next_call(work.actor)

    def maker(self, object_id: bytes) -> Work | None:
        """The unfinished work that will make an object."""
        return self._unfinished.get(ids.task_of(object_id))

    def submitted_by(self, owner: bytes) -> list[Work]:
        """Unfinished work of one owner, in order of submission."""
        return [work for work in self._unfinished.values() if work.owner == owner]

    def reason(self, work: Work) -> str:
        """What work waits for, for messages."""
        actor = work.actor
        if work.life.state == "RUNNING":
            return "is running, and cannot go on before this wait ends"
        if work.missing:
            return f"waits for {work.missing} of its arguments"
        if not work.is_call or actor is None:
            short = work.demand.shortage(self.available, "now free")
            grouped = self.reason_in_group(work.demand.parts())
            return grouped or f"waits for resources that living actors hold: it {short}"
        if actor.under_way:
            doing = next(iter(actor.under_way.values()))
            return f"waits for its turn at {actor.description}, where {doing.name}() {self.reason(doing)}"
        return f"waits behind earlier calls to {actor.description}"

    # ---- actors

    def add(self, actor: Actor) -> None:
        """Register an actor. Its name, if it has one, is free."""
        self.actors[actor.actor_id] = self._living[actor.actor_id] = actor
        if actor.name:
            self._names[actor.namespace, actor.name] = actor

    def named(self, name: str, namespace: str) -> Actor | None:
        """The living or pending actor of that name."""
        return self._names.get((namespace, name))

    def created(self, actor: Actor) -> None:
        """Its ``__init__`` has returned."""
        actor.life.on("created")
        self._next_call(actor)

    def restarted(self, actor: Actor, creation: Work) -> list[Work]:
        """Its process is lost and ``__init__`` runs again. Calls under way go back to the front of the line if they may
        run again; returns those that may not, and so have failed.
        """
        actor.life.on("restarted")
        actor.restarts += 1
        lost = list(actor.under_way.values())
        actor.under_way.clear()
        failed = [work for work in lost if not work.is_call or not work.use_retry()]
        for work in reversed(lost):
            if work in self.ready:
                self.ready.remove(work)
            if work in failed:
                self.failed(work)
            else:
                self._back(work)
        self._unfinished[creation.task_id] = actor.under_way[creation.task_id] = creation
        self.ready.append(creation)  # what it holds it has kept
        return failed

    def died(self, actor: Actor) -> list[Work]:
        """It is DEAD; returns the work that has failed with it: its creation, the call under way, the line."""
        actor.life.on("died")
        doomed = [*actor.under_way.values(), *actor.line]
        for work in doomed:
            self.failed(work)
        actor.line.clear()
        del self._living[actor.actor_id]
        actor.under_way.clear()
        actor.creation = None
        if actor.name:
            del self._names[actor.namespace, actor.name]
        if actor.holding is not None:
            self.stock.give_back(actor.holding)
            actor.holding = None
        self.resources_freed()
        return doomed

    def resources_freed(self) -> None:
        """What waits for resources may go on."""
        short, self._short = self._short, []
        for work in short:
            self._consider(work)

    def living(self) -> list[Actor]:
        """The actors that are not dead, in order of creation."""
        return list(self._living.values())

    def created_by(self, creator: bytes) -> list[Actor]:
        """The actors that die when `creator` does."""
        return [actor for actor in self._living.values() if actor.creator == creator and not actor.detached]

    # ---- internals

    def _consider(self, work: Work) -> None:
        """Make it ready, if nothing stands in its way."""
        if work.missing or work.life.state != "WAITING":
            return
        actor = work.actor
        if work.is_call:
            assert actor is not None, "a call has an actor"
            self._next_call(actor)
            return
        holding = self.stock.take(work.demand.parts())
        if holding is None:
            self._short.append(work)
            return
        if actor is None:
            work.equipment = Equipment(holding.shape, list(holding.gpus), work.captures)
            self.stock.give_back(holding)
        else:
            actor.holding = holding
        self.ready.append(work)

    def _next_call(self, actor: Actor) -> None:
        if actor.lanes is not None and actor.life.state == "IDLE":  # at once and in no order, as far as lanes are free
            for call in [call for call in actor.line if not call.missing]:
                actor.line.remove(call)
                actor.under_way[call.task_id] = call
                self.ready.append(call)
        elif actor.life.state == "IDLE" and actor.line and not actor.line[0].missing:
            actor.life.on("called")
            call = actor.line.popleft()
            actor.under_way[call.task_id] = call
            self.ready.append(call)

    def _back(self, work: Work) -> None:
        work.life.on("again")
        work.attempt += 1
        if work.is_call and work.actor is not None:
            work.actor.line.appendleft(work)

    def _leaves(self, work: Work) -> None:
        """Its actor, if it has one, does not run it any more."""
        actor = work.actor
        if actor is None:
            return
        if actor.under_way.pop(work.task_id, None) is not None and actor.life.state == "BUSY":
            actor.life.on("answered")
            self._next_call(actor)
