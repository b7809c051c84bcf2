"""From what users say about where work shall run to what the engines know: resources and a `Destination`.

    scheduling_strategy, placement_group..., label_selector, fallback_strategy --destination_of--> group, bundle, rule
    a demand in a group --in_group--> the same demand of the group's own resources (bundles.py)

Work that says nothing runs in the placement group of the task or actor that submits it, if that one captures what it
submits (`inherit`, at every submission). Whoever says anything has said all: ``scheduling_strategy="DEFAULT"`` and
``placement_group=None`` run outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .options import ActorOptions, Destination, TaskOptions
from .placement import PlacementGroup
from .ray_compat.ray_ids import PlacementGroupID
from .resources import SCALE, ResourceSet
from .runtime.equipment import Equipment
from .scheduling.bundles import inside
from .scheduling.labels import NodeRule, parse_fallbacks, parse_selector
from .scheduling.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

#: Groups whose bundles are remembered for what inherits them.
_KNOWN_GROUPS = 64
_groups: dict[bytes, PlacementGroup] = {}


def placed_task(options: TaskOptions, given: Mapping[str, Any], name: str) -> TaskOptions:
    """The options with what is said about the place.

    Raises:
      ValueError: contradictions, a bundle that does not exist, a demand that fits into no bundle.
      TypeError: a value of the wrong type.
    """
    destination, group, index = destination_of(given)
    if group is None:
        return replace(options, destination=destination)
    resources = in_group(options.resources, group, index, name)
    return replace(options, resources=resources, destination=destination)


def placed_actor(options: ActorOptions, given: Mapping[str, Any], name: str) -> ActorOptions:
    """As `placed_task`, of an actor."""
    destination, group, index = destination_of(given)
    if group is None:
        return replace(options, destination=destination)
    return replace(_actor_in_group(options, group, index, name), destination=destination)


def inherit_task(options: TaskOptions, submitter: Equipment, name: str) -> TaskOptions:
    """The options of a task whose submitter captures what it submits, in a placement group. Raises ValueError."""
    resources = in_group(options.resources, _current(submitter), -1, name)
    return replace(options, resources=resources, destination=replace(options.destination, captures=True))


def inherit_actor(options: ActorOptions, submitter: Equipment, name: str) -> ActorOptions:
    """As `inherit_task`, of an actor."""
    placed = _actor_in_group(options, _current(submitter), -1, name)
    return replace(placed, destination=replace(options.destination, captures=True))


def destination_of(given: Mapping[str, Any]) -> tuple[Destination, PlacementGroup | None, int]:
    """What options say about the place.

    Returns:
      the destination; the placement group, if one is named, and the bundle (-1: any).

    Raises:
      ValueError, TypeError: as `placed_task`.
    """
    strategy = given.get("scheduling_strategy")
    group, index, captures, says_group = _old_group(given)
    if strategy is not None and group is not None:
        raise ValueError("a placement group is given by scheduling_strategy or by placement_group=, not by both")
    conditions: list[tuple[Any, ...]] = []
    if isinstance(strategy, str):
        if strategy not in ("DEFAULT", "SPREAD"):
            raise ValueError(f"invalid scheduling_strategy {strategy!r}: 'DEFAULT', 'SPREAD', or a strategy object")
    elif isinstance(strategy, PlacementGroupSchedulingStrategy):
        group = _check_group("PlacementGroupSchedulingStrategy", strategy.placement_group)
        index, captures = strategy.placement_group_bundle_index, strategy.placement_group_capture_child_tasks
    elif isinstance(strategy, (NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)):
        conditions.append(strategy.conditions())
    elif strategy is not None:
        raise TypeError(
            "scheduling_strategy must be 'DEFAULT', 'SPREAD' or an object of shoal.util.scheduling_strategies, "
            f"not {type(strategy).__name__} {strategy!r}"
        )
    _check_index(group, index)
    return (
        Destination(
            inherits=strategy is None and not says_group,
            captures=bool(captures) and group is not None,
            rule=_rule(given, conditions),
            wish={
                name: given[name]
                for name in ("scheduling_strategy", "label_selector", "fallback_strategy")
                if given.get(name) is not None and not isinstance(given[name], PlacementGroupSchedulingStrategy)
            },
        ),
        group,
        index,
    )


def in_group(demand: Mapping[str, int], group: PlacementGroup, index: int, name: str) -> dict[str, int]:
    """The demand, of a group's resources.

    Raises:
      ValueError: it fits into no bundle, or not into that one.
    """
    _check_fits(demand, group, index, f"Cannot schedule {name}() with the placement group: it", "")
    return inside(demand, group.id.hex(), index)


def _actor_in_group(options: ActorOptions, group: PlacementGroup, index: int, name: str) -> ActorOptions:
    required = in_group(options.required, group, index, name)
    what = f"Cannot schedule actor {name} with the placement group: to be placed it"
    _check_fits(options.placement, group, index, what, "; num_cpus=0 asks for none")
    return replace(options, required=required, placement=required)


def _check_fits(demand: Mapping[str, int], group: PlacementGroup, index: int, what: str, hint: str) -> None:
    wanted = ResourceSet(demand)
    specs = group.bundle_specs
    candidates = specs if index < 0 else specs[index : index + 1]
    if any(wanted.fits(ResourceSet({name: round(n * SCALE) for name, n in spec.items()})) for spec in candidates):
        return
    whose = "its bundles are" if index < 0 else f"bundle {index} is"
    raise ValueError(f"{what} needs {wanted.describe()}, and {whose} {', '.join(map(str, candidates))}{hint}")


def _rule(given: Mapping[str, Any], conditions: Sequence[tuple[Any, ...]]) -> NodeRule | None:
    """Which nodes will do, by the strategy's conditions and the selectors."""
    own = tuple(condition for part in conditions for condition in part)
    selector, fallbacks = given.get("label_selector"), given.get("fallback_strategy")
    first = () if selector is None else parse_selector(selector)
    others = [] if fallbacks is None else parse_fallbacks(fallbacks)
    alternatives = tuple((*own, *one) for one in (first, *others))
    return None if not all(alternatives) else NodeRule(alternatives)


def _old_group(given: Mapping[str, Any]) -> tuple[PlacementGroup | None, int, bool | None, bool]:
    """The deprecated options: group, bundle, whether it captures, whether anything is said about a group."""
    group, index = given.get("placement_group", "default"), given.get("placement_group_bundle_index", -1)
    captures = given.get("placement_group_capture_child_tasks")
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"placement_group_bundle_index must be an integer, not {index!r}")
    if not isinstance(captures, (bool, type(None))):
        raise TypeError(f"placement_group_capture_child_tasks must be True, False or None, not {captures!r}")
    says_group = group != "default"
    if says_group or index != -1 or captures:
        warnings.warn(
            "placement_group, placement_group_bundle_index and placement_group_capture_child_tasks are deprecated: "
            "use scheduling_strategy=PlacementGroupSchedulingStrategy(...)",
            DeprecationWarning,
            stacklevel=6,
        )
    return (_check_group("placement_group", group) if says_group else None), index, captures, says_group


def _check_group(what: str, group: Any) -> PlacementGroup | None:
    if group is None or (isinstance(group, PlacementGroup) and group.is_empty):
        return None
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"{what} takes a PlacementGroup, not {type(group).__name__} {group!r}")
    return group


def _check_index(group: PlacementGroup | None, index: int) -> None:
    if group is None:
        if index != -1:
            raise ValueError(f"placement_group_bundle_index must be -1 without a placement group, not {index}")
    elif not -1 <= index < group.bundle_count:
        raise ValueError(
            f"placement group bundle index {index} is invalid: the group has bundles 0 to {group.bundle_count - 1}, "
            "and -1 means any"
        )


def _current(submitter: Equipment) -> PlacementGroup:
    """The group that a piece of work is in, with its bundles."""
    group_id = submitter.group
    group = _groups.get(group_id)
    if group is None:
        while len(_groups) >= _KNOWN_GROUPS:
            _groups.pop(next(iter(_groups)), None)
        group = _groups[group_id] = PlacementGroup(PlacementGroupID(group_id))
    return group
