"""`shoal.util.state` and `shoal.timeline`, on every engine."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

import shoal
from shoal.util import state
from shoal.util.state.exception import RayStateApiException

DEADLINE_S = 30
NO_SERVER = pytest.mark.not_on_ray("Ray's lists come from its API server, which `pip install ray` does not bring")


@shoal.remote
def add_one(x):
    return x + 1


@shoal.remote
def broken():
    raise KeyError("no")


@shoal.remote
def sleep(seconds):
    time.sleep(seconds)


@shoal.remote(max_retries=0)
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@shoal.remote(max_retries=1)
def die_once(path):
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@shoal.remote
class Counter:
    def up(self):
        return 1


def eventually(look):
    deadline = time.monotonic() + 5
    while not look():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


@NO_SERVER
def test_a_finished_task_is_listed_with_its_phases():
    ref = add_one.remote(1)
    assert shoal.get(ref, timeout=DEADLINE_S) == 2
    task = state.get_task(ref.task_id().hex())
    assert (task.state, task["name"], task.type, task.attempt_number) == ("FINISHED", "add_one", "NORMAL_TASK", 0)
    assert task.worker_pid > 0
    assert task.job_id == shoal.get_runtime_context().get_job_id()
    assert task.node_id == shoal.get_runtime_context().get_node_id()
    assert set(task.profiling_data) == {"task:deserialize_arguments", "task:execute", "task:store_outputs"}
    assert task.start_time_ms <= task.end_time_ms
    assert abs(task.end_time_ms / 1e3 - time.time()) < DEADLINE_S


@NO_SERVER
def test_a_failed_task_says_so():
    ref = broken.remote()
    with pytest.raises(KeyError):
        shoal.get(ref, timeout=DEADLINE_S)
    task = state.get_task(ref.task_id().hex())
    assert (task.state, task.error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")
    assert task.error_message == "raised KeyError"


@NO_SERVER
def test_a_task_behind_a_failed_argument_has_failed_too():
    ref = add_one.remote(broken.remote())
    with pytest.raises(KeyError):
        shoal.get(ref, timeout=DEADLINE_S)
    assert state.get_task(ref.task_id().hex()).state == "FAILED"


@pytest.mark.native_only("inline runs work before .remote() returns")
def test_running_and_waiting_tasks_are_listed():
    running = sleep.options(name="sleeper").remote(1.0)
    waiting = add_one.remote(running)
    eventually(lambda: state.get_task(running.task_id().hex()).state == "RUNNING")
    assert [task.name for task in state.list_tasks(filters=[("state", "=", "running")])] == ["sleeper"]
    task = state.get_task(waiting.task_id().hex())
    assert (task.state, task.required_resources, task.worker_id) == ("PENDING_ARGS_AVAIL", {"CPU": 1.0}, None)
    counts = state.summarize_tasks()["cluster"]["summary"]["sleeper"]
    assert counts == {"func_or_class_name": "sleeper", "type": "NORMAL_TASK", "state_counts": {"RUNNING": 1}}


@pytest.mark.native_only("kills its process")
def test_a_task_whose_worker_died_is_remembered_by_its_owner(tmp_path):
    ref = die.remote()
    with pytest.raises(shoal.exceptions.WorkerCrashedError):
        shoal.get(ref, timeout=DEADLINE_S)
    task = state.get_task(ref.task_id().hex())
    assert (task.state, task.error_type) == ("FAILED", "WORKER_DIED")
    again = die_once.remote(str(tmp_path / "died"))
    assert shoal.get(again, timeout=DEADLINE_S) == "lived"
    attempts = state.get_task(again.task_id().hex())
    assert [(task.attempt_number, task.state) for task in attempts] == [(0, "FAILED"), (1, "FINISHED")]


@NO_SERVER
def test_actors_are_listed_with_their_lives():
    actor = Counter.options(name="listed").remote()
    shoal.get(actor.up.remote(), timeout=DEADLINE_S)
    (row,) = state.list_actors(filters=[("name", "=", "Listed"), ("state", "=", "alive")])
    assert (row.class_name, row.actor_id, row.num_restarts) == ("Counter", actor._actor_id.hex(), None)
    assert row.pid > 0
    assert state.get_actor(row.actor_id).num_restarts == 0
    assert state.summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"]["ALIVE"] >= 1
    shoal.kill(actor)
    eventually(lambda: state.get_actor(row.actor_id).state == "DEAD")
    assert "killed by kill()" in state.get_actor(row.actor_id).death_cause


@NO_SERVER
def test_calls_and_creations_are_tasks_of_their_kinds():
    actor = Counter.remote()
    ref = actor.up.remote()
    shoal.get(ref, timeout=DEADLINE_S)
    call = state.get_task(ref.task_id().hex())
    assert (call.name, call.type, call.actor_id) == ("Counter.up", "ACTOR_TASK", actor._actor_id.hex())
    filters = [("type", "=", "ACTOR_CREATION_TASK"), ("actor_id", "=", actor._actor_id.hex())]
    assert [task.name for task in state.list_tasks(filters=filters)] == ["Counter.__init__"]


@NO_SERVER
def test_objects_are_listed_with_their_sizes():
    ref = shoal.put(b"x" * 1000)
    (row,) = state.get_objects(ref.hex())
    assert row.object_size >= 1000
    assert (row.task_status, row.reference_type, row.type, row.pid) == (
        "FINISHED", "LOCAL_REFERENCE", "DRIVER", os.getpid(),
    )  # fmt: skip
    assert ref.hex() in [row.object_id for row in state.list_objects(limit=10_000)]
    summary = state.summarize_objects()["cluster"]
    assert summary["total_objects"] >= 1
    assert summary["summary"]["disabled"]["ref_type_counts"]["LOCAL_REFERENCE"] >= 1
    del ref
    eventually(lambda: state.get_objects(row.object_id) == [])


def test_machines_and_groups_are_listed():
    (node,) = state.list_nodes()
    assert node.node_id == shoal.nodes()[0]["NodeID"]
    assert node.resources_total["CPU"] == 2
    assert state.get_node(node.node_id).state == "ALIVE"
    assert state.list_placement_groups() == []


@NO_SERVER
def test_processes_and_the_job_are_listed():
    drivers = state.list_workers(filters=[("worker_type", "=", "driver")])
    assert [driver.pid for driver in drivers] == [os.getpid()]
    assert state.get_worker(drivers[0].worker_id).is_alive
    (job,) = state.list_jobs()
    assert (job.type, job.status, job.driver_info["pid"]) == ("DRIVER", "RUNNING", os.getpid())
    assert state.get_job("00") is None


def test_questions_that_make_no_sense_are_refused():
    for ask in (
        lambda: state.list_tasks(filters=[("colour", "=", "red")]),
        lambda: state.list_actors(limit=10_001),
        lambda: state.list_objects(limit=0),
        lambda: state.list_nodes(address="http://elsewhere:8265"),
        lambda: state.get_task("no id"),
    ):
        with pytest.raises(RayStateApiException):
            ask()


@NO_SERVER
def test_details_are_told_only_when_they_are_asked_for():
    shoal.get(add_one.remote(1), timeout=DEADLINE_S)
    assert {task.end_time_ms for task in state.list_tasks(limit=5)} == {None}
    found = state.list_tasks(filters=[("state", "=", "FINISHED")], limit=5, detail=True)
    assert None not in {task.end_time_ms for task in found}


@pytest.mark.not_on_ray("Ray's events are Ray's: they name their task in an event of its own")
def test_the_timeline_is_chromes(tmp_path):
    ref = sleep.options(name="traced").remote(0.02)
    shoal.get(ref, timeout=DEADLINE_S)
    events = shoal.timeline()
    assert {event["ph"] for event in events} == {"X", "M"}
    names = {event["name"] for event in events if event["ph"] == "M"}
    assert names == {"process_name", "thread_name"}
    (traced,) = [event for event in events if event["name"] == "traced"]
    assert traced["cat"] == "task:execute"
    assert set(traced) == {"cat", "name", "pid", "tid", "ts", "dur", "ph", "cname", "args"}
    assert 20_000 <= traced["dur"] < 20_000_000
    assert set(traced["args"]) == {"task_id", "job_id", "attempt_number", "func_or_class_name", "actor_id"}
    assert traced["args"]["task_id"] == ref.task_id().hex()
    file = tmp_path / "trace.json"
    assert shoal.timeline(str(file)) is None
    assert len(json.loads(file.read_text())) >= len(events)


@pytest.mark.native_only("inline never waits for what runs")
def test_waits_are_in_the_timeline():
    shoal.get(sleep.remote(0.05), timeout=DEADLINE_S)
    shoal.wait([sleep.remote(0.05)], timeout=DEADLINE_S)
    found = {event["cat"] for event in shoal.timeline() if event["ph"] == "X" and event["tid"].startswith("driver:")}
    assert found == {"ray.get", "ray.wait"}


@pytest.mark.native_only("it stops a process")
def test_a_process_that_does_not_answer_is_named_and_not_waited_for():
    actor = Counter.remote()
    shoal.get(actor.up.remote(), timeout=DEADLINE_S)
    row = state.get_actor(actor._actor_id.hex())
    os.kill(row.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(RayStateApiException, match=row.worker_id):
            state.list_tasks()
        with pytest.warns(UserWarning, match=row.worker_id):
            assert state.list_tasks(raise_on_missing_output=False, timeout=0.2)
        assert time.monotonic() - begun < 5
        assert state.list_actors()  # the head knows these by itself
    finally:
        os.kill(row.pid, signal.SIGCONT)


@pytest.mark.native_only("workers leave")
def test_what_a_worker_did_is_known_when_it_has_left():
    actor = Counter.remote()
    ref = actor.up.remote()
    shoal.get(ref, timeout=DEADLINE_S)
    worker_id = state.get_actor(actor._actor_id.hex()).worker_id
    del actor
    eventually(lambda: not state.get_worker(worker_id).is_alive)
    assert state.get_worker(worker_id).exit_type == "INTENDED_SYSTEM_EXIT"
    assert state.get_task(ref.task_id().hex()).state == "FINISHED"


def test_without_a_session_there_is_nothing_to_ask(session):
    shoal.shutdown()
    try:
        for ask in (state.list_tasks, state.summarize_objects, shoal.timeline):
            with pytest.raises(shoal.exceptions.RaySystemError, match="not been started"):
                ask()
    finally:
        shoal.init(num_cpus=2, engine=session, address="local")
