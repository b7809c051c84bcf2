"""The placement groups' part of the control's shell: messages in, resources and ends of work out.

It hears creators, watchers and whoever removes a group; it asks the node for resources, and the node tells it when some
have come back. Whoever changes a group's state ends in `_publish`, which tells its watchers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .. import ids
from ..clock import Clock
from ..protocol import messages as m
from ..transport.loop import Loop
from .groups import GroupRecord, GroupTable


class GroupNode(Protocol):
    """What this part asks of the node it shares a process with."""

    @property
    def members(self) -> set[bytes]: ...
    def reserve_group(self, group: str, bundles: Sequence[dict[str, int]]) -> bool: ...
    def close_group(self, group: str) -> list[bytes]: ...
    def groups_wanted(self) -> set[str]: ...
    def schedule(self) -> None: ...


class GroupServer:
    """Placement groups of the cluster."""

    def __init__(
        self,
        loop: Loop,
        node: GroupNode,
        *,
        clock: Clock,
        holder_of: Callable[[bytes], bytes],
        end_actor: Callable[[bytes], None],
    ) -> None:
        """
        Args:
          holder_of: the detached actor that a process is; empty for all others.
          end_actor: an actor's group is gone, and so is its process.
        """
        self._loop = loop
        self._node = node
        self._clock = clock
        self._holder_of = holder_of
        self._end_actor = end_actor
        self.groups = GroupTable()
        #: Removed before they were announced: a handle can overtake its CreateGroup.
        self._removed_early: set[bytes] = set()
        #: Who watches groups that have not been announced.
        self._early: dict[bytes, set[bytes]] = {}
        loop.on(m.CreateGroup, self._create)
        loop.on(m.WatchGroup, self._watch)
        loop.on(m.RemoveGroup, lambda peer, message: self.remove(message.group_id))
        loop.on(m.DescribeGroups, self._describe)

    def is_gone(self, group: str) -> bool:
        """Whether a group, by its id in hexadecimal, has been removed or can never be announced."""
        return self.groups.is_gone(bytes.fromhex(group), lives=self._node.members.__contains__)

    def resources_freed(self) -> None:
        """Something has come back to the node: those that wait are tried again."""
        for record in self.groups.settle(self._reserve, self._clock()):
            self._publish(record)

    def remove(self, group_id: bytes) -> None:
        """End a group and all that runs inside. Twice is once."""
        record = self.groups.removed(group_id)
        if record is not None:
            self._close(group_id.hex())
            self._publish(record)
            record.watchers.clear()
            self._node.schedule()
        elif self.groups.get(group_id) is None and not self.is_gone(group_id.hex()):
            self._removed_early.add(group_id)

    def process_died(self, worker_id: bytes) -> None:
        """A process has ended: what waits for groups that it has not announced waits for nothing."""
        self.groups.process_died(worker_id)
        for group_id in [group_id for group_id in self._early if ids.group_parts(group_id)[0] == worker_id]:
            for watcher in self._early.pop(group_id):
                self._loop.send(watcher, m.GroupUpdate(group_id, "REMOVED"))
        self._removed_early = {group for group in self._removed_early if ids.group_parts(group)[0] != worker_id}
        for group in self._node.groups_wanted():
            if self.is_gone(group):
                self._close(group)

    def actor_died(self, actor_id: bytes) -> None:
        """A detached actor is dead, and with it the groups that it has created."""
        for record in self.groups.held_by(actor_id):
            self.remove(record.group_id)

    def _create(self, peer: bytes, message: m.CreateGroup) -> None:
        holder = b"" if message.detached else self._holder_of(peer)
        record = self.groups.create(message, holder=holder, now_s=self._clock())
        if message.request:
            self._loop.send(peer, m.Answer(message.request, record is not None))
        if record is None:
            return
        record.watchers |= self._early.pop(message.group_id, set())
        if message.group_id in self._removed_early:
            self._removed_early.discard(message.group_id)
            self.remove(message.group_id)
        elif self.groups.try_one(record, self._reserve, self._clock()):
            self._publish(record)
            self._node.schedule()

    def _reserve(self, record: GroupRecord) -> bool:
        return self._node.reserve_group(record.group_id.hex(), record.spec.bundles)

    def _close(self, group: str) -> None:
        for actor_id in self._node.close_group(group):
            self._end_actor(actor_id)

    def _watch(self, peer: bytes, message: m.WatchGroup) -> None:
        record = self.groups.get(message.group_id)
        if record is not None:
            if record.state != "REMOVED":
                record.watchers.add(peer)
            self._loop.send(peer, m.GroupUpdate(message.group_id, record.state))
        elif self.is_gone(message.group_id.hex()):
            self._loop.send(peer, m.GroupUpdate(message.group_id, "REMOVED"))
        else:
            self._early.setdefault(message.group_id, set()).add(peer)

    def _describe(self, peer: bytes, message: m.DescribeGroups) -> None:
        found: list[GroupRecord | None] = list(self.groups)
        if message.group_id:
            found = [self.groups.get(message.group_id)]
        elif message.name:
            found = [self.groups.find(message.name, message.namespace)]
        self._loop.send(peer, m.Answer(message.request, [_row(record) for record in found if record is not None]))

    def _publish(self, record: GroupRecord) -> None:
        for watcher in record.watchers:
            self._loop.send(watcher, m.GroupUpdate(record.group_id, record.state))


def _row(record: GroupRecord) -> tuple[Any, ...]:
    """As `DescribeGroups` says."""
    spec, took_s = record.spec, record.reserved_s - record.created_s if record.reserved_s else -1.0
    return (record.group_id, spec.name, spec.strategy, spec.bundles, record.state, record.attempts, took_s)
