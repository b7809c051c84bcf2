"""Placement groups of an inline session: the same table as native's, over the session's own resources.

A group has its resources at once, unless living actors hold them: then it waits for their ends. Removing it fails the
work inside (what runs goes on, and its result is dropped) and buries the actors; that is `InlineSession`'s to do.

Called by one thread at a time, like all tables of the session.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ... import ids
from ...control.groups import GroupRecord, GroupTable
from ...errors import TaskPlacementGroupRemoved
from ...protocol.messages import CreateGroup
from ...resources import ResourceSet
from ...scheduling import bundles
from ...serialization.failures import serialize_error
from ...serialization.values import Serialized
from .objects import InlineObjects
from .work import Schedule


class InlineGroups:
    """Placement groups, and the objects that stand for their being ready."""

    def __init__(self, schedule: Schedule, objects: InlineObjects) -> None:
        self._schedule = schedule
        self._objects = objects
        self._groups = GroupTable()
        self._awaited: dict[bytes, list[tuple[bytes, Serialized]]] = {}

    def is_gone(self, shape: Mapping[str, int]) -> str:
        """The group, in hexadecimal, that a demand wants and that is removed; empty if all is well."""
        group = bundles.group_of(shape)
        return group if group and self._groups.is_gone(bytes.fromhex(group), lives=lambda _: False) else ""

    def create(self, spec: CreateGroup, *, holder: bytes) -> bool:
        """A new group; False when its name is taken."""
        record = self._groups.create(spec, holder=holder, now_s=time.monotonic())
        if record is None:
            return False
        self._created([record] if self._groups.try_one(record, self._reserve, time.monotonic()) else [])
        return True

    def settle(self) -> None:
        """Resources have come back: try those that wait."""
        self._created(self._groups.settle(self._reserve, time.monotonic()))

    def remove(self, group_id: bytes) -> bool:
        """Give its resources back; whether there was anything to do."""
        record = self._groups.removed(group_id)
        if record is None:
            return False
        self._schedule.stock.release_group(group_id.hex())
        for object_id, _ in self._awaited.pop(group_id, ()):
            self._objects.resolve(object_id, removed(group_id.hex()))
        return True

    def held_by(self, actor_id: bytes) -> list[bytes]:
        """The groups that end with a detached actor."""
        return [record.group_id for record in self._groups.held_by(actor_id)]

    def ready(self, group_id: bytes, object_id: bytes, value: Serialized) -> None:
        """The object gets `value` when the group has its resources."""
        record = self._groups.get(group_id)
        if record is None or record.state == "REMOVED":
            self._objects.resolve(object_id, removed(group_id.hex()))
        elif record.state == "CREATED":
            self._objects.resolve(object_id, value)
        else:
            self._awaited.setdefault(group_id, []).append((object_id, value))

    def facts(self) -> list[dict[str, Any]]:
        """A row for each; see `GroupRecord.facts`."""
        return [record.facts() for record in self._groups]

    def reason(self, object_id: bytes) -> str:
        """What an object waits for that stands for a group's being ready, in words; empty for all others."""
        for group_id, awaited in self._awaited.items():
            if any(waiting == object_id for waiting, _ in awaited):
                return self._waits(group_id)
        return ""

    def shortage(self, shape: Mapping[str, int]) -> str:
        """What work in a group waits for, in words; empty for work that is in none."""
        group = bundles.group_of(shape)
        if not group:
            return ""
        record = self._groups.get(bytes.fromhex(group))
        if record is not None and record.state == "PENDING":
            return self._waits(record.group_id)
        return f"waits for resources of placement group {group} that living actors hold"

    def _waits(self, group_id: bytes) -> str:
        record = self._groups.get(group_id)
        assert record is not None, "somebody waits for it"
        demand = ResourceSet()
        for bundle in record.spec.bundles:
            demand += ResourceSet(bundle)
        why = f"waits for resources that living actors hold: it {demand.shortage(self._schedule.available, 'now free')}"
        return f"waits for placement group {group_id.hex()}, which {why}"

    def describe(self, group_id: bytes, name: str, namespace: str) -> list[tuple[Any, ...]]:
        """The group of this id or name, or all; each as control describes it (`protocol.messages.DescribeGroups`)."""
        found: Sequence[GroupRecord | None] = list(self._groups)
        if group_id:
            found = [self._groups.get(group_id)]
        elif name:
            found = [self._groups.find(name, namespace)]
        return [_row(record) for record in found if record is not None]

    def _reserve(self, record: GroupRecord) -> bool:
        return self._schedule.stock.reserve_group(record.group_id.hex(), record.spec.bundles)

    def _created(self, records: Sequence[GroupRecord]) -> None:
        for record in records:
            for object_id, value in self._awaited.pop(record.group_id, ()):
                self._objects.resolve(object_id, value)
        if records:
            self._schedule.resources_freed()


def removed(group: str) -> Serialized:
    """What the work in a removed group comes to."""
    return serialize_error(TaskPlacementGroupRemoved(f"placement group {group} has been removed"))


def new_spec(
    group_id: ids.PlacementGroupID,
    bundles_wanted: Sequence[Mapping[str, int]],
    *,
    strategy: str,
    name: str,
    namespace: str,
    detached: bool,
) -> CreateGroup:
    """As the head would be told of it."""
    return CreateGroup(0, group_id, name, namespace, strategy, [dict(bundle) for bundle in bundles_wanted], detached)


def _row(record: GroupRecord) -> tuple[Any, ...]:
    spec = record.spec
    took_s = record.reserved_s - record.created_s if record.reserved_s else -1.0
    return record.group_id, spec.name, spec.strategy, spec.bundles, record.state, record.attempts, took_s
