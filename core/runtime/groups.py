"""Placement groups as a process sees them: what it has created, and the refs that stand for their being ready.

    create, remove             one message; nobody waits for it
    ready(group)               a ref of this process's own; resolved by the head's GroupUpdate:
                               CREATED: the group itself; REMOVED: TaskPlacementGroupRemoved

Invariant: a group is in `_states` from its creation here, or the first question, to its removal; its state is the last
that the head has told.
"""

from __future__ import annotations

from .. import ids
from ..errors import TaskPlacementGroupRemoved
from ..protocol import messages as m
from ..refs import ObjectRef
from ..serialization.values import Serialized
from ..transport.loop import Loop
from .holdings import Holdings, failure_value


class Groups:
    """The placement groups that one process has to do with."""

    def __init__(self, me: bytes, loop: Loop, holdings: Holdings, id_source: ids.IdSource, *, head: bytes) -> None:
        self._me = me
        self._loop = loop
        self._holdings = holdings
        self._ids = id_source
        self._head = head
        self._states: dict[bytes, str] = {}
        #: Refs that wait for a group, and what each comes to.
        self._awaited: dict[bytes, list[tuple[bytes, Serialized]]] = {}
        loop.on(m.GroupUpdate, self._on_update)

    # ---- any thread

    def created(self, message: m.CreateGroup, *, announced: bool) -> None:
        """Ask for a group; `announced`: the head has it already, for it was asked whether the name is free."""
        self._loop.submit(self._watch if announced else self._create, message)

    def remove(self, group_id: bytes) -> None:
        self._loop.submit(self._remove, group_id)

    def ready(self, group_id: bytes, value: Serialized) -> ObjectRef:
        """A ref to `value` that is there when the group is."""
        object_id = ids.object_id(self._ids.task(), 0)
        self._holdings.references.created(object_id)
        self._holdings.objects.expect(object_id)
        self._loop.submit(self._await, (group_id, object_id, value))
        return ObjectRef(object_id, self._me)

    # ---- in the driver

    def awaited_by(self, object_id: bytes) -> bytes:
        """The group that an object waits for; empty for all others."""
        for group_id, awaited in self._awaited.items():
            if any(waiting == object_id for waiting, _ in awaited):
                return group_id
        return b""

    def _create(self, message: m.CreateGroup) -> None:
        self._states[message.group_id] = "PENDING"
        self._loop.send(self._head, message)

    def _watch(self, message: m.CreateGroup) -> None:
        # Its first update may have come before the answer that let us know of the group.
        self._states[message.group_id] = "PENDING"
        self._loop.send(self._head, m.WatchGroup(message.group_id))

    def _remove(self, group_id: bytes) -> None:
        self._loop.send(self._head, m.RemoveGroup(group_id))
        if group_id in self._states:
            self._states[group_id] = "REMOVED"
            self._resolve(group_id)

    def _await(self, entry: tuple[bytes, bytes, Serialized]) -> None:
        group_id, object_id, value = entry
        if group_id not in self._states:
            self._states[group_id] = "PENDING"
            self._loop.send(self._head, m.WatchGroup(group_id))
        self._awaited.setdefault(group_id, []).append((object_id, value))
        self._resolve(group_id)

    def _on_update(self, peer: bytes, message: m.GroupUpdate) -> None:
        known = self._states.get(message.group_id)
        if known is None or (known == "REMOVED" and message.state != "REMOVED"):
            return  # nobody here wants to know; or it was on its way when we removed the group
        self._states[message.group_id] = message.state
        self._resolve(message.group_id)
        if message.state == "REMOVED":
            del self._states[message.group_id]

    def _resolve(self, group_id: bytes) -> None:
        state = self._states[group_id]
        if state == "PENDING":
            return
        for object_id, value in self._awaited.pop(group_id, ()):
            if state == "CREATED":
                self._holdings.resolve(object_id, self._holdings.keep(value, self._me))
            else:
                why = f"placement group {group_id.hex()} has been removed"
                self._holdings.resolve(object_id, failure_value(TaskPlacementGroupRemoved(why)))
