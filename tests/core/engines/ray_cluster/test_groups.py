"""Placement groups, nodes and strategies on a Ray cluster of two nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import shoal
from shoal.util.placement_group import placement_group, placement_group_table, remove_placement_group
from shoal.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy as Inside
from shoal.util.state import list_nodes, list_placement_groups

pytestmark = pytest.mark.ray
SOON_S = 30


@pytest.fixture(scope="module", autouse=True)
def nodes() -> Iterator[list[str]]:
    """The ids of the nodes, the head's first; each has two CPUs, the second a label and a resource of its own."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 2, "object_store_memory": 80 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        second = cluster.add_node(**small, labels={"zone": "b"}, resources={"scale": 1})
        cluster.wait_for_nodes()
        with shoal.init(engine="ray", address=cluster.address):
            yield [cluster.head_node.node_id, second.node_id]
    finally:
        cluster.shutdown()


@shoal.remote
def where(seconds: float = 0.0) -> tuple[str, str | None]:
    time.sleep(seconds)
    context = shoal.get_runtime_context()
    return context.get_node_id(), context.get_placement_group_id()


def eventually(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < ends, "it has not come to hold in time"
        time.sleep(0.02)


def test_both_nodes_are_told(nodes):
    rows = {row["NodeID"]: row for row in shoal.nodes()}
    assert set(rows) == set(nodes)
    assert all(row["Alive"] and row["Resources"]["CPU"] == 2 and row["NodeManagerPort"] > 0 for row in rows.values())
    assert rows[nodes[1]]["Labels"]["zone"] == "b"
    assert shoal.cluster_resources()["CPU"] == 4
    assert shoal.cluster_resources()["scale"] == 1
    assert {row.node_id: row.is_head_node for row in list_nodes()} == {nodes[0]: True, nodes[1]: False}
    assert shoal.get_runtime_context().get_node_id() == nodes[0]


def test_a_group_is_spread_over_both_nodes(nodes):
    """The bundles together are more than either has."""
    group = placement_group([{"CPU": 2}, {"CPU": 2}], strategy="STRICT_SPREAD", name="both")
    assert group.wait(SOON_S)
    row = placement_group_table(group)
    assert set(row["bundles_to_node_id"].values()) == set(nodes)
    assert (row["state"], row["stats"]["scheduling_state"]) == ("CREATED", "FINISHED")
    for index in (0, 1):
        inside = where.options(scheduling_strategy=Inside(group, index))
        assert shoal.get(inside.remote(), timeout=SOON_S) == (row["bundles_to_node_id"][index], group.id.hex())
    (listed,) = list_placement_groups(filters=[("name", "=", "both")], detail=True)
    assert [bundle["node_id"] for bundle in listed.bundles] == [row["bundles_to_node_id"][index] for index in (0, 1)]
    remove_placement_group(group)
    eventually(lambda: placement_group_table(group)["state"] == "REMOVED")


def test_a_group_that_has_no_room_waits_and_its_table_says_why():
    group = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert not group.wait(0.5)
    row = placement_group_table(group)
    assert (row["state"], row["stats"]["scheduling_state"]) == ("PENDING", "INFEASIBLE")
    assert set(row["bundles_to_node_id"].values()) == {""}
    remove_placement_group(group)


def test_bundles_are_put_where_their_selectors_want(nodes):
    group = placement_group([{"CPU": 1}, {"CPU": 1}], bundle_label_selector=[{"zone": "b"}, {"zone": "!b"}])
    assert group.wait(SOON_S)
    assert placement_group_table(group)["bundles_to_node_id"] == {0: nodes[1], 1: nodes[0]}
    remove_placement_group(group)


def test_a_group_that_is_packed_strictly_takes_the_node_that_is_wished_for(nodes):
    for node in nodes:
        group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK", _soft_target_node_id=node)
        assert group.wait(SOON_S)
        assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {node}
        remove_placement_group(group)


def test_tasks_that_are_spread_land_on_both_nodes(nodes):
    spread = where.options(scheduling_strategy="SPREAD")
    found = shoal.get([spread.remote(0.3) for _ in range(8)], timeout=SOON_S)
    assert {node for node, _ in found} == set(nodes)


def test_tasks_go_to_the_node_of_their_affinity_and_of_their_labels(nodes):
    for node in nodes:
        affine = where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        assert shoal.get(affine.remote(), timeout=SOON_S) == (node, None)
    assert shoal.get(where.options(label_selector={"zone": "b"}).remote(), timeout=SOON_S)[0] == nodes[1]
    assert shoal.get(where.options(resources={"scale": 1}).remote(), timeout=SOON_S)[0] == nodes[1]


def test_what_ray_finds_of_groups_and_names_comes_out_as_shoals(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.exceptions

    from shoal.core.engines.ray_cluster import groups

    def fail(*args: object, **kwargs: object) -> None:
        raise ray.exceptions.RaySystemError("the head is busy")

    monkeypatch.setattr(groups, "placement_group", fail)
    monkeypatch.setattr(ray, "get_actor", fail)
    for ask in (lambda: placement_group([{"CPU": 1}]), lambda: shoal.get_actor("somebody")):
        with pytest.raises(shoal.exceptions.RaySystemError, match="the head is busy"):
            ask()
