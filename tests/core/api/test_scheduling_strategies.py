"""Where work runs, as far as one node goes: strategies, label selectors, resources that a node has by its name.

What the node fulfils runs; what it never will is an error at ``get``, at once. (In Ray most of the latter waits for
ever; hard affinity to an unknown node is the exception.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shoal
from shoal.exceptions import ActorUnschedulableError, TaskUnschedulableError
from shoal.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

SOON_S = 20
UNKNOWN = "ab" * 12


@pytest.fixture(scope="module", autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session whose node has labels and more resources than others."""
    shoal.init(
        num_cpus=2,
        resources={"custom": 2},
        labels={"zone": "a", "example.com/kind": "spot"},
        object_store_memory=80 * 1024 * 1024,
        engine=request.param,
        address="local",
    )
    yield request.param
    shoal.shutdown()


@shoal.remote
def held() -> dict[str, float]:
    return shoal.get_runtime_context().get_assigned_resources()


@shoal.remote
class Actor:
    def held(self) -> dict[str, float]:
        return shoal.get_runtime_context().get_assigned_resources()


Run = Callable[..., str]


@pytest.fixture
def run_both(session: str) -> Run:
    """Runs a task and an actor with these options: "" when both ran, else why not. Both must fail alike.

    On a Ray cluster what will never run waits, and is ended after a moment.
    """

    def run(**options: Any) -> str:
        task, actor = held.options(**options).remote(), Actor.options(**options).remote()
        try:
            shoal.get(task, timeout=SOON_S)
        except TaskUnschedulableError as error:
            with pytest.raises(ActorUnschedulableError):
                shoal.get(actor.held.remote(), timeout=SOON_S)
            return str(error)
        shoal.get(actor.held.remote(), timeout=SOON_S)
        return ""

    def run_on_ray(*, never: bool = False, **options: Any) -> str:
        if not never:
            return run(**options)
        task, actor = held.options(**options).remote(), Actor.options(**options).remote()
        waiting = [task, actor.held.remote()]
        assert shoal.wait(waiting, num_returns=1, timeout=1)[0] == []
        shoal.cancel(task)
        shoal.kill(actor)
        return "it waits"

    return run_on_ray if session == "ray" else lambda never=False, **options: run(**options)


def test_labels_of_the_node_are_seen():
    node = shoal.get_runtime_context().get_node_id()
    labels = {"zone": "a", "example.com/kind": "spot", "ray.io/node-id": node}
    assert labels.items() <= shoal.get_runtime_context().get_node_labels().items()
    assert labels.items() <= shoal.nodes()[0]["Labels"].items()

    @shoal.remote
    def inside():
        return shoal.get_runtime_context().get_node_labels()

    assert shoal.get(inside.remote(), timeout=SOON_S) == shoal.get_runtime_context().get_node_labels()


@pytest.mark.parametrize("strategy", ["DEFAULT", "SPREAD", None])
def test_strategies_that_leave_the_choice(strategy, run_both):
    assert run_both(scheduling_strategy=strategy) == ""


@pytest.mark.parametrize("strategy", ["default", "PACK", ""])
def test_an_unknown_strategy_is_refused(strategy):
    with pytest.raises(ValueError, match="invalid scheduling_strategy"):
        held.options(scheduling_strategy=strategy)


def test_a_strategy_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError, match="scheduling_strategy must be"):
        held.options(scheduling_strategy=3)
    with pytest.raises(TypeError, match="scheduling_strategy must be"):
        shoal.remote(scheduling_strategy=In("a"))(lambda: 1)


def test_affinity_to_this_node(run_both):
    node = shoal.nodes()[0]["NodeID"]
    for soft in (True, False):
        assert run_both(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=soft)) == ""
    assert run_both(scheduling_strategy=NodeAffinitySchedulingStrategy(bytes.fromhex(node), soft=False)) == ""


def test_affinity_to_a_node_that_is_not_there(run_both, session):
    """Its id has the length of Ray's."""
    node = "cd" * 28
    why = run_both(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
    ours = f"held() can never run: it needs a node with label ray.io/node-id in ({node})"
    assert why.startswith("The task is not schedulable" if session == "ray" else ours)
    soft = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
    assert run_both(scheduling_strategy=soft) == ""


@pytest.mark.not_on_ray("ids of nodes have 28 bytes there, and Ray refuses others at the call")
def test_affinity_to_a_node_of_this_length_of_id_that_is_not_there(run_both):
    hard = NodeAffinitySchedulingStrategy(UNKNOWN, soft=False)
    assert f"label ray.io/node-id in ({UNKNOWN})" in run_both(scheduling_strategy=hard)
    assert run_both(scheduling_strategy=NodeAffinitySchedulingStrategy(UNKNOWN, soft=True)) == ""


@pytest.mark.parametrize("node", ["", "zz", "ab", "ff" * 12, "ff" * 28, "ab" * 13])
def test_what_cannot_be_the_id_of_a_node_is_refused(node):
    with pytest.raises(ValueError, match="invalid node_id"):
        NodeAffinitySchedulingStrategy(node, soft=False)


def test_private_arguments_of_affinity():
    with pytest.raises(ValueError, match="needs soft=True"):
        NodeAffinitySchedulingStrategy(UNKNOWN, soft=False, _spill_on_unavailable=True)
    with pytest.raises(ValueError, match="needs soft=False"):
        NodeAffinitySchedulingStrategy(UNKNOWN, soft=True, _fail_on_unavailable=True)
    with pytest.raises(NotImplementedError, match="_fail_on_unavailable"):
        NodeAffinitySchedulingStrategy(UNKNOWN, soft=False, _fail_on_unavailable=True)


@pytest.mark.parametrize(
    ("hard", "runs"),
    [
        ({"zone": In("a", "b")}, True),
        ({"zone": In("b")}, False),
        ({"zone": NotIn("b")}, True),
        ({"zone": NotIn("a")}, False),
        ({"none": NotIn("a")}, True),
        ({"zone": Exists()}, True),
        ({"none": Exists()}, False),
        ({"none": DoesNotExist()}, True),
        ({"zone": DoesNotExist()}, False),
        ({"zone": In("a"), "none": Exists()}, False),
    ],
)
def test_labels_that_a_node_must_have(hard, runs, run_both):
    """Each was tried on Ray 2.60, where those that do not run wait for ever."""
    assert (run_both(scheduling_strategy=NodeLabelSchedulingStrategy(hard), never=not runs) == "") == runs


def test_labels_that_a_node_should_have(run_both):
    assert run_both(scheduling_strategy=NodeLabelSchedulingStrategy({}, soft={"zone": In("elsewhere")})) == ""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NodeLabelSchedulingStrategy({}), "cannot both be empty"),
        (lambda: NodeLabelSchedulingStrategy(["zone"]), "dict"),
        (lambda: NodeLabelSchedulingStrategy({1: Exists()}), "string"),
        (lambda: NodeLabelSchedulingStrategy({"zone": "a"}), "In, NotIn"),
        (lambda: In(), "needs values"),
        (lambda: NotIn(1), "strings"),
    ],
)
def test_wrong_labels_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("selector", "runs"),
    [({"zone": "a"}, True), ({"zone": "!a"}, False), ({"zone": "in(b,c)", "none": "!x"}, False), ({}, True)],
)
def test_selectors(selector, runs, run_both):
    assert (run_both(label_selector=selector, never=not runs) == "") == runs


def test_fallbacks_are_other_nodes_that_will_do(run_both, session):
    elsewhere = {"zone": "b"}
    assert run_both(label_selector=elsewhere, fallback_strategy=[{"label_selector": {"zone": "a"}}]) == ""
    why = run_both(label_selector=elsewhere, fallback_strategy=[{"label_selector": {"zone": "c"}}], never=True)
    assert ("it waits" if session == "ray" else "zone in (b) or zone in (c); the only node has zone=a") in why


def test_wrong_selectors_are_refused():
    with pytest.raises(TypeError, match="label_selector must be a dict"):
        held.options(label_selector=["zone"])
    with pytest.raises(ValueError, match=r"label_selector\['zone'\]"):
        Actor.options(label_selector={"zone": "-"})
    with pytest.raises(ValueError, match="fallback_strategy knows only"):
        held.options(fallback_strategy=[{"memory": 1}])


def test_a_node_can_be_asked_for_by_its_resources():
    """Ray programs tie work to a node so; the address is the one that nodes() tells."""
    address = shoal.nodes()[0]["NodeManagerAddress"]
    options = held.options(resources={f"node:{address}": 0.01, "node:__internal_head__": 0.001})
    assert shoal.get(options.remote(), timeout=SOON_S)[f"node:{address}"] == 0.01


@pytest.mark.not_on_ray("a cluster may grow, so Ray lets work wait for what it has not")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_cpus": 3}, "needs CPU 3, this machine has CPU 2 in all"),
        ({"num_gpus": 1}, "needs GPU 1, this machine has GPU 0 in all"),
        ({"resources": {"custom": 2.5, "other": 1}}, "custom 2.5, other 1, this machine has custom 2, other 0"),
        ({"memory": 10**15}, "needs memory 1000000000000000"),
        ({"accelerator_type": "H200"}, "needs accelerator_type:H200 0.001"),
        ({"resources": {"node:10.9.8.7": 0.01}}, "this machine has node:10.9.8.7 0 in all"),
    ],
)
def test_what_this_machine_can_never_give_is_an_error_at_once(options, words, run_both):
    before = time.monotonic()
    assert words in run_both(**options)
    assert time.monotonic() - before < 5


def test_what_work_holds():
    assert shoal.get(held.remote(), timeout=SOON_S) == {"CPU": 1.0}
    some = held.options(num_cpus=0.5, memory=1000, resources={"custom": 1})
    assert shoal.get(some.remote(), timeout=SOON_S) == {"CPU": 0.5, "memory": 1000.0, "custom": 1.0}
    assert shoal.get(held.options(num_cpus=0).remote(), timeout=SOON_S) == {}
    with pytest.raises(RuntimeError, match="driver"):
        shoal.get_runtime_context().get_assigned_resources()


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({}, {}),
        ({"num_cpus": 1}, {"CPU": 1.0}),
        ({"num_cpus": 0}, {}),
        ({"resources": {"custom": 1}}, {"CPU": 1.0, "custom": 1.0}),
        ({"memory": 1000}, {"memory": 1000.0}),
        ({"resources": {}}, {}),
        ({"num_gpus": 0}, {"CPU": 1.0}),
    ],
)
def test_what_actors_hold(options, holds):
    """Ray's rule: a CPU to be placed and none later, unless some resource is given; memory is none in this."""
    assert shoal.get(Actor.options(**options).remote().held.remote(), timeout=SOON_S) == holds


def test_object_store_memory_is_an_old_option_of_actors():
    with pytest.raises(ValueError, match="object_store_memory cannot be set for tasks"):
        held.options(object_store_memory=1000)
    with pytest.warns(DeprecationWarning, match="object_store_memory"):
        actor = Actor.options(object_store_memory=1000)
    assert shoal.get(actor.remote().held.remote(), timeout=SOON_S) == {"object_store_memory": 1000.0}


def test_the_store_is_a_resource_of_the_node():
    assert shoal.cluster_resources()["object_store_memory"] == 80 * 1024 * 1024


@pytest.mark.parametrize(
    ("labels", "error"), [(["a"], TypeError), ({"a": 1}, TypeError), ({"-": "a"}, ValueError), ({"a": "-"}, ValueError)]
)
def test_wrong_labels_of_init_are_refused(labels, error, session):
    shoal.shutdown()
    try:
        with pytest.raises(error, match="label"):
            shoal.init(num_cpus=1, labels=labels, engine=session, address="local")
        assert not shoal.is_initialized()
    finally:
        shoal.shutdown()
        shoal.init(
            num_cpus=2,
            resources={"custom": 2},
            labels={"zone": "a", "example.com/kind": "spot"},
            object_store_memory=80 * 1024 * 1024,
            engine=session,
            address="local",
        )
