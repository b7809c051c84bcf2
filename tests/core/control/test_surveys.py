"""Questions to all processes at once: complete when everybody has answered, died, or had enough time."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from shoal.core.control.surveys import GatheringTable

ASKER, ONE, TWO = b"asker", b"one", b"two"


def test_a_question_is_complete_when_all_have_answered():
    table = GatheringTable()
    number = table.begin(ASKER, 7, "tasks", [{"of": "head"}], {ONE, TWO})
    table.answered(number, ONE, [{"a": 1}], is_all=True)
    assert table.complete() == []
    table.answered(number, TWO, [], is_all=False)
    (gathering,) = table.complete()
    assert gathering.answer().request == 7
    assert gathering.answer().value == ([{"of": "head"}], [(ONE, [{"a": 1}], True), (TWO, [], False)], [])
    assert table.expired(number) is None


def test_the_silent_are_named_when_the_time_is_up():
    table = GatheringTable()
    number = table.begin(ASKER, 1, "tasks", [], {ONE, TWO})
    table.answered(number, ONE, [], is_all=True)
    gathering = table.expired(number)
    assert gathering is not None
    assert gathering.answer().value[2] == [TWO]
    table.answered(number, TWO, [], is_all=True)  # too late: nobody minds
    assert table.complete() == []


def test_nobody_waits_for_the_dead():
    table = GatheringTable()
    table.begin(ASKER, 1, "tasks", [], {ONE})
    table.process_died(ONE)
    (gathering,) = table.complete()
    assert gathering.answer().value == ([], [], [])


def test_what_a_dead_process_has_asked_is_dropped():
    table = GatheringTable()
    number = table.begin(ASKER, 1, "tasks", [], {ONE, ASKER})
    table.process_died(ASKER)
    assert table.complete() == []
    assert table.expired(number) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("adx"), st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_every_question_ends_exactly_once_and_no_answer_is_lost(events):
    members = {bytes([n]) for n in range(4)}
    table = GatheringTable()
    numbers = [table.begin(ASKER, n, "tasks", [], members) for n in range(4)]
    told: dict[int, set[bytes]] = {n: set() for n in numbers}
    dead: set[bytes] = set()
    over: dict[int, object] = {}
    for kind, which, process in events:
        number, member = numbers[which], bytes([process])
        if kind == "a" and member not in dead:
            table.answered(number, member, [{}], is_all=True)
            if number not in over:
                told[number].add(member)
        elif kind == "d":
            dead.add(member)
            table.process_died(member)
        elif kind == "x":
            gathering = table.expired(number)
            assert (gathering is None) == (number in over)
            if gathering is not None:
                over[number] = gathering
        for gathering in table.complete():
            number = numbers[gathering.request]
            assert number not in over
            over[number] = gathering
    for number in numbers:
        if number in over:
            assert {process for process, _, _ in over[number].answers} == told[number]
        else:
            assert members - dead - told[number]
