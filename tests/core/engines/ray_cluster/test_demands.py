"""Which demands no machine of a cluster can meet, and that somebody who waits hears of them."""

from __future__ import annotations

import pytest

import shoal
from shoal.core.engines.base import NodeDescription
from shoal.core.engines.ray_cluster.demands import Demands, unmet
from shoal.core.options import Destination
from shoal.core.resources import ResourceSet
from shoal.core.scheduling import bundles
from shoal.core.scheduling.labels import NodeRule, parse_selector

CPU = 10_000


def node(*, alive=True, labels=None, **total):
    return NodeDescription(
        node_id=b"n", address="10.0.0.1", hostname="n", total={name: amount * CPU for name, amount in total.items()},
        labels=labels or {}, is_alive=alive, is_head=False,
    )  # fmt: skip


def rule(**selector):
    return NodeRule((parse_selector(selector),))


@pytest.mark.parametrize(
    ("wanted", "where", "missing"),
    [
        ({"CPU": 4}, None, ""),
        ({"CPU": 4, "GPU": 1}, None, "needs CPU 4, GPU 1, and no node of the cluster has it all"),
        ({"CPU": 9}, None, "needs CPU 9, the largest node of the cluster has CPU 4"),
        ({"TPU": 1}, None, "needs TPU 1, the largest node of the cluster has TPU 0"),
        ({"GPU": 1}, rule(zone="a"), "needs GPU 1, the largest node of the cluster has GPU 0"),
        ({"CPU": 1}, rule(zone="b"), "needs a node with label zone in (b), and the cluster has none"),
        ({"CPU": 1}, rule(zone="!a"), ""),
    ],
)
def test_a_demand_is_held_against_every_node(wanted, where, missing):
    nodes = [node(CPU=4, labels={"zone": "a"}), node(CPU=1, GPU=2)]
    demand = ResourceSet({name: amount * CPU for name, amount in wanted.items()})
    assert unmet(demand, where, nodes) == missing


def test_who_waits_is_told_once_of_each_demand_that_only_dead_nodes_could_meet(capsys):
    demands = Demands(lambda: [node(CPU=2), node(alive=False, CPU=64)])
    demands.ask("add()", {"CPU": 64 * CPU}, Destination())
    demands.ask("small()", {"CPU": CPU}, Destination())
    demands.tell("get")
    demands.tell("get")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("shoal: get has been waiting for 5 s: add() needs CPU 64, the largest node of the cluster")


def test_what_runs_in_a_placement_group_is_the_groups_matter(capsys):
    demands = Demands(lambda: [node(CPU=2)])
    demands.ask("add()", bundles.inside({"CPU": 64 * CPU}, "ab" * 18), Destination())
    demands.tell("wait")
    assert capsys.readouterr().err == ""


def test_two_threads_that_wait_for_the_same_tell_of_it_once(capsys):
    class LookedAtByAnother:
        """A node; while one thread looks at it, another tells of the same demands."""

        is_alive, seen = True, False

        @property
        def total(self):
            if not self.seen:
                self.seen = True
                demands.tell("wait")
            return {"CPU": 2 * CPU}

    machine = LookedAtByAnother()
    demands = Demands(lambda: [machine])
    demands.ask("add()", {"CPU": 64 * CPU}, Destination())
    demands.tell("get")
    assert capsys.readouterr().err.count("add() needs CPU 64") == 1


@pytest.mark.parametrize(
    ("notice_s", "timeout_s", "first", "then"),
    [(5.0, None, 5.0, None), (5.0, 7.0, 5.0, 2.0), (5.0, 3.0, 3.0, 0.0), (0.0, None, None, 0.0), (0.0, 7.0, 7.0, 0.0)],
)
def test_nobody_is_told_before_the_notice_is_due_or_where_it_is_off(notice_s, timeout_s, first, then):
    demands = Demands(list)
    demands.notice_s = notice_s
    assert demands.patience(timeout_s) == (first, then)


@pytest.mark.ray
def test_on_a_cluster_that_has_not_enough_work_waits_and_who_waits_for_it_is_told(monkeypatch, capsys):
    monkeypatch.setenv("SHOAL_NOTICE_S", "0.3")

    @shoal.remote
    def add(a, b):
        return a + b

    @shoal.remote
    class Counter:
        def count(self):
            return 1

    with shoal.init(engine="ray", address="local", num_cpus=1, object_store_memory=100_000_000):
        task, actor = add.options(num_cpus=64).remote(1, 2), Counter.options(resources={"moon": 1}).remote()
        with pytest.raises(shoal.exceptions.GetTimeoutError, match=r"not ready within 0\.6 s"):
            shoal.get(task, timeout=0.6)
        assert shoal.wait([actor.count.remote()], timeout=0.6)[0] == []
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shoal: ")]
    assert len(said) == 2
    assert "add() needs CPU 64, the largest node of the cluster has CPU 1" in said[0]
    assert "actor Counter needs moon 1, the largest node of the cluster has moon 0" in said[1]
