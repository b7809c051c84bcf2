"""`shoal.util.state.explain`: in words what a ref is waiting for, to the deepest reason."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

import shoal
from shoal.util import state

DEADLINE_S = 30


@shoal.remote
def echo(*values):
    return values


@shoal.remote
def broken():
    raise KeyError("no")


@shoal.remote
def sleep(seconds):
    time.sleep(seconds)


@shoal.remote
def nested(seconds):
    return shoal.get(sleep.remote(seconds))


@shoal.remote
def explain_inner(refs):
    return state.explain(refs[0])


@shoal.remote(num_cpus=2)
class Holder:
    def ready(self):
        return True

    def nap(self, seconds):
        time.sleep(seconds)


@shoal.remote
class Selfish:
    def outer(self, me):
        self.inner_ref = me.inner.remote()
        return shoal.get(self.inner_ref)

    def inner(self):
        return 1


def eventually(ref, words):
    deadline = time.monotonic() + 5
    while not re.search(words, text := state.explain(ref)):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
    return text


def test_what_is_there_is_there():
    assert state.explain(shoal.put(1)).endswith("is there")
    ref = broken.remote()
    shoal.wait([ref], timeout=DEADLINE_S)
    assert "it is an error" in state.explain(ref)


def test_only_refs_are_explained():
    with pytest.raises(TypeError, match="ObjectRef"):
        state.explain("a string")


@pytest.mark.native_only("inline runs work before .remote() returns")
def test_a_running_task_and_what_waits_for_it():
    ref = sleep.remote(0.7)
    eventually(ref, r"^sleep\(\) runs on pid \d+ since 0\.\d s$")
    behind = echo.options(name="last").remote(echo.options(name="middle").remote(ref))
    text = state.explain(behind)
    assert re.match(r"last\(\) waits for its argument .*; middle\(\) waits for its argument .*; sleep\(\) runs", text)
    shoal.get(behind, timeout=DEADLINE_S)


@pytest.mark.native_only("inline runs work before .remote() returns")
def test_a_task_that_waits_for_another_is_explained_by_that():
    ref = nested.remote(0.7)
    eventually(ref, r"nested\(\) runs on .* and waits in get for ObjectRef\(\w+\); sleep\(\) runs")
    borrowed = shoal.get(explain_inner.options(num_cpus=0).remote([ref]), timeout=DEADLINE_S)
    assert re.search(r"nested\(\) runs on .*; sleep\(\) runs", borrowed)
    shoal.get(ref, timeout=DEADLINE_S)


@pytest.mark.not_on_ray("told by Ray's API server, which `pip install ray` does not bring")
def test_resources_that_an_actor_holds():
    holder = Holder.remote()
    shoal.get(holder.ready.remote(), timeout=DEADLINE_S)
    ref = echo.remote(1)
    text = state.explain(ref)
    assert "echo()" in text
    assert "needs CPU 1" in text
    del holder
    assert shoal.get(ref, timeout=DEADLINE_S) == (1,)


@pytest.mark.native_only("names processes")
def test_resources_that_an_actor_holds_are_named_with_the_holder():
    holder = Holder.options(num_cpus=1).remote()
    shoal.get(holder.ready.remote(), timeout=DEADLINE_S)
    ref = echo.options(num_cpus=2).remote(1)
    eventually(ref, r"waits in the queue: it needs CPU 2, 1 of 2 is free; Holder \(pid \d+\) has CPU 1$")
    other = Holder.remote()
    call = other.ready.remote()
    eventually(call, r"Holder\.ready\(\) waits for Holder .* pending: it waits in the queue: it needs CPU 2, 1 of 2")
    del holder
    assert shoal.get(call, timeout=DEADLINE_S)
    del other
    assert shoal.get(ref, timeout=DEADLINE_S) == (1,)


@pytest.mark.native_only("inline refuses to wait at all")
def test_an_actor_that_waits_for_itself_is_told_so():
    actor = Selfish.remote()
    ref = actor.outer.remote(actor)
    eventually(ref, r"Selfish\.outer\(\) runs .*Selfish\.inner\(\) waits .* this very object: that never ends$")
    shoal.kill(actor)


@pytest.mark.native_only("inline runs work before .remote() returns")
def test_a_queue_of_the_same_kind_is_a_turn():
    refs = [sleep.remote(0.3) for _ in range(8)]
    eventually(refs[-1], r"sleep\(\) waits for its turn behind \d running tasks? of the same kind")
    shoal.get(refs, timeout=DEADLINE_S)


@shoal.remote
class Awaiting:
    async def both(self, first, second):
        return await asyncio.gather(first[0], second[0])


@pytest.mark.native_only("inline runs work before .remote() returns")
def test_a_coroutine_that_awaits_is_explained_by_what_it_awaits():
    actor, ref = Awaiting.remote(), sleep.remote(0.7)
    awaiting = actor.both.remote([ref], [shoal.put(1)])
    eventually(awaiting, r"Awaiting\.both\(\) runs on .* and waits in get for ObjectRef\(\w+\); sleep\(\) runs")
    assert shoal.get(awaiting, timeout=DEADLINE_S) == [None, 1]
    assert [task.state for task in [state.get_task(awaiting.task_id().hex())]] == ["FINISHED"]
