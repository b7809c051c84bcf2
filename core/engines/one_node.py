"""What is about one machine, for the engines whose sessions have just one: inline and native. Pure.

A placement group that the machine could not hold were it empty never comes to be, so it is refused when it is asked
for: with one machine, PACK, SPREAD and STRICT_PACK all put the bundles there, and STRICT_SPREAD wants each on a machine
of its own. A cluster is another matter: it may have several machines, and get more while the group waits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UnschedulableError
from ..resources import SCALE, ResourceSet
from ..scheduling.labels import NodeRule, parse_selector
from .base import GroupDescription, Place

#: What the table says of a group's progress, by its state.
_PROGRESS = {"PENDING": "NO_RESOURCES", "CREATED": "FINISHED", "REMOVED": "REMOVED"}


def check_group(
    bundles: Sequence[Mapping[str, int]],
    *,
    strategy: str,
    selectors: Sequence[Mapping[str, str]],
    total: Mapping[str, int],
    labels: Mapping[str, str],
) -> None:
    """Raise when not even an empty machine could hold the bundles.

    Args:
      bundles: in 1/10_000.
      selectors: labels that the node of each bundle must have; empty: any node will do.
      total: what the machine has in all, in 1/10_000; labels: its labels.

    Raises:
      UnschedulableError: says which bundle, or what of the whole, cannot be.
    """
    if strategy == "STRICT_SPREAD" and len(bundles) > 1:
        raise UnschedulableError(
            f"STRICT_SPREAD wants each of the {len(bundles)} bundles on a node of its own, and there is one node; "
            "SPREAD takes as many nodes as there are"
        )
    has, demand = ResourceSet(total), ResourceSet()
    for bundle in bundles:
        demand += ResourceSet(bundle)
    if not demand.fits(has):
        raise UnschedulableError(f"the placement group can never be created: it {demand.shortage(has)} in all")
    # Fractions of a GPU cannot be put together from several: each bundle's share lies on one.
    if _gpus_needed([bundle.get("GPU", 0) for bundle in bundles]) > math.ceil(has.amount("GPU")):
        raise UnschedulableError(
            f"the placement group can never be created: its bundles' shares of GPUs do not fit on the "
            f"{has.amount('GPU'):g} that this machine has in all"
        )
    for index, selector in enumerate(selectors):
        mismatch = NodeRule((parse_selector(selector),)).mismatch(labels)
        if mismatch:
            raise UnschedulableError(f"bundle {index} of the placement group can never be placed: {mismatch}")


def group_of(
    group_id: bytes,
    name: str,
    strategy: str,
    bundles: Sequence[Mapping[str, int]],
    state: str,
    attempts: int,
    creation_s: float,
    *,
    node_id: bytes,
) -> GroupDescription:
    """A group as control describes it (`protocol.messages.DescribeGroups`), on this node."""
    nodes = [node_id if creation_s >= 0 else b""] * len(bundles)
    return GroupDescription(group_id, name, strategy, bundles, nodes, state, _PROGRESS[state], attempts, creation_s)


def job_of(workers: Sequence[Mapping[str, Any]], here: Place) -> dict[str, Any]:
    """The row of the one job, by the facts of a survey of its workers; only its driver knows what was started."""
    driver = next((row for row in workers if row["worker_type"] == "DRIVER"), None)
    digits, info = here.job_id.hex(), None
    if driver is not None:
        info = {"id": digits, "node_ip_address": driver["ip"], "pid": driver["pid"]}
    return {
        "job_id": digits,
        "submission_id": None,
        "type": "DRIVER",
        "status": "RUNNING",
        "entrypoint": " ".join(sys.argv) if driver and driver["worker_id"] == here.worker_id.hex() else "",
        "driver_info": info,
        "start_time": None if driver is None else driver["start_time_ms"],
    }


def _gpus_needed(shares: Sequence[int]) -> int:
    """GPUs that hold these shares, taken in order as the node does: each fraction where it fits best."""
    whole = sum(share // SCALE for share in shares)
    free: list[int] = []
    for share in (share % SCALE for share in shares):
        if share:
            fitting = [room for room in free if room >= share]
            room = min(fitting) if fitting else SCALE
            if fitting:
                free.remove(room)
            free.append(room - share)
    return whole + len(free)
