"""What the dead have made and not told of: the head's side and the owners': real memory, any order of events."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings, strategies as st

from shoal.core.node.estate import blocks_in, left_to_the_living
from shoal.core.node.inheritance import Inheritance
from shoal.core.protocol import messages as m
from shoal.core.protocol.specs import Value
from shoal.core.runtime.objects import ObjectTable
from shoal.core.runtime.untold import Untold
from shoal.core.store.allocator import FREE, HEADER_BYTES, LIVE, Place, Slab, check_live, mark_freed
from shoal.core.store.regions import UNIT_BYTES, Region, RegionTable

A, B, W = (letter * 12 for letter in (b"a", b"b", b"w"))
REGIONS = 6
SMALL_BYTES = 200_000  #: five of them fill a slab


def test_only_what_a_settled_process_has_left_to_the_living_is_named():
    memory = memoryview(bytearray(4 * UNIT_BYTES))
    slabs = [Slab.create(memory[base : base + UNIT_BYTES]) for base in range(0, 3 * UNIT_BYTES, UNIT_BYTES)]
    live = [slabs[0].allocate(100, owner) for owner in (A, A, B, W)]
    for place in live:
        slabs[0].seal(place)
    slabs[0].allocate(100, A)  # still WRITING
    slabs[0].free(live[1])
    large = slabs[1].allocate(UNIT_BYTES - HEADER_BYTES, A)
    slabs[1].seal(large)
    unsettled = slabs[2].allocate(100, A)
    slabs[2].seal(unsettled)
    regions = [Region(base * UNIT_BYTES, UNIT_BYTES, b"", former) for base, former in enumerate((W, W, B, W))]
    held = [Region(region.offset, region.size, W) for region in regions]
    assert list(left_to_the_living({W}, regions, memory, {A, B})) == [
        (W, A, [(live[0].offset, live[0].serial, False)]),
        (W, B, [(live[2].offset, live[2].serial, False)]),
        (W, A, [(UNIT_BYTES + large.offset, large.serial, True)]),
    ]
    assert list(left_to_the_living({W}, regions, memory, {W})) == [(W, W, [(live[3].offset, live[3].serial, False)])]
    assert list(left_to_the_living({W, B}, held, memory, {A, B})) == []


def test_a_fresh_slab_is_no_large_object():
    memory = memoryview(bytearray(UNIT_BYTES))
    assert blocks_in(memory) == []
    Slab.create(memory)
    assert [(block.state, is_whole) for block, is_whole in blocks_in(memory)] == [(FREE, True)]


def test_places_in_the_table_are_known_and_others_are_not():
    objects = ObjectTable()
    objects.expect(b"told", Value(0, (640, 7, 10, (), False), [], []))
    objects.expect(b"inline", Value(0, b"640", [], []))
    objects.expect(b"pending")
    assert objects.unknown([(640, 7, False), (640, 8, False), (704, 7, True)]) == [(640, 8, False), (704, 7, True)]


class Wire:
    """A loop as the tables know it: handlers by type, and messages that go into the world's links."""

    def __init__(self, me, send):
        self.handlers = {}
        self.on = self.handlers.__setitem__
        self.send = lambda peer, message: send(me, peer, message)


class Member:
    """A process: makes objects for others in its slab, owns some, reads some of others'. Also its own store client."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.slabs = {}  # offset -> Slab
        self.posts = deque()
        self.untold = deque()  # (owner, object, place): sealed, and nobody knows
        self.objects = ObjectTable()
        self.refs = {}  # own object -> readers, this process among them
        self.reads = {}  # others' object -> place
        self.inherited = set()  # those of them that the head knows of
        self.buried = set()
        self.wire = Wire(name, world.send)
        self.wire.post = lambda function, argument: self.posts.append((function, argument))
        Untold(self.wire, self.objects, self)

    # a store client

    def free_if_live(self, location):
        try:
            self.free(location)
        except ValueError:
            return False
        return True

    def free(self, location):
        offset, serial, _, _, is_large = location
        block = check_live(self.world.memory, offset, serial)
        assert block.owner == self.name, "a stranger frees it"
        self.world.check_unread(offset, serial)
        base = offset // UNIT_BYTES * UNIT_BYTES
        if is_large or base not in self.slabs:
            mark_freed(self.world.memory, offset, serial)
        else:
            self.slabs[base].free(Place(offset - base, serial))
        if is_large:
            self.world.send(self.name, "head", m.ReleaseRegion(offset - HEADER_BYTES))

    def seal(self, owner, object_id, size):
        """Make an object for somebody; no room, no object."""
        memory, regions = self.world.memory, self.world.regions
        is_large = size > SMALL_BYTES
        found = None
        for base, slab in self.slabs.items():
            place = None if is_large else slab.allocate(size, owner, thorough=True)
            found = found or (place and (base, slab, place))
        if found is None:
            base = regions.allocate(UNIT_BYTES, self.name)
            if base is None and self.world.drain():
                base = regions.allocate(UNIT_BYTES, self.name)
            if base is None:
                return
            self.world.serial += 1000
            slab = Slab.create(memory[base : base + UNIT_BYTES], first_serial=self.world.serial)
            found = base, slab, slab.allocate(size, owner)
            if not is_large:
                self.slabs[base] = slab
        base, slab, place = found
        offset = base + place.offset
        memory[offset : offset + 28] = object_id
        slab.seal(place)
        self.untold.append((owner, object_id, (offset, place.serial, size, (), is_large)))

    # as an owner

    def told(self, object_id, place):
        self.world.check(object_id, place)
        self.objects.expect(object_id, Value(0, place, [], []))
        self.refs[object_id] = {self.name}

    def let_go(self, object_id, reader):
        readers = self.refs.get(object_id, set())
        if reader in readers:
            readers.remove(reader)
            if not readers:
                del self.refs[object_id]
                self.free(self.objects.forget(object_id).payload)

    # as a reader

    def drop(self, object_id):
        self.reads.pop(object_id)
        if object_id in self.inherited:
            self.inherited.remove(object_id)
            self.world.send(self.name, "head", m.ReleaseOrphan(object_id))
        else:
            self.world.send(self.name, object_id[:12], ("returned", object_id))

    def bury(self, dead):
        for message in self.world.hear_out(dead, self.name):
            self.hear(dead, message)
        self.buried.add(dead)
        for object_id in list(self.refs):
            self.let_go(object_id, dead)
        held = [(object_id, place) for object_id, place in self.reads.items() if object_id[:12] == dead]
        self.inherited.update(object_id for object_id, _ in held)
        self.world.send(self.name, "head", m.OrphansHeld(dead, held))

    def hear(self, source, message):
        if source in self.buried:
            return
        if isinstance(message, m.BlocksLeft):
            assert message.process in self.buried
            self.wire.handlers[m.BlocksLeft](source, message)
        elif isinstance(message, m.OwnerGone):
            for base, slab in self.slabs.items():
                kept = {offset - base for offset in message.kept}
                for block in slab.blocks():
                    if block.state == LIVE and block.owner == message.process:
                        payload = block.offset + HEADER_BYTES
                        assert payload in kept or self.world.check_unread(base + payload, block.serial) is None
                slab.free_all_of(message.process, kept=kept)
        elif message[0] == "died":
            self.bury(message[1])
        elif message[0] == "done":
            self.told(*message[1:])
        elif message[0] == "lent":
            self.world.check(*message[1:])
            self.reads[message[1]] = message[2]
        elif message[0] == "returned":
            self.let_go(message[1], source)


class World:
    """Members, the head, ordered links between each two. `hears` : the dead are heard out; else all is dropped."""

    def __init__(self, *, hears):
        self.hears = hears
        self.memory = memoryview(bytearray(REGIONS * UNIT_BYTES))
        self.regions = RegionTable(REGIONS * UNIT_BYTES)
        self.links = {}
        self.serial = 0
        self.made = 0
        self.announced = set()
        self.alive = {}
        self.wire = Wire("head", self.send)
        self.inheritance = Inheritance(
            self.wire,
            self.regions,
            self.memory,
            members=lambda: self.announced,
            release_region=self.regions.release,
            drain=self.drain,
        )
        for _ in range(4):
            self.join()

    def join(self):
        self.made += 1
        name = bytes([self.made]) * 12
        self.alive[name] = Member(self, name)
        self.announced.add(name)

    def member(self, number):
        return self.alive[sorted(self.alive)[number % len(self.alive)]]

    # ---- truth

    def check(self, object_id, place):
        """It lies where it was put, whole."""
        check_live(self.memory, *place[:2])
        assert bytes(self.memory[place[0] : place[0] + 28]) == object_id

    def check_all(self):
        for member in self.alive.values():
            for object_id in member.refs:
                self.check(object_id, member.objects.value(object_id).payload)
            for object_id, place in member.reads.items():
                self.check(object_id, place)

    def check_unread(self, offset, serial):
        for member in self.alive.values():
            assert (offset, serial) not in [place[:2] for place in member.reads.values()], "freed under a reader"
            assert [(offset, serial, False)] == member.objects.unknown([(offset, serial, False)]), "freed, and known"

    def drain(self):
        found = []
        for region in self.regions.regions():
            if not region.holder:
                try:
                    empty = Slab.open(self.memory[region.offset : region.offset + region.size]).is_empty
                except ValueError:
                    empty = True
                if empty:
                    self.regions.release(region.offset)
                    found.append(region)
        return bool(found)

    # ---- links

    def send(self, source, target, message):
        if target == "head" or target in self.alive:
            self.links.setdefault((source, target), deque()).append(message)

    def hear_out(self, dead, target):
        link = self.links.pop((dead, target), deque())
        return link if self.hears else ()

    def deliver(self, number):
        ready = sorted(
            (str(source), str(target), source, target) for (source, target), link in self.links.items() if link
        )
        if not ready:
            return
        *_, source, target = ready[number % len(ready)]
        message = self.links[source, target].popleft()
        if target != "head":
            if target in self.alive:
                self.alive[target].hear(source, message)
        elif source == "zygote":
            self.reaped(message)
        else:
            self.at_head(source, message)

    def at_head(self, source, message):
        if source in self.announced:
            if isinstance(message, m.ReleaseRegion):
                self.regions.release(message.offset)
            else:
                self.wire.handlers[type(message)](source, message)

    def reaped(self, name):
        for message in self.hear_out(name, "head"):
            self.at_head(name, message)
        self.announced.discard(name)
        self.regions.holder_died(name)
        self.inheritance.process_died(name)
        self.drain()
        for member in sorted(self.announced):
            self.send("head", member, ("died", name))

    # ---- events

    def seal(self, maker, owner, size):
        maker, owner = self.member(maker), self.member(owner)
        if maker is not owner and owner.name not in maker.buried:
            self.made += 1
            object_id = owner.name + self.made.to_bytes(16, "little")
            maker.seal(owner.name, object_id, UNIT_BYTES - HEADER_BYTES if size == 0 else SMALL_BYTES)

    def tell(self, maker):
        maker = self.member(maker)
        if maker.untold:
            owner, object_id, place = maker.untold.popleft()
            if owner not in maker.buried:
                self.send(maker.name, owner, ("done", object_id, place))

    def lend(self, owner, borrower, which):
        owner, borrower = self.member(owner), self.member(borrower)
        if owner is borrower or not owner.refs or borrower.name in owner.buried:
            return
        object_id = sorted(owner.refs)[which % len(owner.refs)]
        if borrower.name not in owner.refs[object_id] and object_id not in borrower.reads:
            owner.refs[object_id].add(borrower.name)
            self.send(owner.name, borrower.name, ("lent", object_id, owner.objects.value(object_id).payload))

    def release(self, owner, which):
        owner = self.member(owner)
        if owner.refs:
            owner.let_go(sorted(owner.refs)[which % len(owner.refs)], owner.name)

    def give_back(self, reader, which):
        reader = self.member(reader)
        if reader.reads:
            reader.drop(sorted(reader.reads)[which % len(reader.reads)])

    def kill(self, number):
        if len(self.alive) > 2:
            name = self.member(number).name
            del self.alive[name]
            self.send("zygote", "head", name)
            if self.made % 2:
                self.join()

    def tick(self, number):
        posts = self.member(number).posts
        while posts:
            function, argument = posts.popleft()
            function(argument)

    def settle_down(self):
        while any(self.links.values()) or any(member.posts for member in self.alive.values()):
            self.deliver(0)
            for number in range(len(self.alive)):
                self.tick(number)

    def unknown_blocks(self):
        """LIVE blocks in the memory of the dead that no living process knows of."""
        orphans = [region for region in self.regions.regions() if not region.holder]
        known = [member.objects.value(o).payload[:2] for member in self.alive.values() for o in member.refs]
        known += [place[:2] for member in self.alive.values() for place in member.reads.values()]
        return [
            block
            for region in orphans
            for block, _ in blocks_in(self.memory[region.offset : region.offset + region.size])
            if block.state == LIVE and (region.offset + block.offset + HEADER_BYTES, block.serial) not in known
        ]


def test_a_large_object_whose_owner_dies_before_its_region_is_back_is_given_back_with_its_maker():
    world = World(hears=False)
    world.seal(0, 1, 0)
    world.tell(0)
    world.settle_down()
    world.release(1, 0)  # ReleaseRegion is on its way, and is dropped
    world.kill(1)
    world.links.pop((b"\2" * 12, "head"))
    world.settle_down()
    assert len(world.regions.regions()) == 1, "its maker holds it"
    world.kill(0)
    world.settle_down()
    assert world.regions.regions() == []


ARGUMENTS = {"seal": 3, "tell": 1, "lend": 3, "release": 2, "give_back": 2, "kill": 1, "deliver": 1, "tick": 1}
WEIGHTS = {"seal": 8, "tell": 8, "lend": 5, "release": 4, "give_back": 3, "kill": 2, "deliver": 16, "tick": 3}


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 200), st.booleans())
def test_whatever_is_read_stays_and_what_nobody_was_told_of_comes_back(chance, count, hears):
    world = World(hears=hears)
    for name in chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=count):
        getattr(world, name)(*(chance.randrange(8) for _ in range(ARGUMENTS[name])))
        world.check_all()
    world.settle_down()
    world.check_all()
    assert world.unknown_blocks() == []
    for member in list(world.alive.values()):
        for object_id in list(member.reads):
            member.drop(object_id)
        for object_id in list(member.refs):
            member.let_go(object_id, member.name)
    world.settle_down()
    world.drain()
    assert [region for region in world.regions.regions() if not region.holder] == []
