"""What Ray tells of its tasks, actors and jobs, as shoal's rows. The API server that tells it is a stand-in here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import shoal
from shoal.exceptions import StateApiError
from shoal.util import metrics, state

pytestmark = pytest.mark.ray
SOON_S = 30
NODE, WORKER = "ab" * 28, "cd" * 28
TASK, ACTOR = "01" * 24, "02" * 16


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """A Ray without a dashboard."""
    shoal.init(engine="ray", address="local", num_cpus=2, object_store_memory=80 * 1024 * 1024, include_dashboard=False)
    yield
    shoal.shutdown()


def told(kind: str, **fields: Any) -> Any:
    """One of Ray's own rows; what is not given is None."""
    from ray.util.state import common

    made = getattr(common, kind)
    return made(**{**dict.fromkeys(made.__dataclass_fields__), **fields})


def attempt(**fields: Any) -> Any:
    given = {
        "task_id": TASK, "attempt_number": 0, "name": "train", "state": "FINISHED", "job_id": "01000000",
        "type": "NORMAL_TASK", "func_or_class_name": "train", "node_id": NODE, "worker_id": WORKER, "worker_pid": 7,
        "required_resources": {"CPU": 0.5}, "placement_group_id": "ef" * 18, "start_time_ms": 1000, "end_time_ms": 1500,
        "events": [{"state": "RUNNING", "created_ms": 1000.0}],
        "profiling_data": {
            "component_type": "worker",
            "events": [
                {"event_name": "task:execute", "start_time": 1000.1, "end_time": 1499.9, "extra_data": {}},
                {"event_name": "task::train", "start_time": 1000.0, "end_time": 1500.0, "extra_data": {}},
            ],
        },
    }  # fmt: skip
    return told("TaskState", **{**given, **fields})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers by the name of the list; `asked` holds the arguments of the last question."""
    from shoal.core.engines.ray_cluster import state as source

    answers: dict[str, Any] = {"asked": {}}

    def answer(name: str) -> Any:
        def ask(**arguments: Any) -> Any:
            answers["asked"] = arguments
            filters = arguments.get("filters") or ()
            return [row for row in answers[name] if all(getattr(row, key) == value for key, _, value in filters)]

        return ask

    lists = ("list_tasks", "list_actors", "list_objects", "list_workers", "list_jobs")
    standing_in = SimpleNamespace(**{name: answer(name) for name in lists})
    monkeypatch.setattr(source, "theirs", standing_in)
    monkeypatch.setattr(source, "_refuse_without_server", lambda: None)
    return answers


def test_tasks_are_those_that_ray_tells_of(server):
    server["list_tasks"] = [attempt(), attempt(task_id="03" * 24, state="FAILED", name="other")]
    (task,) = state.list_tasks(filters=[("state", "=", "finished")], detail=True)
    assert (task.name, task.node_id, task.worker_pid, task.job_id) == ("train", NODE, 7, "01000000")
    assert (task.required_resources, task.placement_group_id) == ({"CPU": 0.5}, "ef" * 18)
    assert task.profiling_data == {"task:execute": (1000.1, 1499.9)}
    assert task.events == [{"state": "RUNNING", "created_ms": 1000.0}]
    assert server["asked"]["address"] == shoal.get_runtime_context().gcs_address
    assert state.list_tasks()[0].end_time_ms is None


def test_attempts_at_one_task_are_in_order(server):
    later = attempt(attempt_number=1, start_time_ms=2000, end_time_ms=2500, worker_pid=8)
    server["list_tasks"] = [later, attempt(state="FAILED"), attempt(task_id="03" * 24)]
    first, second = state.get_task(TASK)
    assert [(first.attempt_number, first.state, first.worker_pid), (second.attempt_number, second.worker_pid)] == [
        (0, "FAILED", 7),
        (1, 8),
    ]


def test_a_task_that_has_not_run_is_on_no_node(server):
    server["list_tasks"] = [
        attempt(state="PENDING_NODE_ASSIGNMENT", node_id=None, worker_id=None, start_time_ms=None, end_time_ms=None)
    ]
    task = state.get_task(TASK)
    assert (task.state, task.node_id) == ("PENDING_NODE_ASSIGNMENT", None)
    assert state.summarize_tasks()["cluster"]["summary"]["train"]["state_counts"] == {"PENDING_NODE_ASSIGNMENT": 1}


def test_actors_say_what_they_died_of_and_where_they_were(server):
    cause = {"actor_died_error_context": {"error_message": "it was killed", "pid": 3}}
    server["list_actors"] = [
        told(
            "ActorState", actor_id=ACTOR, class_name="Counter", state="DEAD", job_id="01000000", name="", node_id=NODE,
            pid=0, ray_namespace="n", required_resources={"GPU": 1.0}, death_cause=cause, num_restarts=2,
        )
    ]  # fmt: skip
    actor = state.get_actor(ACTOR)
    assert (actor.death_cause, actor.node_id, actor.num_restarts) == ("it was killed", NODE, 2)
    assert actor.required_resources == {"GPU": 1.0}


def test_objects_workers_and_jobs_are_listed(server):
    server["list_objects"] = [
        told("ObjectState", object_id="05" * 28, object_size=10, task_status="FINISHED", pid=1, ip=ip, type="DRIVER")
        for ip in ("10.0.0.1", "10.0.0.2")
    ]
    server["list_workers"] = [
        told("WorkerState", worker_id=WORKER, is_alive=True, worker_type="DRIVER", node_id=NODE, ip="10.0.0.1", pid=5)
    ]
    server["list_jobs"] = [
        {"job_id": "01000000", "submission_id": None, "type": SimpleNamespace(value="DRIVER"), "entrypoint": "python x",
         "status": SimpleNamespace(value="RUNNING"),
         "driver_info": SimpleNamespace(id="01000000", node_ip_address="10.0.0.1", pid="5")}
    ]  # fmt: skip
    assert [row.object_size for row in state.get_objects("05" * 28)] == [10, 10]
    assert state.summarize_objects()["cluster"]["summary"]["disabled"]["total_num_nodes"] == 2
    assert state.get_worker(WORKER).pid == 5
    job = state.get_job("01000000")
    assert (job.type, job.status, job.entrypoint, job.driver_info["pid"]) == ("DRIVER", "RUNNING", "python x", 5)


def test_without_an_api_server_lists_say_what_to_start():
    ask = (state.list_tasks, state.list_actors, state.list_objects, state.list_workers, state.list_jobs)
    for one in (*ask, state.summarize_tasks, state.summarize_actors):
        with pytest.raises(StateApiError, match=r"API server.*pip install 'ray\[default\]'.*include_dashboard=True"):
            one()


def test_what_is_measured_is_handed_to_ray_and_not_summed_here():
    from shoal.core.observing.measures import MEASURES

    counter = metrics.Counter("on_ray", "served", tag_keys=("route",))
    counter.inc(2, tags={"route": "/"})
    metrics.Gauge("on_ray_level").set(3)
    metrics.Histogram("on_ray_size", boundaries=[1.0]).observe(0.5)
    made = {metric.info["name"]: metric.info for metric in MEASURES.exporter._made.values()}
    assert made["on_ray"]["tag_keys"] == ("route",)
    assert {"on_ray_level", "on_ray_size"} < set(made)
    with pytest.raises(StateApiError, match="Prometheus reads them"):
        metrics.snapshot()


def test_the_timeline_is_rays():
    @shoal.remote
    def traced() -> None:
        time.sleep(0.02)

    ref = traced.remote()
    shoal.get(ref, timeout=SOON_S)
    ends = time.monotonic() + SOON_S
    while not (found := [event for event in shoal.timeline() if event["args"].get("task_id") == ref.task_id().hex()]):
        assert time.monotonic() < ends, "workers tell once a second"
    assert found[0]["dur"] >= 20_000


def test_named_actors_and_the_address_of_the_node_are_told_without_an_api_server():
    @shoal.remote(num_cpus=0)
    class Named:
        def ready(self) -> str:
            return shoal.util.get_node_ip_address()

    here = shoal.get_runtime_context().namespace
    actors = [Named.options(name="one").remote(), Named.options(name="two", namespace="there").remote()]
    address = shoal.nodes()[0]["NodeManagerAddress"]
    assert shoal.get([actor.ready.remote() for actor in actors], timeout=60) == [address, address]
    assert shoal.util.get_node_ip_address() == address
    assert shoal.util.list_named_actors() == ["one"]
    assert sorted(shoal.util.list_named_actors(all_namespaces=True), key=lambda row: row["name"]) == [
        {"name": "one", "namespace": here},
        {"name": "two", "namespace": "there"},
    ]
