"""Tables of states: legal moves, illegal ones with their history, diagrams from the table."""

from __future__ import annotations

import pytest

from shoal.core.lifecycle import InvalidTransition, Lifecycle

DOOR = Lifecycle(
    "door",
    start="OPEN",
    moves={
        ("OPEN", "shut"): "CLOSED",
        ("CLOSED", "pull"): "OPEN",
        ("CLOSED", "lock"): "LOCKED",
    },
)


def test_a_life_moves_as_its_table_says():
    door = DOOR.begin()
    assert door.state == "OPEN"
    assert door.on("shut") == "CLOSED"
    assert door.on("pull") == "OPEN"
    assert door.history == [("OPEN", "shut"), ("CLOSED", "pull")]


def test_an_illegal_move_raises_with_its_history_and_changes_nothing():
    door = DOOR.begin()
    door.on("shut")
    with pytest.raises(InvalidTransition) as caught:
        door.on("shut")
    assert str(caught.value) == ("door: 'shut' in state CLOSED; came by [('OPEN', 'shut')]; possible here: pull, lock")
    assert door.state == "CLOSED"
    assert door.history == [("OPEN", "shut")]


def test_a_final_state_says_that_it_is_one():
    door = DOOR.begin()
    door.on("shut")
    assert not door.is_over
    door.on("lock")
    assert door.is_over
    assert not door.can("pull")
    assert DOOR.final == {"LOCKED"}
    with pytest.raises(InvalidTransition, match="possible here: nothing, the state is final"):
        door.on("pull")


def test_lives_are_independent():
    first, second = DOOR.begin(), DOOR.begin()
    first.on("shut")
    assert (first.state, second.state) == ("CLOSED", "OPEN")
    assert repr(first) == "<door CLOSED>"


def test_a_long_life_remembers_only_its_last_moves():
    door = DOOR.begin()
    for _ in range(100):
        door.on("shut")
        door.on("pull")
    assert len(door.history) == 32


def test_a_state_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="lifecycle odd: LOST cannot be reached from A"):
        Lifecycle("odd", start="A", moves={("A", "go"): "B", ("LOST", "found"): "A"})


def test_the_diagrams_have_every_move():
    assert DOOR.describe().splitlines() == [
        "door: starts OPEN, ends LOCKED",
        "  OPEN   --shut--> CLOSED",
        "  CLOSED --pull--> OPEN",
        "  CLOSED --lock--> LOCKED",
    ]
    assert DOOR.mermaid().splitlines() == [
        "stateDiagram-v2",
        "    [*] --> OPEN",
        "    OPEN --> CLOSED: shut",
        "    CLOSED --> OPEN: pull",
        "    CLOSED --> LOCKED: lock",
        "    LOCKED --> [*]",
    ]
