"""Which GPUs work gets, and what it sees of them. The GPUs are names: no device is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

import shoal
from shoal.util.placement_group import placement_group, remove_placement_group
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Inside

SOON_S = 20


@pytest.fixture(scope="module", autouse=True)
def session(request: pytest.FixtureRequest) -> str:
    """The engine; `_three_gpus` makes the sessions."""
    return request.param


@pytest.fixture(autouse=True)
def _three_gpus(session: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session of its own for each test, whose three GPUs the environment names: what is given depends on the past."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    shoal.init(num_cpus=4, num_gpus=3, object_store_memory=80 * 1024 * 1024, engine=session, address="local")
    yield
    shoal.shutdown()


def look():
    context = shoal.get_runtime_context()
    return shoal.get_gpu_ids(), context.get_accelerator_ids()["GPU"], os.environ.get("CUDA_VISIBLE_DEVICES")


@shoal.remote
def see():
    return look()


@shoal.remote
class Seer:
    def see(self):
        return look()

    def pid(self):
        return os.getpid()


def got(ref):
    return shoal.get(ref, timeout=SOON_S)


def several(ref, session):
    """The ids, which all places tell alike; in order, but on Ray 2.60, where it is that of a set."""
    ids, accelerators, visible = got(ref)
    assert ids == accelerators
    assert visible == ",".join(ids)
    return sorted(ids) if session == "ray" else ids


def test_the_named_gpus_are_given_in_order_and_left_alone_without_need(session):
    assert got(see.options(num_gpus=1).remote()) == (["3"], ["3"], "3")
    assert several(see.options(num_gpus=3).remote(), session) == ["3", "5", "7"]
    assert got(see.remote()) == ([], [], "3,5,7")
    assert got(see.options(num_gpus=0).remote()) == ([], [], "3,5,7")
    assert look() == ([], [], "3,5,7"), "a driver has none"


def test_gpus_without_names_are_numbers(session, monkeypatch):
    shoal.shutdown()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    shoal.init(num_cpus=2, num_gpus=2, object_store_memory=80 * 1024 * 1024, engine=session, address="local")
    assert got(see.options(num_gpus=2).remote()) == ([0, 1], ["0", "1"], "0,1")
    assert got(see.remote()) == ([], [], None)


def test_the_variable_can_be_left_alone(session, monkeypatch):
    """Ray's RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES: libraries choose their devices by get_gpu_ids()."""
    shoal.shutdown()
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    shoal.init(num_cpus=2, object_store_memory=80 * 1024 * 1024, num_gpus=3, engine=session, address="local")
    ids, accelerators, variable = got(see.options(num_gpus=2).remote())
    assert (sorted(ids), accelerators, variable) == (["3", "5"], ids, "3,5,7")


@pytest.mark.not_inline("inline sets the variable around work that has GPUs, and never else")
def test_work_without_gpus_can_be_made_to_see_none(session, monkeypatch):
    """Ray's RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, its older behaviour."""
    shoal.shutdown()
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    shoal.init(num_cpus=2, object_store_memory=80 * 1024 * 1024, num_gpus=3, engine=session, address="local")
    assert got(see.remote()) == ([], [], "")


def test_actors_keep_theirs_as_long_as_they_live():
    # One after the other: Ray starts actors at once, and the one that is up first has the first GPU.
    first = Seer.options(num_gpus=1).remote()
    assert got(first.see.remote()) == (["3"], ["3"], "3")
    second = Seer.options(num_gpus=1).remote()
    assert got(second.see.remote()) == (["5"], ["5"], "5")
    assert got(see.options(num_gpus=1).remote()) == (["7"], ["7"], "7")
    assert got(first.see.remote()) == (["3"], ["3"], "3")
    shoal.kill(first)
    third = Seer.options(num_gpus=1).remote()
    assert got(third.see.remote())[0] in (["3"], ["7"])


def test_fractions_share_a_gpu_and_leave_the_others_whole(session):
    halves = [Seer.options(num_gpus=0.5).remote() for _ in range(2)]
    assert [got(actor.see.remote())[0] for actor in halves] == [["3"], ["3"]]
    whole = Seer.options(num_gpus=2).remote()
    assert several(whole.see.remote(), session) == ["5", "7"]


def test_a_gpu_and_a_half_is_refused():
    with pytest.raises(ValueError, match="whole GPUs"):
        see.options(num_gpus=1.5)


def test_work_in_a_group_has_the_gpus_of_its_bundle(session):
    group = placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 2}])
    assert group.wait(SOON_S)
    inside = see.options(num_gpus=1, scheduling_strategy=Inside(group, 0))
    assert got(inside.remote()) == (["3"], ["3"], "3")
    both = see.options(num_gpus=2, scheduling_strategy=Inside(group))
    assert several(both.remote(), session) == ["5", "7"]
    assert got(see.options(scheduling_strategy=Inside(group)).remote()) == ([], [], "3,5,7")
    remove_placement_group(group)


@pytest.mark.native_only("its subject is which process work runs in")
def test_a_process_that_has_had_gpus_is_not_used_for_others():
    """CUDA reads the variable once; a process that has had other work may have made it do so."""

    @shoal.remote
    def pid() -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    seen: dict[int, set[str | None]] = {}
    for options in ({"num_gpus": 1}, {"num_gpus": 2}, {}, {"num_gpus": 0.5}, {}, {"num_gpus": 3}):
        for process, visible in got([pid.options(**options).remote() for _ in range(4)]):
            seen.setdefault(process, set()).add(visible)
    assert all(len(visible) == 1 for visible in seen.values()), seen


@pytest.mark.native_only("its subject is which process work runs in")
def test_a_function_that_says_it_needs_a_gpu_ends_its_process():
    """Ray's rule, for functions that say so with the decorator: else the GPU's memory would stay taken."""

    @shoal.remote(num_gpus=1)
    def pid():
        return os.getpid()

    @shoal.remote(num_gpus=3, max_calls=0)
    def staying():
        return os.getpid()

    assert len({got(pid.remote()) for _ in range(3)}) == 3
    assert len(set(got([staying.remote() for _ in range(3)]))) == 1


@pytest.mark.native_only("its subject is a process that owns something")
def test_a_process_that_has_had_gpus_lives_as_long_as_something_is_needed_that_it_owns():
    @shoal.remote(num_gpus=1)
    def make():
        return [shoal.put("mine")], os.getpid()

    (ref,), process = got(make.remote())
    ends = time.monotonic() + 3.5  # longer than it takes an idle lease to be returned, and a worker to be asked twice
    while time.monotonic() < ends:
        assert shoal.get(ref, timeout=SOON_S) == "mine"
        time.sleep(0.1)
    del ref
    while os.path.exists(f"/proc/{process}"):
        assert time.monotonic() < ends + SOON_S
        time.sleep(0.05)


def test_more_than_the_environment_shows_is_refused(session):
    shoal.shutdown()
    with pytest.raises(ValueError, match=r"4.* but CUDA_VISIBLE_DEVICES.*'3"):
        shoal.init(num_cpus=1, num_gpus=4, engine=session, address="local")


def test_gpus_are_counted_like_everything_else():
    holder = Seer.options(num_gpus=2).remote()
    got(holder.see.remote())
    assert shoal.cluster_resources()["GPU"] == 3
    ends = time.monotonic() + SOON_S
    while shoal.available_resources()["GPU"] != 1:  # Ray's account lags by 100 ms
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.not_on_ray("a cluster may grow, so Ray lets work wait for what it has not")
def test_more_gpus_than_there_are_is_an_error_at_once():
    with pytest.raises(shoal.exceptions.TaskUnschedulableError, match="needs GPU 4, this machine has GPU 3"):
        got(see.options(num_gpus=4).remote())
