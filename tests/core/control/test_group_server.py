"""The groups' part of the control, spoken to in any order: messages of different processes can overtake each other."""

from __future__ import annotations

import pytest

from shoal.core.control.group_server import GroupServer
from shoal.core.protocol import messages as m

CREATOR, OTHER = b"c" * 12, b"o" * 12


class FakeLoop:
    def __init__(self) -> None:
        self.handlers, self.sent = {}, []

    def on(self, kind, handler) -> None:
        self.handlers[kind] = handler

    def send(self, peer, message) -> None:
        self.sent.append((peer, message))

    def told(self, peer):
        """What a process has heard of groups since the last look."""
        told = [x.state for to, x in self.sent if to == peer and isinstance(x, m.GroupUpdate)]
        self.sent = [(to, x) for to, x in self.sent if to != peer]
        return told


class FakeNode:
    """Has room for one group at a time."""

    def __init__(self) -> None:
        self.members = {CREATOR, OTHER}
        self.reserved, self.closed, self.wanted, self.scheduled = set(), [], set(), 0

    def reserve_group(self, group, _bundles) -> bool:
        if self.reserved:
            return False
        self.reserved.add(group)
        return True

    def close_group(self, group):
        self.reserved.discard(group)
        self.wanted.discard(group)
        self.closed.append(group)
        return [b"actor in " + group[-2:].encode()]

    def groups_wanted(self):
        return set(self.wanted)

    def schedule(self) -> None:
        self.scheduled += 1


class Parts:
    def __init__(self) -> None:
        self.loop, self.node, self.ended = FakeLoop(), FakeNode(), []
        self.server = GroupServer(
            self.loop,
            self.node,
            clock=lambda: 1.0,
            holder_of=lambda worker: b"detached" if worker == OTHER else b"",
            end_actor=self.ended.append,
        )

    def hear(self, peer, message) -> None:
        self.loop.handlers[type(message)](peer, message)


def group(number: int, creator: bytes = CREATOR) -> bytes:
    return creator + number.to_bytes(6, "big")


def create(number: int, creator: bytes = CREATOR, *, name: str = "", request: int = 0, detached: bool = False):
    return m.CreateGroup(request, group(number, creator), name, "ns", "PACK", [{"CPU": 1}], detached)


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_the_creator_is_told_when_its_group_has_its_resources(parts):
    parts.hear(CREATOR, create(1))
    assert parts.loop.told(CREATOR) == ["CREATED"]
    parts.hear(CREATOR, create(2))
    assert parts.loop.told(CREATOR) == []
    parts.server.remove(group(1))
    assert parts.ended == [b"actor in 01"]
    assert parts.node.scheduled == 2, "the node looks for those that wait"
    parts.server.resources_freed()
    assert parts.loop.told(CREATOR) == ["REMOVED", "CREATED"]


def test_a_name_that_is_taken_is_refused_before_anything_happens(parts):
    parts.hear(CREATOR, create(1, name="g", request=7))
    parts.hear(OTHER, create(1, OTHER, name="g", request=8))
    answers = [(to, x.request, x.value) for to, x in parts.loop.sent if isinstance(x, m.Answer)]
    assert answers == [(CREATOR, 7, True), (OTHER, 8, False)]
    assert parts.node.reserved == {group(1).hex()}


def test_who_watches_before_the_announcement_is_told_after_it(parts):
    parts.hear(OTHER, m.WatchGroup(group(1)))
    assert parts.loop.told(OTHER) == []
    parts.hear(CREATOR, create(1))
    assert parts.loop.told(OTHER) == ["CREATED"]


def test_who_watches_late_is_told_at_once(parts):
    parts.hear(CREATOR, create(1))
    parts.hear(OTHER, m.WatchGroup(group(1)))
    assert parts.loop.told(OTHER) == ["CREATED"]
    parts.server.remove(group(1))
    parts.server.remove(group(1))
    assert parts.loop.told(OTHER) == ["REMOVED"], "once"
    parts.hear(OTHER, m.WatchGroup(group(1)))
    assert parts.loop.told(OTHER) == ["REMOVED"]


def test_a_removal_that_overtakes_the_creation_is_not_lost(parts):
    parts.hear(OTHER, m.RemoveGroup(group(1)))
    parts.hear(CREATOR, create(1))
    assert parts.loop.told(CREATOR) == ["REMOVED"]
    assert parts.node.reserved == set()


def test_what_a_dead_process_has_not_announced_is_gone(parts):
    parts.hear(OTHER, m.WatchGroup(group(1)))
    parts.node.wanted.add(group(1).hex())
    parts.node.members.discard(CREATOR)
    parts.server.process_died(CREATOR)
    assert parts.loop.told(OTHER) == ["REMOVED"]
    assert parts.node.closed == [group(1).hex()], "who waits to run in it is told"
    assert parts.server.is_gone(group(1).hex())


def test_what_a_dead_process_has_announced_stays(parts):
    parts.hear(CREATOR, create(1))
    parts.node.wanted.add(group(1).hex())
    parts.node.members.discard(CREATOR)
    parts.server.process_died(CREATOR)
    assert parts.node.closed == []
    assert not parts.server.is_gone(group(1).hex())


def test_a_detached_actor_takes_its_groups_along_unless_they_are_detached_too(parts):
    parts.hear(OTHER, create(1, OTHER))
    parts.server.actor_died(b"detached")
    assert parts.loop.told(OTHER) == ["CREATED", "REMOVED"]
    parts.hear(OTHER, create(2, OTHER, detached=True))
    parts.server.actor_died(b"detached")
    assert parts.loop.told(OTHER) == ["CREATED"]


def test_groups_are_described_by_id_by_name_or_all(parts):
    parts.hear(CREATOR, create(1, name="g"))
    parts.hear(CREATOR, create(2))

    def described(group_id: bytes = b"", name: str = ""):
        parts.hear(OTHER, m.DescribeGroups(3, group_id, name, "ns"))
        (answer,) = [x for _, x in parts.loop.sent if isinstance(x, m.Answer)]
        parts.loop.sent.clear()
        return [(row[0], row[4], row[6]) for row in answer.value]

    first, second = (group(1), "CREATED", 0.0), (group(2), "PENDING", -1.0)
    assert described() == [first, second]
    assert described(group(2)) == [second]
    assert described(name="g") == [first]
    assert described(name="none") == []
    assert described(group(9)) == []
