"""The reference table against a naive model, and several tables against each other under random delivery."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from itertools import pairwise

import pytest

from shoal.core.runtime.references import ReferenceTable

ME = b"m" * 12


class Naive:
    """What must be alive, worked out from scratch: an object with a count of its own, or inside a live one."""

    def __init__(self) -> None:
        self.counts = defaultdict(int)
        self.contains = defaultdict(list)
        self.known = set()

    def alive(self) -> set[bytes]:
        live = {object_id for object_id in self.known if self.counts[object_id] > 0}
        frontier = list(live)
        while frontier:
            for inner in self.contains[frontier.pop()]:
                if inner not in live:
                    live.add(inner)
                    frontier.append(inner)
        return live


@pytest.mark.parametrize("seed", range(30))
def test_own_objects_live_exactly_as_long_as_the_naive_model_says(seed):
    rng = random.Random(seed)
    freed: list[bytes] = []
    table = ReferenceTable(ME, on_free=freed.append, on_drop=lambda *_: pytest.fail("nothing is borrowed here"))
    model = Naive()
    held: list[tuple[bytes, str, bytes]] = []
    for step in range(400):
        living = sorted(model.alive())
        action = rng.choice(["create", "ref", "use", "borrow", "drop", "drop", "drop", "drop", "drop", "nest"])
        if action == "create" or not living:
            object_id = step.to_bytes(28, "big")
            table.created(object_id)
            model.known.add(object_id)
            model.counts[object_id] += 1
            held.append((object_id, "ref", b""))
        elif action == "nest":
            outer = rng.choice(living)
            older = [inner for inner in living if inner < outer]  # a value can hold only refs that existed before it
            if older:
                inner = rng.choice(older)
                table.contain(outer, [(inner, ME)], credit=False)
                model.contains[outer].append(inner)
        elif action == "drop":
            if held:
                object_id, kind, borrower = held.pop(rng.randrange(len(held)))
                model.counts[object_id] -= 1
                if kind == "ref":
                    table.released(object_id)
                elif kind == "use":
                    table.unuse(object_id)
                else:
                    table.borrowed(object_id, borrower, -1)
        else:
            object_id = rng.choice(living)
            model.counts[object_id] += 1
            borrower = rng.choice([b"x" * 12, b"y" * 12])
            held.append((object_id, action, borrower))
            if action == "ref":
                table.received(object_id, ME)
                # Many at once, too; and one object may be among them more than once.
                together = rng.choices(living, k=rng.randrange(4))
                table.received_all(together, ME)
                held += [(other, "ref", b"") for other in together]
                for other in together:
                    model.counts[other] += 1
            elif action == "use":
                table.use(object_id, ME)
            else:
                table.borrowed(object_id, borrower)
        assert {object_id for object_id, _ in table} == model.alive()
        assert set(freed) == model.known - model.alive()
    assert len(freed) == len(set(freed)), "freed once each"


def test_a_borrower_returns_as_many_borrows_as_it_was_credited_with():
    dropped = []
    table = ReferenceTable(ME, on_free=lambda _: None, on_drop=lambda *entry: dropped.append(entry))
    borrowed, owner = b"b" * 28, b"o" * 12
    table.received(borrowed, owner)
    assert table.unregistered() == [(borrowed, owner)]
    table.registered(borrowed)
    assert table.unregistered() == []
    table.created(b"x" * 28)
    table.contain(b"x" * 28, [(borrowed, owner)], credit=True)
    table.released(borrowed)
    assert dropped == []
    table.released(b"x" * 28)
    assert dropped == [(borrowed, owner, 2)]


def test_a_borrow_that_is_returned_before_it_is_announced_leaves_nothing_behind():
    freed = []
    table = ReferenceTable(ME, on_free=freed.append, on_drop=lambda *_: None)
    table.created(b"a" * 28)
    table.borrowed(b"a" * 28, b"w" * 12, -1)
    table.released(b"a" * 28)
    assert freed == [], "somebody's borrow is still on its way"
    table.borrowed(b"a" * 28, b"w" * 12, 1)
    assert freed == [b"a" * 28]


def test_the_death_of_a_borrower_frees_what_only_it_held():
    freed = []
    table = ReferenceTable(ME, on_free=freed.append, on_drop=lambda *_: None)
    table.created(b"a" * 28)
    table.borrowed(b"a" * 28, b"w" * 12, 3)
    table.released(b"a" * 28)
    assert freed == []
    table.process_died(b"w" * 12)
    assert freed == [b"a" * 28]


def test_a_long_chain_of_nested_objects_is_freed_without_recursion():
    freed = []
    table = ReferenceTable(ME, on_free=freed.append, on_drop=lambda *_: None)
    names = [i.to_bytes(28, "big") for i in range(20_000)]
    for inner, outer in pairwise(names):
        table.created(outer)
        if inner == names[0]:
            table.created(inner)
        table.contain(outer, [(inner, ME)], credit=False)
        table.released(inner)
    table.released(names[-1])
    assert len(freed) == len(names)


@pytest.mark.parametrize("seed", range(40))
def test_an_object_outlives_every_process_that_holds_it_and_no_longer(seed):
    """Three processes hand refs around by tasks, over links that keep their order but not each other's."""
    rng = random.Random(seed)
    world = World(rng)
    for _ in range(300):
        world.step()
    world.finish()


class World:
    """Processes with a table each, and the messages of `Holdings` between them: task with refs, its reply, AddBorrow,
    RemoveBorrow.
    """

    PROCESSES = (b"A" * 12, b"B" * 12, b"C" * 12)

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.links = {(a, b): deque() for a in self.PROCESSES for b in self.PROCESSES if a != b}
        self.tables = {
            p: ReferenceTable(p, on_free=self.freed, on_drop=lambda *e, p=p: self.drop(p, *e)) for p in self.PROCESSES
        }
        self.refs = {p: [] for p in self.PROCESSES}  # Python refs: (object, owner)
        self.alive = set()
        self.serial = 0
        self.replies_waiting = {}

    def freed(self, object_id: bytes) -> None:
        holders = [p for p in self.PROCESSES for ref, _ in self.refs[p] if ref == object_id]
        assert not holders, f"freed while {holders} hold it"
        self.alive.discard(object_id)

    def drop(self, process: bytes, object_id: bytes, owner: bytes, credit: int) -> None:
        if credit:
            self.links[process, owner].append(("remove", object_id, process, credit))

    def step(self) -> None:
        choice = self.rng.random()
        process = self.rng.choice(self.PROCESSES)
        if choice < 0.1:
            self.serial += 1
            object_id = self.serial.to_bytes(28, "big")
            self.tables[process].created(object_id)
            self.refs[process].append((object_id, process))
            self.alive.add(object_id)
        elif choice < 0.3 and self.refs[process]:
            ref = self.rng.choice(self.refs[process])
            target = self.rng.choice([p for p in self.PROCESSES if p != process])
            self.tables[process].use(*ref)
            self.links[process, target].append(("task", *ref, process))
        elif choice < 0.5 and self.refs[process]:
            object_id, _ = self.refs[process].pop(self.rng.randrange(len(self.refs[process])))
            self.tables[process].released(object_id)
        else:
            self.deliver()

    def deliver(self) -> bool:
        busy = [link for link, messages in self.links.items() if messages]
        if not busy:
            return False
        sender, receiver = self.rng.choice(busy)
        kind, object_id, *rest = self.links[sender, receiver].popleft()
        table = self.tables[receiver]
        if kind == "task":
            owner, submitter = rest
            copies = self.rng.randrange(1, 4)
            if copies == 1:
                table.received(object_id, owner)
            else:
                table.received_all([object_id] * copies, owner)
            for _ in range(copies):
                if self.rng.random() < 0.5:
                    self.refs[receiver].append((object_id, owner))  # the task keeps it
                else:
                    table.released(object_id)
            self.reply(receiver, submitter, object_id)
        elif kind == "reply":
            (borrows,) = rest
            for borrow in borrows:
                assert table.borrowed(borrow, sender)
            table.unuse(object_id)
        elif kind == "add":
            (borrower,) = rest
            assert table.borrowed(object_id, borrower), "asked to guard what is gone"
            self.links[receiver, sender].append(("added", object_id))
        elif kind == "added":
            key = (receiver, object_id)
            self.replies_waiting[key].pop(0)()
        elif kind == "remove":
            borrower, count = rest
            table.borrowed(object_id, borrower, -count)
        return True

    def reply(self, executor: bytes, submitter: bytes, argument: bytes) -> None:
        table = self.tables[executor]
        mine, others = [], []
        for object_id, owner in table.unregistered():
            table.registered(object_id)
            (mine if owner == submitter else others).append((object_id, owner))
        left = len(others)

        def send() -> None:
            self.links[executor, submitter].append(("reply", argument, [object_id for object_id, _ in mine]))

        def confirmed() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                send()

        for object_id, owner in others:
            self.replies_waiting.setdefault((executor, object_id), []).append(confirmed)
            self.links[executor, owner].append(("add", object_id, executor))
        if not others:
            send()

    def finish(self) -> None:
        while self.deliver():
            pass
        for process in self.PROCESSES:
            while self.refs[process]:
                object_id, _ = self.refs[process].pop()
                self.tables[process].released(object_id)
        while self.deliver():
            pass
        assert not self.alive, "objects that nobody holds are freed"
        assert all(len(table) == 0 for table in self.tables.values())
