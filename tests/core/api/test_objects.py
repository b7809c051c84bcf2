"""put, get, wait; large objects in shared memory; what keeps an object alive."""

from __future__ import annotations

import gc
import os
import re
import threading
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions
from shoal.core.engines import current
from shoal.core.engines.inline.engine import InlineEngine

DEADLINE_S = 30
LARGE = 200_000  # float64s: 1.6 MB, in shared memory


def holdings():
    return current.engine()._process.holdings


def is_on_ray():
    return type(current.engine()).__name__ == "RayEngine"


def counted_by_ray():
    import ray

    counts = ray._private.worker.global_worker.core_worker.get_all_reference_counts()
    return {bytes.fromhex(ref.decode()) for ref in counts}


def counted():
    """The ids that the session counts refs of."""
    engine = current.engine()
    if is_on_ray():
        return counted_by_ray()
    return engine.objects if isinstance(engine, InlineEngine) else holdings().references


def values_kept():
    """The ids of the objects that the driver has, or expects, a value of."""
    engine = current.engine()
    if is_on_ray():
        return counted_by_ray()
    return engine.objects if isinstance(engine, InlineEngine) else holdings().objects


def is_lost(ref):
    """Whether the driver has heard of the end of an object's owner; inline, it has before `kill` returns. On Ray the
    object's node hears of it up to a second later.
    """
    if not is_on_ray():
        return isinstance(current.engine(), InlineEngine) or ref.owner in holdings()._dead
    try:
        shoal.get(ref, timeout=DEADLINE_S)
    except exceptions.OwnerDiedError:
        return True
    return False


def eventually(condition, what: str) -> None:
    """Counts travel with the next message and views die with the collector: wait for them, with a deadline."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, what
        gc.collect()
        shoal.wait([shoal.put(None)], timeout=0)
        if not isinstance(current.engine(), InlineEngine) and not is_on_ray():
            current.engine()._process.loop.flush()
        time.sleep(0.01)


@shoal.remote
def identity(value):
    return value


@shoal.remote
class Keeper:
    value = None

    def keep(self, value):
        self.value = value

    def kept(self):
        return self.value

    def total(self):
        value = self.value[0] if isinstance(self.value, list) else self.value
        return float(np.sum(shoal.get(value) if isinstance(value, shoal.ObjectRef) else value))

    def drop(self):
        self.value = None


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", b"bytes", [1, {"a": (2, 3)}], np.arange(10), np.ones(LARGE), b"x" * 300_000],
    ids=["None", "int", "str", "bytes", "nested", "small array", "large array", "large bytes"],
)
def test_what_is_put_comes_back_equal(value):
    for ref in (shoal.put(value), identity.remote(value), identity.remote(shoal.put(value))):
        np.testing.assert_equal(shoal.get(ref, timeout=DEADLINE_S), value)


def test_arrays_come_back_read_only_and_large_ones_uncopied():
    small, large = shoal.put(np.zeros(4)), shoal.put(np.zeros(LARGE))
    for ref in (small, large):
        with pytest.raises(ValueError, match="read-only"):
            shoal.get(ref)[0] = 1
    assert np.shares_memory(shoal.get(large), shoal.get(large))


def test_arguments_are_read_only_too():
    @shoal.remote
    def write(array):
        array[0] = 1

    for size in (4, LARGE):
        with pytest.raises(ValueError, match="read-only"):
            shoal.get(write.remote(np.zeros(size)), timeout=DEADLINE_S)


def test_each_get_of_a_mutable_value_gives_a_fresh_one():
    ref = shoal.put([1])
    shoal.get(ref).append(2)
    assert shoal.get(ref) == [1]


def test_later_changes_to_an_array_do_not_reach_what_was_put():
    for size in (4, LARGE):
        array = np.zeros(size)
        ref = shoal.put(array)
        array[:] = 1
        assert shoal.get(ref).sum() == 0


def test_an_array_outlives_its_ref():
    array = shoal.get(shoal.put(np.full(LARGE, 7.0)))
    others = [shoal.put(np.zeros(LARGE)) for _ in range(5)]
    assert (array == 7.0).all()
    del others


def test_memory_comes_back_when_refs_and_arrays_go():
    for _ in range(200):  # 200 times 16 MB through a store of 512 MB
        ref = shoal.put(np.zeros(2_000_000))
        assert shoal.get(ref)[0] == 0


def test_results_of_tasks_come_back_to_the_store_too():
    @shoal.remote
    def make():
        return np.zeros(2_000_000)

    for _ in range(100):
        assert len(shoal.get(make.remote(), timeout=DEADLINE_S)) == 2_000_000


def test_memory_of_dead_workers_comes_back(session):
    @shoal.remote
    class Maker:
        def make(self):
            return np.zeros(400_000)  # 3.2 MB, in a slab of the actor's

    for _ in range(5 if session == "ray" else 30):  # each takes a slab of 32 MiB, of which the store has 16
        maker = Maker.remote()
        array = shoal.get(maker.make.remote(), timeout=DEADLINE_S)
        shoal.kill(maker)
        assert array.sum() == 0, "the object outlives its maker"


@pytest.mark.not_on_ray("Ray spills to disk what has no room")
def test_a_full_store_is_an_error_that_passes_when_refs_go():
    held = []
    with pytest.raises(exceptions.ObjectStoreFullError, match="object store is full") as caught:
        held.extend(shoal.put(np.zeros(4_000_000)) for _ in range(40))
    assert len(held) >= 8
    words = r"the driver \(pid (\d+)\) owns (\d+) objects of [\d,.]+ MB.*ObjectRef\((\w+)\)"
    found = re.search(words, str(caught.value))
    assert found, str(caught.value)
    assert (int(found[1]), found[3] in {ref.hex() for ref in held}) == (os.getpid(), True)
    assert int(found[2]) >= len(held)
    held.clear()
    eventually(lambda: shoal.put(np.zeros(4_000_000)), "room again")


def test_an_object_lives_in_an_actor_after_its_owner_has_dropped_it(session):
    keeper = Keeper.remote()
    ref = shoal.put(np.full(LARGE, 2.0))
    shoal.get(keeper.keep.remote(ref), timeout=DEADLINE_S)
    object_id = ref.binary()
    del ref
    filler = [shoal.put(np.zeros(LARGE)) for _ in range(20)]  # would reuse its memory if it had been freed
    assert shoal.get(keeper.total.remote(), timeout=DEADLINE_S) == 2.0 * LARGE
    if session != "ray":  # there the actor's view holds the memory, and no count of the owner's tells of it
        assert object_id in counted()
    shoal.get(keeper.drop.remote(), timeout=DEADLINE_S)
    eventually(lambda: object_id not in counted(), "the actor's view is gone, so is the object")
    del filler


def test_a_ref_in_a_container_lives_in_an_actor_after_its_owner_has_dropped_it():
    keeper = Keeper.remote()
    ref = shoal.put(np.full(LARGE, 3.0))
    shoal.get(keeper.keep.remote([ref]), timeout=DEADLINE_S)
    object_id = ref.binary()
    del ref
    assert shoal.get(keeper.total.remote(), timeout=DEADLINE_S) == 3.0 * LARGE
    assert object_id in counted()
    shoal.get(keeper.drop.remote(), timeout=DEADLINE_S)
    eventually(lambda: object_id not in counted(), "the actor has dropped it")


def test_a_ref_made_in_a_task_and_returned_in_a_container_can_be_got():
    @shoal.remote
    class Maker:
        def make(self):
            return [shoal.put(np.full(LARGE, 4.0)), identity.remote("inner")]

    maker = Maker.remote()
    big, small = shoal.get(maker.make.remote(), timeout=DEADLINE_S)
    assert shoal.get(big, timeout=DEADLINE_S).sum() == 4.0 * LARGE
    assert shoal.get(small, timeout=DEADLINE_S) == "inner"


@pytest.mark.not_inline("needs a task that is still running")
def test_refs_of_a_dead_owner_are_an_error_that_says_so():
    @shoal.remote
    class Owner:
        def slow(self):
            @shoal.remote
            def never():
                time.sleep(60)

            return [never.remote()]

    owner = Owner.remote()
    (ref,) = shoal.get(owner.slow.remote(), timeout=DEADLINE_S)
    shoal.kill(owner)
    with pytest.raises(exceptions.OwnerDiedError, match=r"owned|owner has exited"):
        shoal.get(ref, timeout=DEADLINE_S)


def test_refs_through_three_processes_arrive():
    first, second = Keeper.remote(), Keeper.remote()
    ref = shoal.put(np.full(LARGE, 5.0))
    shoal.get(first.keep.remote([ref]), timeout=DEADLINE_S)
    shoal.get(second.keep.remote(shoal.get(first.kept.remote(), timeout=DEADLINE_S)), timeout=DEADLINE_S)
    del ref
    shoal.get(first.drop.remote(), timeout=DEADLINE_S)
    assert shoal.get(second.total.remote(), timeout=DEADLINE_S) == 5.0 * LARGE


def test_nothing_is_counted_when_nothing_is_held():
    gc.collect()
    eventually(lambda: True, "settled")
    before = len(counted()), len(values_kept())
    refs = [identity.remote(shoal.put(i)) for i in range(50)]
    shoal.get(refs, timeout=DEADLINE_S)
    del refs
    eventually(lambda: (len(counted()), len(values_kept())) <= before, "all counted down")


@pytest.mark.not_inline("needs a task that is still running")
def test_wait_returns_the_ready_in_order_and_no_more_than_asked():
    @shoal.remote
    def nap(seconds):
        time.sleep(seconds)
        return seconds

    refs = [nap.remote(1.5), shoal.put(1), nap.remote(0), shoal.put(2)]
    ready, rest = shoal.wait(refs, num_returns=3, timeout=DEADLINE_S)
    assert ready == refs[1:]
    assert rest == refs[:1]
    (ready,), rest = shoal.wait(refs, num_returns=1)
    assert ready in refs[1:], "which of them: the first; on Ray, one that is in this process rather than in its store"
    assert rest == [ref for ref in refs if ref != ready]
    ready, rest = shoal.wait(refs, num_returns=4, timeout=0.1)
    assert len(ready) == 3
    assert rest == [refs[0]]
    assert shoal.get(refs[0], timeout=DEADLINE_S) == 1.5


def test_failed_tasks_count_as_ready():
    @shoal.remote
    def fail():
        raise KeyError("x")

    ref = fail.remote()
    assert shoal.wait([ref], timeout=DEADLINE_S) == ([ref], [])


@pytest.mark.not_inline("needs a task that is still running")
def test_get_times_out_and_the_ref_is_good_afterwards():
    @shoal.remote
    def nap():
        time.sleep(0.5)
        return "done"

    ref = nap.remote()
    with pytest.raises(exceptions.GetTimeoutError, match=r"not ready within 0\.05 s"):
        shoal.get(ref, timeout=0.05)
    with pytest.raises(TimeoutError):
        shoal.get(ref, timeout=0)
    assert shoal.get(ref, timeout=DEADLINE_S) == "done"


def test_futures_and_coroutines_see_values_and_errors():
    import asyncio

    @shoal.remote
    def fail():
        raise KeyError("x")

    assert identity.remote(5).future().result(DEADLINE_S) == 5
    with pytest.raises(KeyError):
        fail.remote().future().result(DEADLINE_S)

    async def both():
        return await asyncio.gather(identity.remote(1), identity.remote(2))

    assert asyncio.run(both()) == [1, 2]


def test_callbacks_of_futures_may_use_the_api():
    results = []

    @shoal.remote
    def slow():
        time.sleep(0.1)
        return 1

    future = slow.remote().future()
    future.add_done_callback(lambda done: results.append(shoal.get(identity.remote(done.result() + 1))))
    deadline = time.monotonic() + DEADLINE_S
    while not results:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert results == [2]


@pytest.mark.not_inline("needs a task that is still running")
def test_a_future_that_is_cancelled_or_times_out_harms_nobody():
    import asyncio

    @shoal.remote
    def slow():
        time.sleep(0.3)
        return 1

    ref = slow.remote()
    assert ref.future().cancel()

    async def impatient():
        await asyncio.wait_for(asyncio.wrap_future(ref.future()), 0.05)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(impatient())
    assert shoal.get(ref, timeout=DEADLINE_S) == 1
    assert ref.future().result(DEADLINE_S) == 1


@pytest.mark.native_only("looks into the tables of this process")
def test_looking_often_leaves_no_watchers_behind():
    @shoal.remote
    def slow():
        time.sleep(1)

    pending, done = slow.remote(), shoal.put(1)
    for _ in range(100):
        shoal.wait([pending], timeout=0)
        shoal.wait([pending, done], num_returns=2, timeout=0.001)
        with pytest.raises(exceptions.GetTimeoutError):
            shoal.get([pending, done], timeout=0.001)
    current.engine()._process.loop.flush()
    assert not holdings().objects._entries[pending.binary()].watchers
    shoal.get(pending, timeout=DEADLINE_S)


def test_a_lost_argument_beside_a_pending_one_fails_that_task_and_no_other():
    @shoal.remote
    class Owner:
        def ref(self):
            return [shoal.put(1)]

    @shoal.remote
    def slow():
        time.sleep(0.2)

    @shoal.remote
    def two(a, b):
        return a, b

    owner, keeper = Owner.remote(), Keeper.options(name="by name").remote()
    (lost,) = shoal.get(owner.ref.remote(), timeout=DEADLINE_S)
    shoal.kill(owner)
    eventually(lambda: is_lost(lost), "the owner's death is known here")
    with pytest.raises(exceptions.OwnerDiedError):
        shoal.get(two.remote(lost, slow.remote()), timeout=DEADLINE_S)
    with pytest.raises(exceptions.OwnerDiedError):
        shoal.get(shoal.get_actor("by name").keep.remote(lost), timeout=DEADLINE_S)
    by_hand = shoal.ObjectRef(b"x" * 28)
    with pytest.raises(exceptions.ObjectLostError, match="by hand"):
        shoal.get(two.remote(by_hand, slow.remote()), timeout=DEADLINE_S)
    assert shoal.get(keeper.kept.remote(), timeout=DEADLINE_S) is None


@pytest.mark.not_on_ray("Ray spills to disk what has no room")
def test_a_result_that_does_not_fit_is_told_as_such():
    @shoal.remote
    def huge():
        return np.zeros(100_000_000)

    with pytest.raises(exceptions.ObjectStoreFullError, match="800") as caught:
        shoal.get(huge.remote(), timeout=DEADLINE_S)
    assert "input arguments" not in str(caught.value)


@pytest.mark.not_on_ray("Ray spills to disk what has no room")
def test_what_is_larger_than_the_whole_store_is_not_told_to_drop_refs():
    with pytest.raises(exceptions.ObjectStoreFullError, match=r"never fit.*larger object_store_memory") as caught:
        shoal.put(np.zeros(100_000_000))
    assert "drop refs" not in str(caught.value)


def test_many_threads_may_submit_and_wait_at_once():
    errors = []

    def work(base):
        try:
            for i in range(100):
                assert shoal.get(identity.remote(base + i), timeout=DEADLINE_S) == base + i
        except BaseException as error:  # noqa: BLE001  reported by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    assert not errors


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ref: shoal.get((ref,)), ValueError),
        (lambda ref: shoal.get([ref, 1]), TypeError),
        (lambda ref: shoal.get(ref, timeout="1"), TypeError),
        (lambda ref: shoal.put(ref), TypeError),
        (lambda ref: shoal.wait(ref), TypeError),
        (lambda ref: shoal.wait([ref, ref]), ValueError),
        (lambda ref: shoal.wait([ref], num_returns=2), ValueError),
        (lambda ref: shoal.wait([ref], num_returns=0), ValueError),
        (lambda ref: shoal.wait([ref], timeout=-1), ValueError),
        (lambda ref: shoal.wait([1]), TypeError),
    ],
)
def test_mistakes_are_told_at_the_call_site(call, error):
    with pytest.raises(error):
        call(shoal.put(1))


def test_empty_lists_are_answered_at_once():
    assert shoal.get([]) == []
    assert shoal.wait([]) == ([], [])


def test_refs_can_be_made_by_hand_and_be_nothing():
    ref = shoal.put(1)
    assert shoal.ObjectRef(ref.binary()) == ref == shoal.ObjectRef.from_binary(ref.binary())
    assert shoal.ObjectRef.from_hex(ref.hex()) == ref
    assert shoal.ObjectRef[int] is not None
    assert shoal.ObjectRef.nil().is_nil()
    assert shoal.ObjectRef.nil() == shoal.ObjectRef.nil()
    assert not ref.is_nil()
    assert shoal.ObjectRef.from_random() != ref
    assert shoal.ObjectRef.size() == len(ref.binary()) == 28


def test_a_ref_knows_its_task_its_job_and_its_owner():
    ref = shoal.put(1)
    assert isinstance(ref.task_id(), shoal.TaskID)
    assert ref.job_id().hex() == shoal.get_runtime_context().get_job_id()
    assert ref.task_id().job_id() == ref.job_id()
    assert ref.owner_address()
    assert shoal.ObjectRef.from_random().owner_address() == b""
    assert ref.call_site() == ""


def test_a_ref_as_a_future_of_asyncio():
    import asyncio

    async def wait():
        return await shoal.put(5).as_future()

    assert asyncio.run(wait()) == 5
