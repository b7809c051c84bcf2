"""The schedule of the inline engine, without running anything."""

from __future__ import annotations

import random
from collections import deque

import pytest

from shoal.core import ids
from shoal.core.engines.inline.work import Actor, Schedule, Work
from shoal.core.lifecycle import InvalidTransition
from shoal.core.options import ActorOptions
from shoal.core.resources import ResourceSet

ME = ids.new_worker_id()
IDS = ids.IdSource(ME, ids.JobID(b"\1\0\0\0"))


def work(actor: Actor | None = None, method: str = "", *, cpus: int = 0, missing: int = 0, retries: int = 0) -> Work:
    return Work(
        IDS.task(),
        method or "work",
        ME,
        None,
        None,
        [],
        [],
        [],
        demand=ResourceSet({"CPU": cpus}),
        retries=retries,
        actor=actor,
        method=method,
        missing=missing,
    )


def new_actor(schedule: Schedule, *, name: str = "", cpus: int = 0, **options: int) -> Actor:
    worker = ids.new_worker_id()
    source = ids.IdSource(worker, ids.JobID(b"\1\0\0\0"))
    actor = Actor(IDS.actor(), worker, ME, "Foo", {}, name, "default", ActorOptions(**options), source)
    schedule.add(actor)
    schedule.enter(work(actor, cpus=cpus))
    return actor


def create(schedule: Schedule, actor: Actor) -> None:
    creation = schedule.take()
    assert creation is not None
    assert creation.actor is actor
    schedule.ended(creation)
    schedule.created(actor)


def test_work_is_taken_in_the_order_in_which_it_became_possible():
    schedule = Schedule(ResourceSet())
    first, late, last = work(), work(missing=2), work()
    for item in (first, late, last):
        schedule.enter(item)
    assert schedule.take() is first
    schedule.argument_ready(late)
    schedule.argument_ready(late)
    assert [schedule.take(), schedule.take(), schedule.take()] == [last, late, None]


def test_calls_keep_their_order_behind_one_whose_argument_is_late_and_run_one_by_one():
    schedule = Schedule(ResourceSet())
    actor = new_actor(schedule)
    late, next_one = work(actor, "late", missing=1), work(actor, "next")
    schedule.enter(late)
    schedule.enter(next_one)
    create(schedule, actor)
    assert schedule.take() is None
    schedule.argument_ready(late)
    assert schedule.take() is late
    assert schedule.take() is None
    assert "waits for its turn" in schedule.reason(next_one)
    schedule.ended(late)
    assert schedule.take() is next_one


def test_actors_hold_their_resources_until_they_die():
    schedule = Schedule(ResourceSet({"CPU": 2}))
    actor = new_actor(schedule, cpus=2)
    create(schedule, actor)
    blocked = work(cpus=1)
    schedule.enter(blocked)
    assert schedule.take() is None
    assert "needs CPU" in schedule.reason(blocked)
    schedule.died(actor)
    assert schedule.available == schedule.total
    assert schedule.take() is blocked


def test_death_fails_the_call_under_way_and_the_line_and_frees_the_name():
    schedule = Schedule(ResourceSet())
    actor = new_actor(schedule, name="x")
    create(schedule, actor)
    calls = [work(actor, "call") for _ in range(3)]
    for call in calls:
        schedule.enter(call)
    assert schedule.take() is calls[0]
    assert schedule.named("x", "default") is actor
    assert schedule.died(actor) == calls
    assert all(call.life.is_over for call in calls)
    assert schedule.named("x", "default") is None
    assert schedule.take() is None
    with pytest.raises(InvalidTransition):
        schedule.died(actor)


def test_a_restart_puts_calls_with_retries_back_in_front_and_fails_the_others():
    schedule = Schedule(ResourceSet())
    actor = new_actor(schedule, max_restarts=1)
    create(schedule, actor)
    retried, waiting = work(actor, "retried", retries=1), work(actor, "waiting")
    schedule.enter(retried)
    schedule.enter(waiting)
    schedule.take()
    first_attempt = retried.attempt
    again = work(actor)
    assert schedule.restarted(actor, again) == []
    assert retried.attempt > first_attempt
    assert schedule.take() is again
    schedule.ended(again)
    schedule.created(actor)
    assert schedule.take() is retried
    assert schedule.restarted(actor, work(actor)) == [retried]
    assert not actor.may_restart


class History:
    """Random events on one schedule, and what must hold of them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.schedule = Schedule(ResourceSet({"CPU": 3}))
        self.actors: list[Actor] = []
        self.submitted: dict[bytes, deque[Work]] = {}
        self.running: list[Work] = []
        self.waiting: list[Work] = []

    @property
    def living(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.is_dead]

    def actor(self) -> None:
        self.actors.append(new_actor(self.schedule, cpus=self.chance.randrange(3)))
        self.submitted[self.actors[-1].actor_id] = deque()

    def task(self) -> None:
        self.schedule.enter(work(cpus=self.chance.randrange(4)))

    def call(self) -> None:
        if self.living:
            call = work(self.chance.choice(self.living), "call", missing=self.chance.randrange(2))
            self.submitted[call.actor.actor_id].append(call)
            self.waiting += [call] * call.missing
            self.schedule.enter(call)

    def argument(self) -> None:
        if self.waiting:
            self.schedule.argument_ready(self.waiting.pop(self.chance.randrange(len(self.waiting))))

    def take(self) -> None:
        taken = self.schedule.take()
        if taken is not None:
            self.running.append(taken)
            if taken.is_call:
                assert self.submitted[taken.actor.actor_id].popleft() is taken, "calls run in their order"

    def end(self) -> None:
        over = self.running.pop(self.chance.randrange(len(self.running))) if self.running else None
        if over is not None and not over.life.is_over:
            self.schedule.ended(over)
            if over.actor is not None and not over.is_call:
                self.schedule.created(over.actor)

    def die(self) -> None:
        if self.living:
            self.schedule.died(self.chance.choice(self.living))

    def check(self) -> None:
        held = sum((ResourceSet(actor.holding.shape) for actor in self.actors if actor.holding), ResourceSet())
        assert held + self.schedule.available == self.schedule.total
        busy = [item.actor.actor_id for item in self.running if item.is_call and not item.life.is_over]
        assert len(busy) == len(set(busy)), "an actor runs one call at a time"


@pytest.mark.parametrize("seed", range(50))
def test_random_histories_keep_the_order_of_calls_and_the_sum_of_resources(seed):
    history = History(seed)
    for _ in range(200):
        events = [history.actor, history.task, *[history.call] * 4, history.argument, *[history.take] * 3, history.end]
        history.chance.choice([*events, history.end, history.die])()
        history.check()
