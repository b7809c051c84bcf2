"""The life of every placement group, and their names. Pure: events in, records out.

    PENDING --reserved--> CREATED --removed--> REMOVED
       '-----------------removed-----------------^

A group is reserved as a whole or not at all; who is PENDING is tried again, in the order of creation, when resources
have come back. A name belongs to a group from its creation to its removal. A removed group stays in the table for a
while, so that it can be looked at.

Ids say who created a group and as which of its groups (`ids.PlacementGroupID`), and a creator announces its groups in
order: so an id that nobody has announced is either still to come, or was removed so long ago that it is forgotten.

Not here: resources and processes (node), messages (group_server.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import ids
from ..lifecycle import Life, Lifecycle
from ..protocol.messages import CreateGroup

#: Removed groups that are remembered.
_REMEMBERED = 1000

GROUP = Lifecycle(
    "placement group",
    start="PENDING",
    moves={
        ("PENDING", "reserved"): "CREATED",
        ("PENDING", "removed"): "REMOVED",
        ("CREATED", "removed"): "REMOVED",
    },
)


@dataclass(slots=True)
class GroupRecord:
    """What the cluster knows of a group.

    holder: id of the detached actor that it was created in and ends with; empty: it lives as long as the session.
    attempts: times that its resources have been asked for.
    created_s, reserved_s: when; 0: not yet.
    watchers: processes that are told of every change.
    """

    group_id: bytes
    spec: CreateGroup
    holder: bytes
    created_s: float
    life: Life = field(default_factory=GROUP.begin)
    reserved_s: float = 0.0
    attempts: int = 0
    watchers: set[bytes] = field(default_factory=set)

    @property
    def state(self) -> str:
        return self.life.state

    def facts(self) -> dict[str, Any]:
        """For those who ask what goes on: a row of `listings.py`, the step of a reason."""
        return {
            "placement_group_id": self.group_id.hex(),
            "name": self.spec.name,
            "state": self.state,
            "bundles": [dict(bundle) for bundle in self.spec.bundles],
            "is_detached": self.spec.detached,
            "attempts": self.attempts,
        }


class GroupTable:
    """All placement groups of the cluster by id and by (namespace, name)."""

    def __init__(self) -> None:
        self._records: dict[bytes, GroupRecord] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._pending: dict[bytes, GroupRecord] = {}
        self._removed: dict[bytes, None] = {}
        self._announced: dict[bytes, int] = {}  # creator -> number of its latest group

    def __iter__(self) -> Iterator[GroupRecord]:
        return iter(self._records.values())

    def get(self, group_id: bytes) -> GroupRecord | None:
        return self._records.get(group_id)

    def find(self, name: str, namespace: str) -> GroupRecord | None:
        """The group of that name that is not removed."""
        group_id = self._names.get((namespace, name))
        return None if group_id is None else self._records[group_id]

    def is_gone(self, group_id: bytes, *, lives: Callable[[bytes], bool]) -> bool:
        """Whether it has been removed; False too for one that is still to be announced.

        Args:
          lives: whether a process does.
        """
        record = self._records.get(group_id)
        if record is not None:
            return record.state == "REMOVED"
        creator, number = ids.group_parts(group_id)
        return not lives(creator) or number <= self._announced.get(creator, 0)

    def create(self, spec: CreateGroup, *, holder: bytes, now_s: float) -> GroupRecord | None:
        """Register a group, PENDING; None when its name is taken."""
        creator, number = ids.group_parts(spec.group_id)
        self._announced[creator] = number
        if spec.name:
            if (spec.namespace, spec.name) in self._names:
                return None
            self._names[spec.namespace, spec.name] = spec.group_id
        record = GroupRecord(spec.group_id, spec, holder, now_s, watchers={creator})
        self._records[spec.group_id] = self._pending[spec.group_id] = record
        return record

    def settle(self, reserve: Callable[[GroupRecord], bool], now_s: float) -> list[GroupRecord]:
        """Try every group that is PENDING; returns those that are CREATED now.

        Args:
          reserve: sets all bundles of a group aside, or nothing (False).
        """
        return [record for record in list(self._pending.values()) if self.try_one(record, reserve, now_s)]

    def try_one(self, record: GroupRecord, reserve: Callable[[GroupRecord], bool], now_s: float) -> bool:
        """Try one that is PENDING; whether it is CREATED now."""
        record.attempts += 1
        if not reserve(record):
            return False
        del self._pending[record.group_id]
        record.life.on("reserved")
        record.reserved_s = now_s
        return True

    def removed(self, group_id: bytes) -> GroupRecord | None:
        """It is REMOVED; None when it was already, or is not known."""
        record = self._records.get(group_id)
        if record is None or record.state == "REMOVED":
            return None
        record.life.on("removed")
        self._pending.pop(group_id, None)
        if record.spec.name:
            del self._names[record.spec.namespace, record.spec.name]
        self._removed[group_id] = None
        if len(self._removed) > _REMEMBERED:
            oldest = next(iter(self._removed))
            del self._removed[oldest], self._records[oldest]
        return record

    def held_by(self, actor_id: bytes) -> list[GroupRecord]:
        """The groups that end with a detached actor."""
        return [record for record in self if record.holder == actor_id and record.state != "REMOVED"]

    def process_died(self, worker_id: bytes) -> None:
        """A process is gone: it watches nothing, and announces nothing any more."""
        self._announced.pop(worker_id, None)
        for record in self:
            record.watchers.discard(worker_id)
