"""Placement groups of a Ray cluster, through Ray's own.

    placement_group()   ->  ray.util.placement_group          amounts back in units, selectors as given
    ready()             ->  Ray's ready of a handle that is pickled as what the user shall get
    table, by name      ->  ray.util.placement_group_table, get_placement_group

Whether a group can ever be is Ray's to find out: a cluster may grow. Until then it is pending, and the table says
INFEASIBLE. Groups that are removed stay in the table; what waits for one of them to be ready is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
import ray.exceptions
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from ... import ids
from ...refs import ObjectRef
from ...resources import SCALE
from ..base import GroupDescription, group_name_taken
from .failures import translated, translating
from .handles import RayRef
from .nodes import parts


def create(
    bundles: Sequence[Mapping[str, int]],
    *,
    strategy: str,
    name: str,
    detached: bool,
    selectors: Sequence[Mapping[str, str]],
    near: bytes,
) -> ids.PlacementGroupID:
    """As `base.Engine.create_group`."""
    try:
        made = placement_group(
            [{resource: amount / SCALE for resource, amount in bundle.items()} for bundle in bundles],
            strategy=strategy,
            name=name,
            lifetime="detached" if detached else None,
            bundle_label_selector=[dict(selector) for selector in selectors] or None,
            _soft_target_node_id=near.hex() or None,
        )
    except ray.exceptions.RaySystemError as error:
        if name and "already exists" in str(error):
            raise group_name_taken(name, ray.get_runtime_context().namespace) from None
        raise translated(error) from None
    return ids.PlacementGroupID(made.id.binary())


def remove(group_id: bytes) -> None:
    """End it and what runs inside."""
    with translating():
        remove_placement_group(handle(group_id))


def ready(group_id: bytes, value: Any) -> ObjectRef:
    """A ref to `value`, there when the group has its resources."""
    with translating():
        # Ray tells of a group that has long been made a moment later, so that a wait of 0 s would miss it.
        if placement_group_table(handle(group_id)).get("state") == "CREATED":
            return RayRef(ray.put(value))
        return RayRef(_StandIn(group_id, value).ready())


def described(*, group_id: bytes = b"", name: str = "") -> list[GroupDescription]:
    """As `base.Engine.describe_groups`."""
    with translating():
        if name:
            try:
                group_id = get_placement_group(name).id.binary()
            except ValueError:
                return []
        if group_id:
            row = placement_group_table(handle(group_id))
            return [_description(row)] if row else []
        return [_description(row) for row in placement_group_table().values()]


def handle(group_id: bytes) -> PlacementGroup:
    """Ray's handle of a group."""
    return PlacementGroup(ray.PlacementGroupID(group_id))


class _StandIn(PlacementGroup):  # type: ignore[misc]  # Ray has no types
    """Ray's handle of a group, which is pickled as another value: that is what its `ready` comes to."""

    def __init__(self, group_id: bytes, value: Any) -> None:
        super().__init__(ray.PlacementGroupID(group_id))
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._value,)


def _itself(value: Any) -> Any:
    return value


def _description(row: Mapping[str, Any]) -> GroupDescription:
    """A row of Ray's table."""
    stats, nodes = row["stats"], row["bundles_to_node_id"]
    was_made = stats["end_to_end_creation_latency_ms"] > 0
    return GroupDescription(
        group_id=bytes.fromhex(row["placement_group_id"]),
        name=row["name"],
        strategy=row["strategy"],
        bundles=[parts(bundle) for _, bundle in sorted(row["bundles"].items())],
        nodes=[bytes.fromhex(nodes[index]) for index in sorted(row["bundles"])],
        state=row["state"],
        progress=stats["scheduling_state"],
        attempts=stats["scheduling_attempt"],
        creation_s=stats["end_to_end_creation_latency_ms"] / 1e3 if was_made else -1.0,
    )
