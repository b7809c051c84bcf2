"""What a ref waits for, in words, by the state of its task. No cluster is needed, but ray is."""

from __future__ import annotations

import pytest

from shoal.core.engines.base import NodeDescription, Stock

pytestmark = pytest.mark.ray
BIG = NodeDescription(b"b", "10.0.0.2", "big", {"CPU": 80_000}, {})
SMALL = NodeDescription(b"s", "10.0.0.1", "small", {"CPU": 20_000}, {})
DEAD = NodeDescription(b"d", "10.0.0.3", "dead", {"CPU": 990_000}, {}, is_alive=False)


def said(where: str, needs: int = 10_000, free: int = 0, **more: object) -> str:
    from shoal.core.engines.ray_cluster.reasons import reason

    task = {"name": "train", "state": where, "required_resources": {"CPU": needs}, **more}
    return reason(task, Stock({"CPU": 100_000}, {"CPU": free}), [SMALL, BIG, DEAD], now_ms=5_000.0)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("PENDING_ARGS_AVAIL", "train() waits for its arguments"),
        ("PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY", "train() waits at its actor for its turn"),
        ("SUBMITTED_TO_WORKER", "train() is on its way to a worker"),
        ("SOMETHING_NEW", "train() is in the state SOMETHING_NEW"),
    ],
)
def test_states_in_words(where, words):
    assert said(where) == words


def test_what_runs_says_where_and_since_when():
    assert said("RUNNING", worker_pid=7, start_time_ms=3_500) == "train() runs on pid 7 since 1.5 s"
    waits = said("RUNNING_IN_RAY_GET", worker_pid=7, start_time_ms=3_500)
    assert waits == "train() runs on pid 7 since 1.5 s and waits in get"


def test_what_waits_for_resources_says_for_which():
    queue = "train() waits in the queue: "
    assert said("PENDING_NODE_ASSIGNMENT", free=5_000) == f"{queue}it needs CPU 1, the cluster has CPU 0.5 free"
    never = said("PENDING_NODE_ASSIGNMENT", needs=90_000)
    assert never.startswith(f"{queue}it needs CPU 9, the largest node of the cluster has CPU 8: it waits until a node")
    apart = said("PENDING_NODE_ASSIGNMENT", needs=60_000, free=70_000)
    assert apart.endswith("waits for a worker to start, or for a node that has all of it free")
