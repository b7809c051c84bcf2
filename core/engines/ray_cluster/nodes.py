"""The machines of a Ray cluster and what they have, by Ray's own account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from ...resources import SCALE
from ..base import NodeDescription, Stock

#: What `NodeDescription` tells by itself.
_TOLD = ("NodeID", "Alive", "alive", "NodeManagerAddress", "NodeManagerHostname", "Resources", "Labels")
_HEAD = "node:__internal_head__"


def described() -> list[NodeDescription]:
    """All of them, living and dead."""
    return [
        NodeDescription(
            node_id=bytes.fromhex(row["NodeID"]),
            address=row["NodeManagerAddress"],
            hostname=row["NodeManagerHostname"],
            total=parts(row["Resources"]),
            labels=row["Labels"],
            is_alive=row["Alive"],
            is_head=_HEAD in row["Resources"],
            further={name: value for name, value in row.items() if name not in _TOLD},
        )
        for row in ray.nodes()
    ]


def stock() -> Stock:
    """Of the living ones together; Ray learns of what is taken up to 100 ms later."""
    return Stock(parts(ray.cluster_resources()), parts(ray.available_resources()))


def parts(amounts: Mapping[str, Any]) -> dict[str, int]:
    """Ray's amounts in 1/10_000."""
    return {name: round(amount * SCALE) for name, amount in amounts.items()}
