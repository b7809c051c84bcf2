"""Placement groups, from what users write to what they see.

What Ray 2.60 does was tried where its documentation is silent; the tests' own words say where shoal does otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import random
import signal
import time
from collections.abc import Iterator

import cloudpickle
import pytest

import shoal
from shoal.exceptions import (
    ActorPlacementGroupRemoved,
    GetTimeoutError,
    RaySystemError,
    TaskPlacementGroupRemoved,
)
from shoal.util import get_current_placement_group
from shoal.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Inside
from shoal.util.state import explain, list_actors, list_placement_groups

SOON_S = 20


@pytest.fixture(autouse=True)
def _no_group_is_left() -> Iterator[None]:
    yield
    for digits, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(shoal.PlacementGroupID.from_hex(digits)))
    eventually(lambda: shoal.available_resources().get("CPU") == 2)


def eventually(holds) -> None:
    """Resources come back when leases are returned, a little after the last result."""
    ends = time.monotonic() + SOON_S
    while not holds():
        gc.collect()  # the frames of errors that were expected hold handles of actors
        assert time.monotonic() < ends, "it has not come to hold in time"
        time.sleep(0.01)


@shoal.remote
def where() -> tuple[str | None, dict[str, float]]:
    context = shoal.get_runtime_context()
    return context.get_placement_group_id(), context.get_assigned_resources()


@shoal.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def where(self) -> tuple[str | None, dict[str, float]]:
        context = shoal.get_runtime_context()
        return context.get_placement_group_id(), context.get_assigned_resources()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_a_group_is_ready_and_is_what_its_ref_comes_to():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert shoal.get(group.ready(), timeout=SOON_S) == group
    assert group.wait(timeout_seconds=0)
    assert group.bundle_count == 2
    assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 1.0}]
    assert not group.is_empty


def test_the_function_and_the_module_have_the_same_path():
    import shoal.util

    assert shoal.util.placement_group is placement_group
    from shoal.util.placement_group import PlacementGroup as again  # noqa: N813

    assert again is PlacementGroup


def test_bundles_are_resources_under_rays_names():
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}])
    assert group.wait(SOON_S)
    digits = group.id.hex()
    expected = {
        f"CPU_group_{digits}": 1.5,
        f"CPU_group_0_{digits}": 1.0,
        f"CPU_group_1_{digits}": 0.5,
        f"bundle_group_{digits}": 2000.0,
        f"bundle_group_0_{digits}": 1000.0,
        f"bundle_group_1_{digits}": 1000.0,
    }
    eventually(lambda: expected.items() <= shoal.cluster_resources().items())  # Ray's account lags by 100 ms
    eventually(lambda: expected.items() <= shoal.available_resources().items())
    assert shoal.cluster_resources()["CPU"] == 2
    assert shoal.available_resources()["CPU"] == 0.5
    remove_placement_group(group)
    eventually(lambda: not any(digits in name for name in shoal.cluster_resources()))


def test_tasks_run_inside_with_the_plain_names_of_what_they_hold():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    digits = group.id.hex()
    inside = where.options(scheduling_strategy=Inside(group))
    assert shoal.get(inside.remote(), timeout=SOON_S) == (digits, {"CPU": 1.0})
    of_bundle = where.options(scheduling_strategy=Inside(group, 1), num_cpus=0)
    assert shoal.get(of_bundle.remote(), timeout=SOON_S) == (digits, {})
    assert get_current_placement_group() is None, "a driver is in none"


def test_many_tasks_share_a_group():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    inside = where.options(scheduling_strategy=Inside(group))
    answers = shoal.get([inside.remote() for _ in range(50)], timeout=SOON_S)
    assert answers == [(group.id.hex(), {"CPU": 1.0})] * 50


def test_actors_live_inside_by_rays_rule_of_cpus():
    """An actor that asks for nothing needs a CPU in a bundle to be placed, and holds none. Tried on Ray."""
    group = placement_group([{"CPU": 1}])
    plain = Counter.options(scheduling_strategy=Inside(group)).remote()
    assert shoal.get(plain.where.remote(), timeout=SOON_S) == (group.id.hex(), {})
    holding = Counter.options(num_cpus=1, scheduling_strategy=Inside(group, 0)).remote()
    assert shoal.get(holding.where.remote(), timeout=SOON_S) == (group.id.hex(), {"CPU": 1.0})
    assert f"CPU_group_0_{group.id.hex()}" not in shoal.available_resources()


def test_a_default_actor_needs_a_bundle_with_a_cpu():
    group = placement_group([{"memory": 1000}])
    with pytest.raises(ValueError, match=r"Cannot schedule actor Counter.*to be placed it needs CPU 1.*num_cpus=0"):
        Counter.options(scheduling_strategy=Inside(group)).remote()
    assert Counter.options(num_cpus=0, scheduling_strategy=Inside(group)).remote() is not None


@pytest.mark.parametrize("index", [2, 7, -2])
def test_a_bundle_that_does_not_exist_is_refused_at_the_call(index):
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    with pytest.raises(ValueError, match=rf"placement group bundle index {index} is invalid"):
        where.options(scheduling_strategy=Inside(group, index)).remote()


def test_a_bundle_without_a_group_is_refused():
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(ValueError, match="must be -1"):
        where.options(placement_group_bundle_index=1).remote()


def test_a_demand_that_fits_no_bundle_is_refused_at_the_call():
    """Ray looks at all bundles even if one is named, and then waits for ever; here the one that is named counts."""
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}])
    with pytest.raises(
        ValueError, match=r"Cannot schedule where\(\) with the placement group: it needs CPU 2, and its bundles"
    ):
        where.options(num_cpus=2, scheduling_strategy=Inside(group)).remote()
    with pytest.raises(ValueError, match=r"needs CPU 1, and bundle 1 is"):
        where.options(scheduling_strategy=Inside(group, 1)).remote()


@pytest.mark.parametrize(
    ("bundles", "words"),
    [
        ((), "list"),
        ([], "empty"),
        ([{}], "asks for nothing"),
        ([{"CPU": 0}], "asks for nothing"),
        ([["CPU"]], "dict"),
        ([{"CPU": "1"}], "number"),
        ([{"CPU": 1}, {"CPU": -1}], "bundle 1: num_cpus=-1"),
        ([{"GPU": 1.5}], "whole"),
    ],
)
def test_wrong_bundles_are_refused(bundles, words):
    """Ray takes a negative amount and a GPU and a half without a word, and never makes such a group."""
    with pytest.raises(ValueError, match=words):
        placement_group(bundles)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategy": "pack"}, "invalid placement group strategy 'pack'"),
        ({"lifetime": "non_detached"}, "lifetime"),
        ({"_soft_target_node_id": "ab"}, "STRICT_PACK"),
        ({"strategy": "PACK", "topology_strategy": {"ray.io/node-id": "PACK"}}, "cannot both"),
        ({"topology_strategy": {"rack": "STRICT_PACK"}}, "rack"),
        ({"bundle_label_selector": [{}, {}]}, "each of the 1 bundles"),
        ({"bundle_label_selector": [{"zone": "-"}]}, "bundle_label_selector"),
    ],
)
def test_wrong_arguments_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        placement_group([{"CPU": 1}], **given)


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_on_one_node_three_strategies_are_the_same(strategy):
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy=strategy)
    assert group.wait(SOON_S)
    row = placement_group_table(group)
    node = shoal.get_runtime_context().get_node_id()
    assert row["strategy"] == strategy
    assert row["bundles_to_node_id"] == {0: node, 1: node}


def test_one_bundle_is_spread_strictly_over_one_node():
    assert placement_group([{"CPU": 1}], strategy="STRICT_SPREAD").wait(SOON_S)


@pytest.mark.not_on_ray("a cluster may grow, so Ray lets such groups wait; the table says INFEASIBLE")
def test_what_one_node_can_never_have_is_an_error_that_says_so():
    with pytest.raises(shoal.exceptions.UnschedulableError, match="STRICT_SPREAD wants each of the 2 bundles"):
        placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    with pytest.raises(shoal.exceptions.UnschedulableError, match="needs CPU 3, this machine has CPU 2 in all"):
        placement_group([{"CPU": 2}, {"CPU": 1}])
    with pytest.raises(shoal.exceptions.UnschedulableError, match="needs TPU 1"):
        placement_group([{"TPU": 1}])
    with pytest.raises(shoal.exceptions.UnschedulableError, match=r"bundle 0 .*zone in"):
        placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "elsewhere"}])


def test_a_group_waits_for_what_others_hold():
    holder = Counter.options(num_cpus=1).remote()
    shoal.get(holder.add.remote(), timeout=SOON_S)
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert not group.wait(0.05)
    assert placement_group_table(group)["state"] == "PENDING"
    assert placement_group_table(group)["bundles_to_node_id"] == {0: "", 1: ""}
    ready = group.ready()
    task = where.options(scheduling_strategy=Inside(group)).remote()
    with pytest.raises(GetTimeoutError):
        shoal.get(task, timeout=0.05)
    shoal.kill(holder)
    assert shoal.get(ready, timeout=SOON_S) == group
    assert shoal.get(task, timeout=SOON_S)[0] == group.id.hex()


@pytest.mark.not_on_ray("what tasks and actors do is told by Ray's API server, which `pip install ray` does not bring")
def test_what_waits_for_a_group_can_be_explained():
    holder = Counter.options(num_cpus=1).remote()
    shoal.get(holder.add.remote(), timeout=SOON_S)
    group = placement_group([{"CPU": 1}, {"CPU": 1}], name="waiting")
    inside = Inside(group)
    waiting = [
        group.ready(),
        where.options(scheduling_strategy=inside).remote(),
        Counter.options(scheduling_strategy=inside).remote().add.remote(),
    ]
    assert shoal.wait(waiting, timeout=0.1)[0] == []
    for ref in waiting:
        words = explain(ref)
        assert f"waits for placement group {group.id.hex()}" in words
        assert "needs CPU 2" in words
    (row,) = list_placement_groups(filters=[("state", "=", "PENDING")], detail=True)
    assert row.name == "waiting"
    assert [bundle["unit_resources"] for bundle in row.bundles] == [{"CPU": 1.0}, {"CPU": 1.0}]


@pytest.mark.not_on_ray("what tasks and actors do is told by Ray's API server, which `pip install ray` does not bring")
def test_tasks_and_actors_are_listed_with_their_group():
    group = placement_group([{"CPU": 1}])
    actor = Counter.options(scheduling_strategy=Inside(group)).remote()
    shoal.get(actor.add.remote(), timeout=SOON_S)
    (row,) = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    assert (row.placement_group_id, row.required_resources) == (group.id.hex(), {})


@pytest.mark.not_on_ray("Ray goes on to restart an actor whose group is gone, and says of others only that they died")
def test_removing_a_group_ends_the_actors_inside_and_tells_their_callers():
    group = placement_group([{"CPU": 1}])
    inside = Counter.options(scheduling_strategy=Inside(group), max_restarts=5).remote()
    outside = Counter.remote()
    assert shoal.get([inside.add.remote(), outside.add.remote()], timeout=SOON_S) == [1, 1]
    remove_placement_group(group)
    remove_placement_group(group)

    def call() -> None:
        """Calls made before the removal is known may still find it alive; but it does not come back."""
        ends = time.monotonic() + SOON_S
        while time.monotonic() < ends:
            shoal.get(inside.add.remote(), timeout=SOON_S)

    with pytest.raises(ActorPlacementGroupRemoved, match=r"Counter .*its placement group has been removed"):
        call()
    assert shoal.get(outside.add.remote(), timeout=SOON_S) == 2


@pytest.mark.native_only("inline's tasks have run before anybody could remove their group")
def test_removing_a_group_ends_the_tasks_inside_whatever_they_wait_for():
    """In Ray only those that wait get TaskPlacementGroupRemoved; a running one gets WorkerCrashedError."""
    group = placement_group([{"CPU": 1}])

    @shoal.remote(max_retries=3)
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    refs = [sleep.options(scheduling_strategy=Inside(group)).remote(600) for _ in range(3)]
    dependent = sleep.options(scheduling_strategy=Inside(group)).remote(refs[0])
    assert shoal.wait(refs, timeout=0.5)[0] == []
    remove_placement_group(group)
    for ref in refs:
        with pytest.raises(TaskPlacementGroupRemoved, match=group.id.hex()):
            shoal.get(ref, timeout=SOON_S)
    with pytest.raises(TaskPlacementGroupRemoved):
        shoal.get(dependent, timeout=SOON_S)


@pytest.mark.native_only("inline's calls have run before anybody could remove the group; Ray says only that it died")
def test_removing_a_group_fails_calls_under_way():
    group = placement_group([{"CPU": 1}])
    actor = Counter.options(scheduling_strategy=Inside(group)).remote()
    shoal.get(actor.add.remote(), timeout=SOON_S)
    ref = actor.sleep.remote(600)
    assert shoal.wait([ref], timeout=0.2)[0] == []
    remove_placement_group(group)
    with pytest.raises(ActorPlacementGroupRemoved):
        shoal.get(ref, timeout=SOON_S)


@pytest.mark.not_on_ray("Ray lets work for a group that is gone wait for ever")
def test_work_for_a_removed_group_fails_and_does_not_wait():
    group = placement_group([{"CPU": 1}])
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        shoal.get(where.options(scheduling_strategy=Inside(group)).remote(), timeout=SOON_S)
    with pytest.raises(ActorPlacementGroupRemoved):
        shoal.get(Counter.options(scheduling_strategy=Inside(group)).remote().add.remote(), timeout=SOON_S)


def test_nobody_waits_for_a_removed_group_to_be_ready():
    group = placement_group([{"CPU": 1}])
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        shoal.get(group.ready(), timeout=SOON_S)
    with pytest.raises(TaskPlacementGroupRemoved):
        group.wait(SOON_S)


def test_a_group_that_waits_can_be_removed():
    holder = Counter.options(num_cpus=1).remote()
    shoal.get(holder.add.remote(), timeout=SOON_S)
    group = placement_group([{"CPU": 2}])
    ready = group.ready()
    assert shoal.wait([ready], timeout=0.05)[0] == []
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        shoal.get(ready, timeout=SOON_S)


@pytest.mark.not_on_ray("Ray lets work for a group that is gone wait for ever")
def test_work_that_waits_for_a_group_fails_when_that_is_removed():
    holder = Counter.options(num_cpus=1).remote()
    shoal.get(holder.add.remote(), timeout=SOON_S)
    group = placement_group([{"CPU": 2}])
    task = where.options(scheduling_strategy=Inside(group)).remote()
    assert shoal.wait([task], timeout=0.05)[0] == []
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        shoal.get(task, timeout=SOON_S)


def test_names_are_found_from_everywhere():
    group = placement_group([{"CPU": 1}], name="shared")

    @shoal.remote(num_cpus=0)
    def find():
        other = placement_group([{"CPU": 0.5}], name="of the task")
        return get_placement_group("shared"), other

    found, other = shoal.get(find.remote(), timeout=SOON_S)
    assert found == group
    assert get_placement_group("of the task") == other


def test_names_of_groups():
    """Ray raises a RaySystemError for a name that is taken, its documentation says ValueError: this one is both."""
    group = placement_group([{"CPU": 1}], name="trainers")
    assert get_placement_group("trainers") == group
    assert get_placement_group("trainers").bundle_specs == [{"CPU": 1.0}]
    with pytest.raises(RaySystemError, match="'trainers'"):
        placement_group([{"CPU": 1}], name="trainers")
    with pytest.raises(ValueError, match="already taken"):
        placement_group([{"CPU": 1}], name="trainers")
    remove_placement_group(group)
    eventually(lambda: placement_group_table(group)["state"] == "REMOVED")
    with pytest.raises(ValueError, match="no placement group is named 'trainers'"):
        get_placement_group("trainers")
    with pytest.raises(ValueError, match="not empty"):
        get_placement_group("")
    assert placement_group([{"CPU": 1}], name="trainers") != group


def test_the_table_has_rays_rows():
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}], name="rows", strategy="SPREAD")
    assert group.wait(SOON_S)
    row = placement_group_table(group)
    assert row == placement_group_table()[group.id.hex()]
    assert {key: row[key] for key in ("placement_group_id", "name", "bundles", "strategy", "state")} == {
        "placement_group_id": group.id.hex(),
        "name": "rows",
        "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 0.5}},
        "strategy": "SPREAD",
        "state": "CREATED",
    }
    assert set(row["stats"]) == {
        "end_to_end_creation_latency_ms",
        "scheduling_latency_ms",
        "scheduling_attempt",
        "highest_retry_delay_ms",
        "scheduling_state",
    }
    assert row["stats"]["scheduling_state"] == "FINISHED"
    remove_placement_group(group)
    eventually(lambda: placement_group_table(group)["state"] == "REMOVED")
    assert placement_group_table(PlacementGroup(shoal.PlacementGroupID(b"x" * 18))) == {}


def test_handles_travel():
    group = placement_group([{"CPU": 1}])

    @shoal.remote
    def use(handle, nested):
        inside = where.options(scheduling_strategy=Inside(handle), num_cpus=0.5)
        return handle == nested[0], handle.wait(SOON_S), shoal.get(inside.remote())[0], handle.bundle_specs

    assert shoal.get(use.options(num_cpus=0).remote(group, [group]), timeout=SOON_S) == (
        True,
        True,
        group.id.hex(),
        [{"CPU": 1.0}],
    )
    assert cloudpickle.loads(cloudpickle.dumps(group)) == group
    assert pickle.loads(pickle.dumps(group)) == group
    assert len({group, pickle.loads(pickle.dumps(group))}) == 1
    bare = PlacementGroup(group.id)
    assert bare.bundle_specs == [{"CPU": 1.0}], "asked for when it is not known"


def test_a_group_made_in_an_actor_outlives_it():
    """Ray's: a group ends with the job, and with a detached actor, but not with an actor that is not detached."""

    @shoal.remote(num_cpus=0)
    class Maker:
        def make(self):
            return placement_group([{"CPU": 1}])

    maker = Maker.remote()
    group = shoal.get(maker.make.remote(), timeout=SOON_S)
    shoal.kill(maker)
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(maker.make.remote(), timeout=SOON_S)
    assert shoal.get(where.options(scheduling_strategy=Inside(group)).remote(), timeout=SOON_S)[0] == group.id.hex()
    detached = Maker.options(lifetime="detached").remote()
    mine = shoal.get(detached.make.remote(), timeout=SOON_S)
    shoal.kill(detached)
    eventually(lambda: placement_group_table(mine)["state"] == "REMOVED")


def test_a_group_made_in_a_task_outlives_it():
    @shoal.remote
    def make():
        return placement_group([{"CPU": 1}])

    group = shoal.get(make.remote(), timeout=SOON_S)
    assert group.wait(SOON_S)
    assert placement_group_table(group)["state"] == "CREATED"


@pytest.mark.parametrize("how", ["default", "DEFAULT", "SPREAD", "none", "no group"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_capturing_task_submits_runs_in_its_group_unless_told_otherwise(how):
    group = placement_group([{"CPU": 0.5}, {"CPU": 0.5}])

    @shoal.remote(num_cpus=0.5)
    def child():
        context = shoal.get_runtime_context()
        return context.get_placement_group_id(), context.should_capture_child_tasks_in_placement_group

    @shoal.remote(num_cpus=0.5)
    def parent(how):
        assert get_current_placement_group() is not None
        options = {
            "default": {},
            "DEFAULT": {"scheduling_strategy": "DEFAULT"},
            "SPREAD": {"scheduling_strategy": "SPREAD"},
            "none": {"placement_group": None},
            "no group": {"scheduling_strategy": Inside(None)},
        }[how]
        return shoal.get(child.options(**options).remote())

    capturing = Inside(group, placement_group_capture_child_tasks=True)
    inherited = shoal.get(parent.options(scheduling_strategy=capturing).remote(how), timeout=SOON_S)
    assert inherited == ((group.id.hex(), True) if how == "default" else (None, False))


def test_what_captures_nothing_lets_its_children_run_outside():
    group = placement_group([{"CPU": 1}])

    @shoal.remote
    def parent():
        return shoal.get(where.remote())

    assert shoal.get(parent.options(scheduling_strategy=Inside(group)).remote(), timeout=SOON_S)[0] is None


def test_an_actor_captures_what_it_creates():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])

    @shoal.remote
    class Parent:
        def spawn(self):
            self.child = Counter.remote()
            return shoal.get(self.child.where.remote()), shoal.get(where.remote())

        def too_much(self):
            try:
                where.options(num_cpus=2).remote()
            except ValueError as error:
                return str(error)

    capturing = Inside(group, placement_group_capture_child_tasks=True)
    parent = Parent.options(scheduling_strategy=capturing).remote()
    digits = group.id.hex()
    assert shoal.get(parent.spawn.remote(), timeout=SOON_S) == ((digits, {}), (digits, {"CPU": 1.0}))
    assert "Cannot schedule" in shoal.get(parent.too_much.remote(), timeout=SOON_S)


def test_the_old_options_still_work():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    with pytest.warns(DeprecationWarning, match="PlacementGroupSchedulingStrategy"):
        old = where.options(placement_group=group, placement_group_bundle_index=1)
    assert shoal.get(old.remote(), timeout=SOON_S)[0] == group.id.hex()
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(ValueError, match="not by both"):
        where.options(placement_group=group, scheduling_strategy="SPREAD")
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(TypeError, match="takes a PlacementGroup"):
        where.options(placement_group="trainers")


def test_the_group_that_is_none():
    empty = PlacementGroup.empty()
    assert empty.is_empty
    assert empty.id.is_nil()
    assert empty.bundle_specs == []
    assert shoal.get(empty.ready(), timeout=SOON_S) == empty
    remove_placement_group(empty)
    assert shoal.get(where.options(scheduling_strategy=Inside(empty)).remote(), timeout=SOON_S)[0] is None


def test_removing_takes_a_group():
    with pytest.raises(TypeError, match="takes a PlacementGroup, not str"):
        remove_placement_group("x")


@pytest.mark.not_inline("a blocked task's CPU is a matter of processes")
def test_a_task_that_waits_in_its_group_lends_its_cpu_to_its_children():
    group = placement_group([{"CPU": 1}])

    @shoal.remote
    def parent(depth):
        return 0 if not depth else 1 + shoal.get(parent.remote(depth - 1))

    capturing = Inside(group, placement_group_capture_child_tasks=True)
    assert shoal.get(parent.options(scheduling_strategy=capturing).remote(4), timeout=SOON_S) == 4


def test_a_hundred_groups_come_and_go():
    groups = [placement_group([{"CPU": 0.01}]) for _ in range(100)]
    assert all(group.wait(SOON_S) for group in groups)
    for group in groups:
        remove_placement_group(group)
    eventually(lambda: "CPU" in shoal.available_resources() and len(shoal.cluster_resources()) < 10)


@pytest.mark.native_only("a session that starts by itself is a native one")
def test_a_group_starts_a_session_if_there_is_none():
    """As in Ray, where these functions connect by themselves."""
    shoal.shutdown()
    try:
        assert placement_group([{"CPU": 0.01}]).wait(SOON_S)
    finally:
        shoal.shutdown()
        shoal.init(num_cpus=2, object_store_memory=512 * 1024 * 1024)


@pytest.mark.native_only("inline does everything at the call: nothing can interleave")
@pytest.mark.parametrize("seed", [1, 2])
def test_groups_come_and_go_under_work_and_nothing_is_lost(seed):
    """Every task and call comes to a result or says that its group is gone; all resources come back."""
    rng, groups, refs = random.Random(seed), [], []
    total = shoal.available_resources()

    @shoal.remote(max_retries=-1)
    def work(seconds):
        time.sleep(seconds)
        if random.random() < 0.05:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    for step in range(120):
        kind = rng.random()
        if step % 10 == 9 and refs:
            shoal.wait(refs, num_returns=len(refs), timeout=0.1)
        if kind < 0.25 and len(groups) < 5:
            groups.append(placement_group([{"CPU": rng.choice([0.5, 1])} for _ in range(rng.randint(1, 2))]))
        elif kind < 0.35 and groups:
            remove_placement_group(groups.pop(rng.randrange(len(groups))))
        elif kind < 0.8 and groups:
            inside = Inside(rng.choice(groups), rng.choice([-1, 0]))
            refs.append(work.options(num_cpus=0.5, scheduling_strategy=inside).remote(rng.choice([0, 0, 0.01])))
        elif kind < 0.85 and groups:
            actor = Counter.options(num_cpus=0.5, scheduling_strategy=Inside(rng.choice(groups))).remote()
            refs.append(actor.add.remote())
        else:
            refs.append(work.options(num_cpus=rng.choice([0.5, 1])).remote(0))
    for group in groups:
        remove_placement_group(group)
    for ref in refs:
        with contextlib.suppress(TaskPlacementGroupRemoved, ActorPlacementGroupRemoved):
            assert shoal.get(ref, timeout=SOON_S) in ("done", 1)
    del actor
    eventually(lambda: shoal.available_resources() == total)
