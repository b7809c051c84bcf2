"""Actors' lives and names, without a process."""

from __future__ import annotations

from shoal.core.control.actors import ACTOR, ActorTable
from shoal.core.protocol.messages import CreateActor
from shoal.core.protocol.specs import Value

CREATOR, WORKER = b"c" * 12, b"w" * 12
FAILURE = Value(2, b"failure", [], [])


def spec(number: int, name: str = "", *, detached: bool = False, max_restarts: int = 0) -> CreateActor:
    return CreateActor(
        request=0,
        actor_id=number.to_bytes(16, "big"),
        class_key=b"k",
        class_name="Foo",
        methods={"m": (1, 0, False, "", -1)},
        name=name,
        namespace="ns",
        detached=detached,
        required={},
        placement={},
        max_restarts=max_restarts,
        max_concurrency=0,
        groups={},
        environment=b"",
        max_pending_calls=-1,
        arguments=(-1, b"", 0),
        arguments_object=b"",
        slots=[],
        captures=False,
        refused="",
        buffers=[],
    )


def test_an_actor_lives_from_creation_to_death():
    table = ActorTable()
    record = table.create(CREATOR, spec(1))
    assert record.state == "PENDING"
    assert table.created(record.actor_id, WORKER).state == "ALIVE"
    assert table.ended(record.actor_id, "died", FAILURE).failure == FAILURE
    assert table.ended(record.actor_id, "died", FAILURE) is None, "it dies once"


def test_a_name_belongs_to_one_actor_until_it_dies():
    table = ActorTable()
    first = table.create(CREATOR, spec(1, "name"))
    assert table.create(CREATOR, spec(2, "name")) is None
    assert table.find("name", "ns") is first
    assert table.find("name", "elsewhere") is None
    table.ended(first.actor_id, "died", FAILURE)
    assert table.find("name", "ns") is None
    assert table.create(CREATOR, spec(3, "name")) is not None


def test_a_reserved_name_is_completed_by_its_own_creation():
    table = ActorTable()
    reserved = table.create(CREATOR, spec(1, "name"))
    complete = spec(1, "name")
    assert table.create(CREATOR, complete) is reserved
    assert reserved.spec is complete


def test_the_death_of_a_creator_dooms_its_actors_but_not_detached_ones():
    table = ActorTable()
    mine, free, other = (
        table.create(CREATOR, spec(1)),
        table.create(CREATOR, spec(2, detached=True)),
        table.create(WORKER, spec(3)),
    )
    dead = table.create(CREATOR, spec(4))
    table.ended(dead.actor_id, "died", FAILURE)
    other.watchers.add(CREATOR)
    assert table.process_died(CREATOR) == [mine]
    assert other.watchers == {WORKER}
    assert table.get(dead.actor_id) is None, "nobody is left who could ask"
    assert free.state == "PENDING"


def test_the_table_of_states_is_the_one_in_the_documentation():
    assert ACTOR.final == {"DEAD"}
    assert set(ACTOR.states) == {"PENDING", "ALIVE", "RESTARTING", "DEAD"}


def test_a_lost_actor_restarts_as_often_as_it_may():
    table = ActorTable()
    record = table.create(CREATOR, spec(1, max_restarts=2))
    for restart in (1, 2):
        table.created(record.actor_id, WORKER)
        assert table.lost(record.actor_id, FAILURE) is record
        assert (record.state, record.restarts, record.worker_id) == ("RESTARTING", restart, b"")
    table.created(record.actor_id, WORKER)
    assert table.lost(record.actor_id, FAILURE) is None
    assert record.state == "ALIVE", "the caller decides how it ends"


def test_an_actor_that_was_ended_on_purpose_does_not_restart():
    table = ActorTable()
    record = table.create(CREATOR, spec(1, max_restarts=-1))
    table.created(record.actor_id, WORKER)
    record.verdict = "it was killed by kill()"
    assert table.lost(record.actor_id, FAILURE) is None


def test_a_dead_actor_keeps_nothing_of_what_it_was_made_of():
    table = ActorTable()
    made = spec(1)
    made.arguments, made.buffers = (0, b"x" * 90_000, 1), [b"y"]
    record = table.create(CREATOR, made)
    table.ended(record.actor_id, "died", FAILURE)
    assert "x" * 100 not in repr(record.spec)
    assert not record.spec.buffers
    assert not record.spec.methods


def test_what_arrives_of_an_actor_that_is_dead_already_is_not_kept():
    table = ActorTable()
    record = table.create(CREATOR, spec(1, "name"))
    table.ended(record.actor_id, "died", FAILURE)
    complete = spec(1, "name")
    complete.arguments = (0, b"x" * 90_000, 0)
    assert table.create(CREATOR, complete).state == "DEAD"
    assert "x" * 100 not in repr(record.spec)
