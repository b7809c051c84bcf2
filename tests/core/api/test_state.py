"""What programs can learn about where they run and what there is."""

from __future__ import annotations

import re
import time

import pytest

import shoal
from shoal import exceptions

DEADLINE_S = 30


@shoal.remote
def whereabouts():
    context = shoal.get_runtime_context()
    return (
        context.get_task_id(),
        context.get_actor_id(),
        context.get_worker_id(),
        context.get_node_id(),
        context.get_task_name(),
    )


@shoal.remote
def namespace():
    return shoal.get_runtime_context().namespace


@shoal.remote
class Actor:
    def whereabouts(self):
        context = shoal.get_runtime_context()
        return context.get_actor_id(), context.get_task_name(), context.get_job_id()


def test_resources_are_taken_and_come_back():
    assert shoal.cluster_resources()["CPU"] == 2
    (node,) = shoal.nodes()
    assert node["Alive"]
    assert {
        "AliveSubState", "DeathReason", "DeathReasonMessage", "Labels", "MetricsExportPort", "NodeManagerAddress",
        "NodeManagerHostname", "NodeManagerPort", "NodeName", "ObjectManagerPort", "ObjectStoreSocketName",
        "RayletSocketName", "RuntimeEnvAgentPort", "alive",
    } < set(node)  # fmt: skip
    assert node["Resources"]["CPU"] == 2
    actor = Actor.options(num_cpus=2).remote()
    shoal.get(actor.whereabouts.remote(), timeout=DEADLINE_S)
    assert "CPU" not in shoal.available_resources()
    del actor
    deadline = time.monotonic() + 5
    while shoal.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_task_knows_itself_and_its_node():
    ref = whereabouts.remote()
    task_id, actor_id, worker_id, node_id, name = shoal.get(ref, timeout=DEADLINE_S)
    assert task_id == ref.task_id().hex()
    assert actor_id is None
    assert name == "whereabouts"
    here = shoal.get_runtime_context()
    assert node_id == here.get_node_id() == shoal.nodes()[0]["NodeID"]
    assert worker_id != here.get_worker_id()
    assert here.get_task_id() is None
    assert here.namespace == shoal.get(namespace.remote(), timeout=DEADLINE_S)


def test_an_actor_knows_itself():
    actor = Actor.remote()
    actor_id, name, job_id = shoal.get(actor.whereabouts.remote(), timeout=DEADLINE_S)
    assert actor_id == actor._actor_id.hex()
    assert name == "Actor.whereabouts"
    assert job_id == shoal.get_runtime_context().get_job_id()


def test_without_a_session_there_is_nothing_to_describe(session):
    shoal.shutdown()
    try:
        for ask in (shoal.nodes, shoal.cluster_resources, shoal.available_resources):
            with pytest.raises(exceptions.RaySystemError, match="not been started"):
                ask()
    finally:
        shoal.init(num_cpus=2, engine=session, address="local")


@shoal.remote(num_cpus=0)
class Whole:
    def get(self):
        return shoal.get_runtime_context().get()


def test_ids_as_objects_as_old_programs_want_them():
    here = shoal.get_runtime_context()
    assert set(here.get()) == {"job_id", "node_id", "namespace"}
    assert (here.job_id.hex(), here.node_id.hex()) == (here.get_job_id(), here.get_node_id())
    assert here.task_id is here.actor_id is None
    assert re.fullmatch(r"[\d.]+:\d+", here.gcs_address)
    actor = Whole.remote()
    there = shoal.get(actor.get.remote(), timeout=DEADLINE_S)
    assert there["actor_id"] == actor._actor_id
    assert isinstance(there["task_id"], shoal.TaskID)
    assert there["namespace"] == here.namespace
