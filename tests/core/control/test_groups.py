"""The life of placement groups: against a naive model, and one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from shoal.core import ids
from shoal.core.control.groups import GROUP, GroupTable
from shoal.core.protocol.messages import CreateGroup

CREATOR, OTHER = ids.WorkerID(b"c" * 12), ids.WorkerID(b"o" * 12)


def spec(number: int, name: str = "", creator: ids.WorkerID = CREATOR, size: int = 1) -> CreateGroup:
    group_id = creator + number.to_bytes(6, "big")
    return CreateGroup(0, group_id, name, "ns", "PACK", [{"CPU": size}], detached=False)


def create(table: GroupTable, number: int, name: str = "", **others):
    return table.create(spec(number, name, **others), holder=b"", now_s=1.0)


def yes(_record):
    return True


def no(_record):
    return False


def test_a_group_lives_from_creation_to_removal():
    table = GroupTable()
    record = create(table, 1)
    assert record.state == "PENDING"
    assert table.settle(no, 2.0) == []
    assert table.settle(yes, 3.0) == [record]
    assert (record.state, record.attempts, record.reserved_s) == ("CREATED", 2, 3.0)
    assert table.settle(yes, 4.0) == [], "one that has its resources is not asked about again"
    assert table.removed(record.group_id) is record
    assert record.state == "REMOVED"
    assert table.removed(record.group_id) is None, "twice is once"


def test_every_state_has_a_way_to_its_end():
    assert GROUP.final == {"REMOVED"}
    assert all(GROUP.events(state) for state in GROUP.states if state not in GROUP.final)


def test_those_that_wait_are_tried_in_the_order_of_creation():
    table, tried = GroupTable(), []
    for number in (1, 2, 3):
        create(table, number)
    table.settle(lambda record: bool(tried.append(record.group_id)), 1.0)
    assert tried == [spec(number).group_id for number in (1, 2, 3)]


def test_a_later_one_that_fits_does_not_wait_for_an_earlier_one_that_does_not():
    table = GroupTable()
    create(table, 1, size=9)
    small = create(table, 2, size=1)
    assert table.settle(lambda record: record.spec.bundles[0]["CPU"] < 5, 1.0) == [small]


def test_a_name_belongs_to_one_group_until_it_is_removed():
    table = GroupTable()
    first = create(table, 1, "g")
    assert create(table, 2, "g") is None
    assert table.find("g", "ns") is first
    assert table.find("g", "elsewhere") is None
    table.removed(first.group_id)
    assert table.find("g", "ns") is None
    assert create(table, 3, "g") is not None


def test_what_is_not_announced_yet_is_told_from_what_is_forgotten():
    table = GroupTable()
    lives = {CREATOR}.__contains__
    assert not table.is_gone(spec(1).group_id, lives=lives), "it may still come"
    create(table, 1)
    assert not table.is_gone(spec(1).group_id, lives=lives)
    table.removed(spec(1).group_id)
    assert table.is_gone(spec(1).group_id, lives=lives)
    assert not table.is_gone(spec(2).group_id, lives=lives)
    assert table.is_gone(spec(1, creator=OTHER).group_id, lives=lives), "nobody is left to announce it"


def test_removed_groups_are_forgotten_after_a_while_but_stay_gone():
    table = GroupTable()
    for number in range(1, 1_102):
        create(table, number)
        table.removed(spec(number).group_id)
    assert table.get(spec(1).group_id) is None
    assert table.get(spec(1_101).group_id) is not None
    assert sum(1 for _ in table) == 1_000
    assert table.is_gone(spec(1).group_id, lives=lambda _: True)


def test_a_detached_actors_groups_end_with_it_and_all_others_stay():
    table = GroupTable()
    mine = table.create(spec(1), holder=b"actor", now_s=0.0)
    create(table, 2)
    assert table.held_by(b"actor") == [mine]
    table.removed(mine.group_id)
    assert table.held_by(b"actor") == []


def test_the_dead_watch_nothing():
    table = GroupTable()
    record = create(table, 1)
    record.watchers.add(OTHER)
    table.process_died(CREATOR)
    assert record.watchers == {OTHER}


moves = st.lists(st.tuples(st.sampled_from(["create", "name", "free", "remove"]), st.integers(0, 5)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(moves)
def test_any_interleaving_is_as_in_a_list_that_is_searched_anew(steps):
    """Model: a list of [number, name, size, state]; room for five, which CREATED ones use."""
    table, model, number = GroupTable(), [], 0

    def used() -> int:
        return sum(size for _, _, size, state in model if state == "CREATED")

    def reserve(record) -> bool:
        entry = next(e for e in model if spec(e[0]).group_id == record.group_id)
        if used() + entry[2] > 5:
            return False
        entry[3] = "CREATED"
        return True

    for kind, which in steps:
        if kind in ("create", "name"):
            number += 1
            name = f"n{which % 2}" if kind == "name" else ""
            taken = name and any(e[1] == name and e[3] != "REMOVED" for e in model)
            record = create(table, number, name, size=1 + which)
            assert (record is None) == bool(taken)
            if record is not None:
                model.append([number, name, 1 + which, "PENDING"])
        elif kind == "free":
            before = [e for e in model if e[3] == "PENDING"]
            created = table.settle(reserve, 1.0)
            assert [r.group_id for r in created] == [spec(e[0]).group_id for e in before if e[3] == "CREATED"]
            assert all(used() + e[2] > 5 for e in model if e[3] == "PENDING"), "none is left that fits"
        elif model:
            entry = model[which % len(model)]
            assert (table.removed(spec(entry[0]).group_id) is None) == (entry[3] == "REMOVED")
            entry[3] = "REMOVED"
        for entry in model:
            record = table.get(spec(entry[0]).group_id)
            assert record is not None
            assert record.state == entry[3]
            assert table.is_gone(record.group_id, lives=lambda _: True) == (entry[3] == "REMOVED")
        for name in ("n0", "n1"):
            living = [spec(e[0]).group_id for e in model if e[1] == name and e[3] != "REMOVED"]
            found = table.find(name, "ns")
            assert living == ([] if found is None else [found.group_id])


@pytest.mark.parametrize("number", [1, 2**40])
def test_an_id_says_who_made_it_and_as_which(number):
    assert ids.group_parts(spec(number).group_id) == (CREATOR, number)
