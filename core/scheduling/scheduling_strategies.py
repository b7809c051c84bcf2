"""Scheduling strategies: objects that say where a task or an actor shall run. Ray's names, arguments and checks.

    f.options(scheduling_strategy="SPREAD")                                    over nodes, as well as it goes
    f.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False))
    f.options(scheduling_strategy=NodeLabelSchedulingStrategy({"zone": In("a")}))
    f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group))

On one machine there is little to choose: a hard wish that this machine does not fulfil is an error when the result is
asked for, a soft one is granted as far as it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from .. import ids
from .labels import NODE_ID, Condition

#: Bytes of Ray's node ids: one that a program brings along names no node of ours, but is no mistake.
_FOREIGN_NODE_BYTES = 28


class PlacementGroupSchedulingStrategy:
    """Run inside a placement group."""

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,  # noqa: FBT001  Ray's signature
    ) -> None:
        """
        Args:
          placement_group: what ``placement_group()`` has given; None: outside of any group.
          placement_group_bundle_index: the bundle; -1: any that has room.
          placement_group_capture_child_tasks: what runs there submits its own work into the same group, unless told
            otherwise.
        """
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on one node."""

    def __init__(
        self,
        node_id: str | bytes,
        soft: bool,  # noqa: FBT001  Ray's signature
        _spill_on_unavailable: bool = False,  # noqa: FBT001, FBT002
        _fail_on_unavailable: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """
        Args:
          node_id: in hexadecimal, as ``nodes()`` tells it.
          soft: another node will do if that one is dead or too small.

        Raises:
          ValueError: `node_id` is not the id of a node, or the private arguments contradict `soft`.
          NotImplementedError: `_fail_on_unavailable`.
        """
        self.node_id = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable
        try:
            node = bytes.fromhex(self.node_id)
        except ValueError:
            node = b""
        if len(node) not in (ids.NODE_BYTES, _FOREIGN_NODE_BYTES) or node == b"\xff" * len(node):
            raise ValueError(
                f"invalid node_id {self.node_id!r}: it is a node's id in hexadecimal; nodes() lists them as 'NodeID'"
            )
        if _spill_on_unavailable and not soft:
            raise ValueError("_spill_on_unavailable needs soft=True")
        if _fail_on_unavailable and soft:
            raise ValueError("_fail_on_unavailable needs soft=False")
        if _fail_on_unavailable:
            raise NotImplementedError("_fail_on_unavailable is not supported: work waits until the node has room")

    def conditions(self) -> tuple[Condition, ...]:
        """What a node must be like."""
        return () if self.soft else (Condition(NODE_ID, (self.node_id.lower(),)),)


class In:
    """The label has one of these values."""

    def __init__(self, *values: str) -> None:
        self.values = _check_values(values, "In")


class NotIn:
    """The label has none of these values; it may be missing."""

    def __init__(self, *values: str) -> None:
        self.values = _check_values(values, "NotIn")


class Exists:
    """The node has the label."""


class DoesNotExist:
    """The node does not have the label."""


LabelMatch: TypeAlias = "In | NotIn | Exists | DoesNotExist"


class NodeLabelSchedulingStrategy:
    """Run on a node with certain labels: ``NodeLabelSchedulingStrategy({"region": In("us"), "gpu": Exists()})``."""

    def __init__(self, hard: Mapping[str, LabelMatch], *, soft: Mapping[str, LabelMatch] | None = None) -> None:
        """
        Args:
          hard: what the node must be like.
          soft: what it should be like, as far as there is a choice.

        Raises:
          ValueError: neither says anything, or one of them is no dict of labels and operators.
        """
        self.hard = _check_matches(hard, "hard")
        self.soft = _check_matches(soft, "soft")
        if not (self.hard or self.soft):
            raise ValueError("NodeLabelSchedulingStrategy: hard and soft cannot both be empty")

    def conditions(self) -> tuple[Condition, ...]:
        """What a node must be like."""
        return tuple(_condition(key, match) for key, match in self.hard.items())


SchedulingStrategyT: TypeAlias = (
    "str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy | None"
)


def _condition(key: str, match: LabelMatch) -> Condition:
    if isinstance(match, (In, NotIn)):
        return Condition(key, tuple(match.values), negated=isinstance(match, NotIn))
    return Condition(key, None, negated=isinstance(match, DoesNotExist))


def _check_values(values: tuple[Any, ...], operator: str) -> list[str]:
    if not values:
        raise ValueError(f'{operator} needs values: {operator}("value1", "value2")')
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"values of {operator} must be strings, not {type(value).__name__} {value!r}")
    return list(values)


def _check_matches(matches: Any, argument: str) -> dict[str, LabelMatch]:
    if matches is None:
        return {}
    if not isinstance(matches, dict):
        raise ValueError(f'{argument} must be a dict such as {{"key": In("value")}}, not {type(matches).__name__}')
    for key, match in matches.items():
        if not isinstance(key, str):
            raise ValueError(f"a key of {argument} must be a string, not {type(key).__name__} {key!r}")
        if not isinstance(match, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(f"{argument}[{key!r}] must be In, NotIn, Exists or DoesNotExist, not {match!r}")
    return dict(matches)
