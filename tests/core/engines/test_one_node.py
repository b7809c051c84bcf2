"""What can never be on one machine, and how its groups and its job are told."""

from __future__ import annotations

import pytest

from shoal.core.engines import one_node
from shoal.core.errors import UnschedulableError

MACHINE = {"total": {"CPU": 20_000, "GPU": 10_000}, "labels": {"zone": "a"}}


def check(*bundles, strategy="PACK", selectors=()):
    one_node.check_group(bundles, strategy=strategy, selectors=selectors, **MACHINE)


def test_what_an_empty_machine_could_hold_passes():
    check({"CPU": 10_000}, {"CPU": 10_000, "GPU": 5_000}, {"GPU": 5_000}, strategy="SPREAD")
    check({"CPU": 20_000}, strategy="STRICT_SPREAD", selectors=[{"zone": "a"}])
    check({"CPU": 10_000}, {"CPU": 10_000}, selectors=[{}, {"zone": "!b"}])


@pytest.mark.parametrize(
    ("bundles", "how", "words"),
    [
        ([{"CPU": 20_000}, {"CPU": 1}], {}, "needs CPU 2.0001, this machine has CPU 2 in all"),
        ([{"CPU": 1}] * 2, {"strategy": "STRICT_SPREAD"}, "each of the 2 bundles on a node of its own"),
        ([{"CPU": 1}], {"selectors": [{"zone": "b"}]}, r"bundle 0 .*zone in \(b\)"),
    ],
)
def test_what_it_could_not_is_refused_with_the_reason(bundles, how, words):
    with pytest.raises(UnschedulableError, match=words):
        check(*bundles, **how)


def test_shares_of_a_gpu_are_not_put_together_from_several():
    machine = {"total": {"GPU": 20_000}, "labels": {}}
    thirds = [{"GPU": 6_000}] * 3  # 1.8 in all, and each alone on its GPU
    with pytest.raises(UnschedulableError, match="shares of GPUs do not fit"):
        one_node.check_group(thirds, strategy="PACK", selectors=(), **machine)


def test_a_group_is_nowhere_until_it_has_its_resources():
    pending = one_node.group_of(b"g", "", "PACK", [{"CPU": 1}] * 2, "PENDING", 1, -1.0, node_id=b"n")
    assert (pending.nodes, pending.progress) == ([b"", b""], "NO_RESOURCES")
    made = one_node.group_of(b"g", "", "PACK", [{"CPU": 1}] * 2, "CREATED", 1, 0.5, node_id=b"n")
    assert (made.nodes, made.progress) == ([b"n", b"n"], "FINISHED")
