"""Who still reads what the dead owned: the table alone, and with processes that behave as ours do, in any order."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings, strategies as st

from shoal.core.node.orphans import OrphanTable

D, P, Q, R = (letter * 12 for letter in (b"d", b"p", b"q", b"r"))


def obj(owner, number=1):
    return owner + bytes([number]) * 16


def place(object_id):
    return (object_id[0] * 10 + object_id[-1], 1, 10, (), False)


def table(*living):
    alive = set(living)
    return OrphanTable(lambda process: process in alive)


def test_what_nobody_reads_is_swept_when_all_have_answered():
    orphans = table(P, Q)
    orphans.died(D, [P, Q])
    orphans.answered(D, P, [])
    assert orphans.settle() == ([], [])
    orphans.answered(D, Q, [(obj(D), place(obj(D)))])
    assert orphans.settle() == ([D], [])
    assert orphans.kept() == {place(obj(D))[0]}
    assert orphans.release(Q, obj(D)) == place(obj(D))
    assert len(orphans) == 0


def test_who_dies_unheard_is_waited_for_until_its_receivers_have_answered():
    orphans = table(P)
    orphans.died(D, [P, Q])
    orphans.answered(D, P, [])
    orphans.died(Q, [P])
    assert orphans.settle() == ([], []), "P may read what Q has passed to it"
    orphans.hold(P, obj(D), place(obj(D)))
    orphans.answered(Q, P, [])
    assert orphans.settle() == ([Q, D], [])
    assert orphans.kept()


def test_the_dead_need_not_answer_and_read_nothing():
    orphans = table(P)
    orphans.died(D, [P, Q])
    orphans.answered(D, Q, [(obj(D), place(obj(D)))])
    orphans.died(Q, [P])
    assert orphans.settle() == ([], [])
    orphans.answered(D, P, [])
    assert orphans.settle() == ([D], []), "one to whom Q has passed it may be about to tell"
    orphans.answered(Q, P, [])
    assert orphans.settle() == ([Q], [place(obj(D))])


def test_who_has_got_it_from_a_dead_reader_keeps_it():
    orphans = table(P)
    orphans.died(D, [P, Q])
    orphans.answered(D, P, [])
    orphans.answered(D, Q, [(obj(D), place(obj(D)))])
    assert orphans.settle()[0] == [D]
    orphans.died(Q, [P])
    orphans.hold(P, obj(D), place(obj(D)))
    orphans.answered(Q, P, [])
    assert orphans.settle() == ([Q], [])
    assert orphans.release(P, obj(D)) == place(obj(D))


def test_what_is_released_while_its_owner_is_gathered_goes_with_the_rest():
    orphans = table(P, Q)
    orphans.died(D, [P, Q])
    orphans.answered(D, P, [(obj(D), place(obj(D)))])
    assert orphans.release(P, obj(D)) is None
    orphans.answered(D, Q, [])
    assert orphans.settle() == ([D], [place(obj(D))])


def test_what_belongs_to_the_living_is_never_freed():
    orphans = table(D, P)
    orphans.hold(P, obj(D), place(obj(D)))  # P has found D gone before it was announced
    assert orphans.release(P, obj(D)) is None


class Member:
    """A process as far as places go: what it reads, what it was given and by whom, as holdings.py does it."""

    def __init__(self, name):
        self.name = name
        self.reads = {}  # object -> how often
        self.told = set()
        self.dead_owners = set()
        self.waiting = []  # (object, guard) tasks that are done once the head has confirmed
        self.unconfirmed = set()


class World:
    """Members, the head, and ordered links between each two of them."""

    def __init__(self, names):
        self.members = {name: Member(name) for name in names}
        self.alive = set(names)
        self.announced = set(names)
        self.links = {}
        self.orphans = OrphanTable(lambda process: process in self.announced)
        self.memory = set()
        self.owners_settled = set()

    def send(self, source, target, *message):
        self.links.setdefault((source, target), deque()).append(message)

    def readers(self, object_id):
        return [name for name in self.alive if self.members[name].reads.get(object_id)]

    # events

    def make(self, owner, reader, number):
        """`reader` gets the place of an object from its living owner."""
        if {owner, reader} <= self.alive and owner != reader and owner not in self.members[reader].dead_owners:
            object_id = obj(owner, number)
            if object_id in self.memory or not any(object_id in m.reads for m in self.members.values()):
                self.memory.add(object_id)
                self.read(reader, object_id)

    def read(self, name, object_id):
        member = self.members[name]
        member.reads[object_id] = member.reads.get(object_id, 0) + 1

    def passes(self, giver, receiver, which):
        """`giver` sends what it reads as an argument, and reads it until the answer."""
        if not {giver, receiver} <= self.alive or giver == receiver:
            return
        held = [object_id for object_id in sorted(self.members[giver].reads) if object_id[:12] != receiver]
        if held:
            object_id = held[which % len(held)]
            self.read(giver, object_id)
            self.send(giver, receiver, "task", object_id)

    def drop(self, name, which):
        member = self.members[name]
        if name in self.alive and member.reads:
            self.let_go(member, sorted(member.reads)[which % len(member.reads)])

    def let_go(self, member, object_id):
        member.reads[object_id] -= 1
        if not member.reads[object_id]:
            del member.reads[object_id]
            member.unconfirmed.discard(object_id)
            if object_id in member.told:
                member.told.remove(object_id)
                self.send(member.name, "head", "release", object_id)

    def kill(self, name):
        if name in self.alive and len(self.alive) > 1:
            self.alive.remove(name)
            self.members[name].reads.clear()
            self.send("zygote", "head", "reaped", name)

    def deliver(self, source, target):
        link = self.links.get((source, target))
        if not link:
            return
        message = link.popleft()
        if target == "head":
            self.at_head(source, *message)
        elif target in self.alive:
            self.at_member(self.members[target], source, *message)

    def at_head(self, source, kind, *parts):
        if kind == "reaped":
            (name,) = parts
            for link in [link for link in self.links if link[0] == name]:
                if link[1] == "head":
                    self.links[link].clear()
            self.announced.discard(name)
            self.orphans.died(name, self.announced)
            for member in self.announced:
                self.send("head", member, "died", name)
        elif source not in self.announced:
            return
        elif kind == "held":
            self.orphans.answered(parts[0], source, parts[1])
        elif kind == "hold":
            self.orphans.hold(source, parts[0], place(parts[0]))
            self.send("head", source, "confirmed", parts[0])
        elif kind == "release":
            freed = self.orphans.release(source, parts[0])
            if freed is not None:
                self.free([parts[0]])
        settled, freed = self.orphans.settle()
        self.free([object_id for object_id in self.memory if place(object_id) in freed])
        if settled:
            kept = self.orphans.kept()
            nobodys = [
                object_id
                for object_id in self.memory
                if object_id[:12] not in self.announced and not self.orphans.is_gathering(object_id[:12])
            ]
            self.free([object_id for object_id in nobodys if place(object_id)[0] not in kept])

    def at_member(self, member, source, kind, *parts):
        (subject,) = parts
        if kind == "task":
            if source in member.dead_owners:
                return  # the guard is dead: the arguments cannot be had
            self.read(member.name, subject)
            if subject[:12] in member.dead_owners and subject not in member.told:
                member.unconfirmed.add(subject)
            self.finish(member, subject, source)
        elif kind == "died":
            member.dead_owners.add(subject)
            for object_id in sorted(member.unconfirmed - member.told):
                self.hold(member, object_id)
            held = [o for o in member.reads if o[:12] == subject and o not in member.told]
            member.told.update(held)
            self.send(member.name, "head", "held", subject, [(object_id, place(object_id)) for object_id in held])
        elif kind == "confirmed":
            member.unconfirmed.discard(subject)
            waiting, member.waiting = member.waiting, []
            for object_id, guard in waiting:
                self.finish(member, object_id, guard)
        elif kind == "done" and subject in member.reads:
            self.let_go(member, subject)

    def hold(self, member, object_id):
        member.told.add(object_id)
        self.send(member.name, "head", "hold", object_id)

    def finish(self, member, object_id, guard):
        """The task is over, and its process goes on reading: who gave it may let go once the head knows."""
        if object_id in member.unconfirmed:
            if object_id not in member.told:
                self.hold(member, object_id)
            member.waiting.append((object_id, guard))
        else:
            self.send(member.name, guard, "done", object_id)

    def free(self, objects):
        for object_id in list(objects):
            assert not self.readers(object_id), f"{object_id!r} is freed under {self.readers(object_id)}"
            self.memory.discard(object_id)

    def settle_down(self):
        while any(self.links.values()):
            for source, target in list(self.links):
                self.deliver(source, target)


NAMES = (D, P, Q, R)
KINDS = {"make": 3, "passes": 8, "drop": 6, "kill": 1, "deliver": 30}


def happenings(chance, count):
    """A random life of the world: calls of its methods with their arguments."""
    for kind in chance.choices([*KINDS], [*KINDS.values()], k=count):
        first, second, number = chance.choice(NAMES), chance.choice(NAMES), chance.randrange(4)
        if kind == "make":
            yield kind, first, second, number % 2 + 1
        elif kind == "passes":
            yield kind, first, second, number
        elif kind == "drop":
            yield kind, first, number
        elif kind == "kill":
            yield kind, first
        else:
            yield kind, chance.choice((*NAMES, "head", "zygote")), chance.choice((*NAMES, "head", "head"))


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_nothing_is_freed_under_a_reader_and_nothing_is_left_without_one(chance, count):
    world = World(NAMES)
    for name, *arguments in happenings(chance, count):
        getattr(world, name)(*arguments)
    world.settle_down()
    for object_id in world.memory:
        if object_id[:12] not in world.alive:
            assert world.readers(object_id), "memory of a dead owner that nobody reads"
    for name in world.alive:
        for object_id in list(world.members[name].reads):
            while object_id in world.members[name].reads:
                world.let_go(world.members[name], object_id)
    world.settle_down()
    assert [object_id for object_id in world.memory if object_id[:12] not in world.alive] == []
