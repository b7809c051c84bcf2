"""The life of every actor, and their names. Pure: events in, records out.

    PENDING --created--> ALIVE --worker_lost--> RESTARTING --created--> ALIVE
       any of them --init_failed, died--> DEAD

An actor whose process is lost is restarted while it has restarts left: ``__init__`` runs again with the same arguments,
its state is gone. It is DEAD when it has none, when its ``__init__`` raises, when it was killed or nobody holds a
handle.

Names belong to an actor from its registration to its death. A dead actor's record stays, so that a call through an old
handle learns why, until its creator is gone too.

Not here: processes and resources (node), messages (server.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..lifecycle import Life, Lifecycle
from ..protocol.messages import CreateActor
from ..protocol.specs import NO_VALUE, Value

ACTOR = Lifecycle(
    "actor",
    start="PENDING",
    moves={
        ("PENDING", "created"): "ALIVE",
        ("PENDING", "worker_lost"): "RESTARTING",
        ("PENDING", "init_failed"): "DEAD",  # the user's __init__ raised: a restart would raise again
        ("PENDING", "died"): "DEAD",
        ("ALIVE", "worker_lost"): "RESTARTING",  # restarts left; `lost` has checked
        ("ALIVE", "died"): "DEAD",
        ("RESTARTING", "created"): "ALIVE",
        ("RESTARTING", "worker_lost"): "RESTARTING",
        ("RESTARTING", "init_failed"): "DEAD",
        ("RESTARTING", "died"): "DEAD",
    },
)


@dataclass(slots=True)
class ActorRecord:
    """What the cluster knows of an actor."""

    actor_id: bytes
    creator: bytes
    spec: CreateActor
    life: Life
    worker_id: bytes = b""
    #: The error that its calls get, once it is DEAD; those that were under way, when it is RESTARTING.
    failure: Value | None = None
    #: Times that it has been restarted.
    restarts: int = 0
    #: Why its process is about to end, when we ended it ourselves.
    verdict: str = ""
    watchers: set[bytes] = field(default_factory=set)

    @property
    def state(self) -> str:
        return self.life.state

    @property
    def description(self) -> str:
        name = f" named {self.spec.name!r}" if self.spec.name else ""
        return f"{self.spec.class_name}{name} (actor {self.actor_id.hex()})"


class ActorTable:
    """All actors of the cluster by id and by (namespace, name)."""

    def __init__(self) -> None:
        self._records: dict[bytes, ActorRecord] = {}
        self._names: dict[tuple[str, str], bytes] = {}

    def __iter__(self) -> Iterator[ActorRecord]:
        return iter(self._records.values())

    def get(self, actor_id: bytes) -> ActorRecord | None:
        return self._records.get(actor_id)

    def find(self, name: str, namespace: str) -> ActorRecord | None:
        """The living (or pending) actor of that name."""
        actor_id = self._names.get((namespace, name))
        return None if actor_id is None else self._records[actor_id]

    def create(self, creator: bytes, spec: CreateActor) -> ActorRecord | None:
        """Register an actor, or complete one whose name was reserved; None when its name is taken."""
        record = self._records.get(spec.actor_id)
        if record is not None:
            if record.state != "DEAD":  # else nobody needs what it would have been made of
                record.spec = spec
            return record
        if spec.name:
            if (spec.namespace, spec.name) in self._names:
                return None
            self._names[spec.namespace, spec.name] = spec.actor_id
        record = ActorRecord(spec.actor_id, creator, spec, ACTOR.begin(), watchers={creator})
        self._records[spec.actor_id] = record
        return record

    def created(self, actor_id: bytes, worker_id: bytes) -> ActorRecord:
        """Its ``__init__`` has returned."""
        record = self._records[actor_id]
        record.worker_id = worker_id
        record.failure = None
        record.life.on("created")
        return record

    def lost(self, actor_id: bytes, failure: Value) -> ActorRecord | None:
        """Its process is gone. The record, now RESTARTING, if it may be restarted; None if it has to end."""
        record = self._records[actor_id]
        allowed = record.spec.max_restarts
        if record.state == "DEAD" or record.verdict or (allowed >= 0 and record.restarts >= allowed):
            return None
        record.restarts += 1
        record.failure = failure
        record.worker_id = b""
        record.life.on("worker_lost")
        return record

    def ended(self, actor_id: bytes, event: str, failure: Value) -> ActorRecord | None:
        """It is DEAD, by `event`; None when it was already."""
        record = self._records.get(actor_id)
        if record is None or record.state == "DEAD":
            return None
        record.life.on(event)
        record.failure = failure
        # The record stays for death notices, and they need nothing of what it was made of: 4 KB, or 100 with arguments.
        spec = record.spec
        spec.methods, spec.groups, spec.arguments, spec.slots, spec.buffers = {}, {}, NO_VALUE, [], []
        if record.spec.name:
            del self._names[record.spec.namespace, record.spec.name]
        return record

    def process_died(self, worker_id: bytes) -> list[ActorRecord]:
        """A process is gone: drop it as a watcher and forget its dead actors; returns the living that die with it."""
        doomed = []
        for record in list(self._records.values()):
            record.watchers.discard(worker_id)
            if record.creator == worker_id:
                if record.state == "DEAD":
                    del self._records[record.actor_id]
                elif not record.spec.detached:
                    doomed.append(record)
        return doomed
