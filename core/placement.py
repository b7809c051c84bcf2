"""Placement groups: resources set aside together, for tasks and actors that belong together. Ray's names.

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    get(group.ready())
    f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
    remove_placement_group(group)

The bundles of a group are reserved all or none. On one machine the strategies come to this: PACK, SPREAD and
STRICT_PACK put all bundles there; STRICT_SPREAD wants each on a machine of its own, which more than one bundle can
never have. What one machine can never give is an error at once; what others hold at the moment is waited for. A Ray
cluster waits for both: it may grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engines.base import GroupDescription
from .engines.current import engine
from .errors import TaskPlacementGroupRemoved
from .ray_compat.ray_ids import PlacementGroupID
from .refs import ObjectRef
from .resources import SCALE
from .scheduling.bundles import parse_bundle
from .scheduling.labels import parse_selector

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")

_NODE_STRATEGY = "ray.io/node-id"


class PlacementGroup:
    """A handle to a placement group. Made by `placement_group`; can be passed to tasks and actors, and pickled."""

    @staticmethod
    def empty() -> PlacementGroup:
        """Stands for no group."""
        return PlacementGroup(PlacementGroupID(b"\xff" * PlacementGroupID.SIZE))

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:  # noqa: A002
        self.id = id
        self.bundle_cache = bundle_cache

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    def ready(self) -> ObjectRef:
        """A ref to the group itself, there when all bundles are reserved; a failure when the group is removed."""
        if self.is_empty:
            return engine().put(self)
        return engine().group_ready(bytes(self.id), self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until all bundles are reserved; False if they are not after that time.

        Raises:
          TaskPlacementGroupRemoved: the group has been removed.
        """
        ref = self.ready()
        ready, _ = engine().wait([ref], num_returns=1, timeout_s=max(0.0, timeout_seconds))
        if ready:
            engine().get(ready, timeout_s=None)
        return bool(ready)

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The bundles, as they were given."""
        if not self.bundle_cache:
            found = [] if self.is_empty else engine().describe_groups(group_id=bytes(self.id))
            if not found and not self.is_empty:
                raise TaskPlacementGroupRemoved(f"placement group {self.id.hex()} has been removed")
            self.bundle_cache = [_units(bundle) for group in found for bundle in group.bundles]
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve resources together. Returns at once: `ready` and `wait` of the result tell when they are there.

    Args:
      bundles: amounts by name for each bundle: ``[{"CPU": 1}, {"CPU": 1, "GPU": 1}]``.
      strategy: "PACK" (the default), "SPREAD", "STRICT_PACK" or "STRICT_SPREAD".
      name: for `get_placement_group`.
      lifetime: None: until the session ends (in a detached actor: until that has ended); "detached": until it is
        removed.
      bundle_label_selector: for each bundle, labels that its node must have.
      topology_strategy: the strategy, written ``{"ray.io/node-id": "PACK"}``; there are no further topologies.

    Raises:
      ValueError: a wrong bundle, strategy, lifetime or selector; PlacementGroupNameTakenError, if the name is taken.
      UnschedulableError: there is one machine, and it can never have such a group.
    """
    session = engine()
    strategy = _check_strategy(strategy, topology_strategy)
    if lifetime not in (None, "detached"):
        raise ValueError(f"the lifetime of a placement group is None or 'detached', not {lifetime!r}")
    if _soft_target_node_id is not None:
        _check_target(_soft_target_node_id, strategy)
    parts = _check_bundles(bundles)
    group_id = session.create_group(
        parts,
        strategy=strategy,
        name=name or "",
        detached=lifetime == "detached",
        selectors=_check_selectors(bundle_label_selector, len(parts)),
        near=bytes.fromhex(_soft_target_node_id or ""),
    )
    return PlacementGroup(
        PlacementGroupID(group_id), [{key: float(n) for key, n in bundle.items()} for bundle in bundles]
    )


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the group's resources back, and end the tasks and actors inside. Twice is once. Does not wait."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"remove_placement_group takes a PlacementGroup, not {type(placement_group).__name__}")
    if not placement_group.is_empty:
        engine().remove_group(bytes(placement_group.id))


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of that name, in the namespace of the caller.

    Raises:
      ValueError: the name is empty, or no group has it.
    """
    if not placement_group_name:
        raise ValueError("get_placement_group takes the name of a group, which is not empty")
    found = engine().describe_groups(name=placement_group_name)
    if not found:
        raise ValueError(f"no placement group is named {placement_group_name!r}: it was never created, or is removed")
    return PlacementGroup(PlacementGroupID(found[0].group_id), [_units(bundle) for bundle in found[0].bundles])


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """The state of a group, or of all groups by id in hexadecimal. Removed ones stay visible for a while."""
    if placement_group is not None:
        found = engine().describe_groups(group_id=bytes(placement_group.id))
        return _row(found[0]) if found else {}
    return {group.group_id.hex(): _row(group) for group in engine().describe_groups()}


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; None outside of any, and in drivers."""
    group = engine().place().equipment.group
    return PlacementGroup(PlacementGroupID(group)) if group else None


def _check_strategy(strategy: str | None, topology: Mapping[str, str] | None) -> str:
    if topology is not None:
        if strategy is not None:
            raise ValueError("strategy and topology_strategy cannot both be given")
        if not isinstance(topology, dict):
            raise ValueError(f"topology_strategy must be a dict, not {type(topology).__name__}")
        others = sorted(set(topology) - {_NODE_STRATEGY})
        if others:
            raise ValueError(f"topology_strategy knows only {_NODE_STRATEGY!r}, not {', '.join(others)}")
        strategy = topology.get(_NODE_STRATEGY)
    if strategy is None:
        return "PACK"
    if strategy not in STRATEGIES:
        raise ValueError(f"invalid placement group strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    return strategy


def _check_target(node: str, strategy: str) -> None:
    if strategy != "STRICT_PACK":
        raise ValueError(f"_soft_target_node_id works only with STRICT_PACK, not with {strategy}")
    try:
        bytes.fromhex(node)
    except (TypeError, ValueError):
        raise ValueError(f"_soft_target_node_id is a node's id in hexadecimal, not {node!r}") from None


def _check_bundles(bundles: Any) -> list[dict[str, int]]:
    """The bundles in 1/10_000."""
    if not isinstance(bundles, list):
        raise ValueError(f"bundles must be a list of dicts, not {type(bundles).__name__}")
    if not bundles:
        raise ValueError('bundles cannot be empty; it is a list such as [{"CPU": 1}, {"GPU": 1}]')
    parts = []
    for index, bundle in enumerate(bundles):
        if not isinstance(bundle, dict):
            raise ValueError(f"bundle {index} must be a dict of amounts by name, not {bundle!r}")
        try:
            parts.append(parse_bundle(bundle))
        except (TypeError, ValueError) as error:
            raise ValueError(f"bundle {index}: {error}") from None
        if not parts[-1]:
            raise ValueError(f"bundle {index} asks for nothing: {bundle!r}; each bundle needs an amount over 0")
    return parts


def _check_selectors(selectors: Any, count: int) -> list[dict[str, str]]:
    """The bundles' selectors; empty if they want nothing."""
    if selectors is None:
        return []
    if not isinstance(selectors, list) or len(selectors) not in (0, count):
        raise ValueError(f"bundle_label_selector must be a list with a dict for each of the {count} bundles")
    for index, selector in enumerate(selectors):
        try:
            parse_selector(selector, f"bundle_label_selector[{index}]")
        except TypeError as error:
            raise ValueError(str(error)) from None
    return selectors


def _row(group: GroupDescription) -> dict[str, Any]:
    """As `placement_group_table` shows it."""
    return {
        "placement_group_id": group.group_id.hex(),
        "name": group.name,
        "bundles": {index: _units(bundle) for index, bundle in enumerate(group.bundles)},
        "bundles_to_node_id": {index: node.hex() for index, node in enumerate(group.nodes)},
        "strategy": group.strategy,
        "state": group.state,
        "stats": {
            "end_to_end_creation_latency_ms": max(0.0, group.creation_s) * 1e3,
            "scheduling_latency_ms": max(0.0, group.creation_s) * 1e3,
            "scheduling_attempt": group.attempts,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": group.progress,
        },
    }


def _units(bundle: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / SCALE for name, amount in bundle.items()}
