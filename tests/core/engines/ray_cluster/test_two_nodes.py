"""PPO on two Ray nodes, each with room for one rollout worker: both work, and what is killed, worker or node, is
replaced.
"""

from __future__ import annotations

import os
import signal

import pytest

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig

pytestmark = pytest.mark.ray

SETTINGS = {"num_workers": 2, "num_envs": 4, "rollout_steps": 16, "num_epochs": 2, "minibatch_size": 32}
NODE = {"num_cpus": 1, "object_store_memory": 200 * 1024 * 1024}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, and a session on them."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        nodes.add_node(**NODE)
        nodes.wait_for_nodes(timeout=60)
        shoal.init(engine="ray", address=nodes.address, logging_level="warning")
        yield nodes
    finally:
        shoal.shutdown()
        nodes.shutdown()


@pytest.fixture
def algorithm(cluster):
    made = PPO(PPOConfig(hidden_sizes=(8,), device="cpu", **SETTINGS))
    yield made
    made.close()


def places(algorithm):
    """(node, pid) of each rollout worker."""
    asked = [
        actor.__ray_call__.remote(lambda _: (shoal.get_runtime_context().get_node_id(), os.getpid()))
        for actor in algorithm.workers._actors
    ]
    return shoal.get(asked, timeout=60)


def test_rollout_workers_run_on_both_nodes(cluster, algorithm):
    assert algorithm.step()["steps"] == 64
    nodes, pids = zip(*places(algorithm), strict=True)
    assert {*nodes} == {node.node_id for node in cluster.list_all_nodes()}
    assert len({*pids, os.getpid()}) == 3
    assert algorithm.step()["steps"] == 128


def test_a_killed_rollout_worker_is_replaced_and_no_sample_is_lost(cluster, algorithm):
    algorithm.step()
    (_, victim), (_, other) = places(algorithm)
    os.kill(victim, signal.SIGKILL)
    row = algorithm.step()
    assert (row["steps"], row["workers_replaced"]) == (128, 1)
    (_, replacement), (_, same) = places(algorithm)
    assert (same, replacement in {victim, other}) == (other, False)
    assert algorithm.step()["steps"] == 192


def test_when_a_node_dies_its_rollout_worker_is_replaced_on_another(cluster, algorithm):
    algorithm.step()
    (lost,) = cluster.worker_nodes
    assert lost.node_id in {node for node, _ in places(algorithm)}
    spare = cluster.add_node(**NODE)
    cluster.remove_node(lost, allow_graceful=False)
    row = algorithm.step()
    assert (row["steps"], row["workers_replaced"]) == (128, 1)
    assert {node for node, _ in places(algorithm)} == {cluster.head_node.node_id, spare.node_id}
    assert algorithm.step()["steps"] == 192
