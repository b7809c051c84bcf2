"""Options as shoal has checked them, in Ray's words.

Amounts come back from 1/10_000 to units, and from the resources of a placement group to plain ones with the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util import scheduling_strategies as theirs
from ray.util.placement_group import PlacementGroup

from ...environments.runtime_env import WantedEnvironment
from ...options import DEFAULT_MAX_RETRIES, DYNAMIC, STREAMING, ActorOptions, Destination, TaskOptions
from ...protocol.specs import WireMethod
from ...resources import SCALE
from ...scheduling import bundles
from ...scheduling.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from . import shipping
from .failures import CarriedAndTriedAgain

_RETURNS: Mapping[int, int | str] = {STREAMING: "streaming", DYNAMIC: "dynamic"}
_OWN_OPTION = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory", "object_store_memory": "object_store_memory"}


def of_task(given: TaskOptions, *, generator: bool) -> dict[str, Any]:
    """For ``.options`` of a remote function, as far as it is not what Ray takes by itself: each that is said costs 1 us
    at every call.
    """
    said = {**amounts(given.resources, zero_cpus=True), **_place(given.resources, given.destination)}
    if said.get("num_cpus") == 1:
        del said["num_cpus"]
    if given.num_returns != (STREAMING if generator else 1):
        said["num_returns"] = _RETURNS.get(given.num_returns, given.num_returns)
    if given.max_retries != DEFAULT_MAX_RETRIES:
        said["max_retries"] = given.max_retries
    if given.retry_on:
        said["retry_exceptions"] = [CarriedAndTriedAgain]
    if given.name is not None:
        said["name"] = given.name
    if given.backpressure > 0:
        said["_generator_backpressure_num_objects"] = given.backpressure
    return {**said, **_environment(given.runtime_env)}


def of_actor(given: ActorOptions) -> dict[str, Any]:
    """For ``.options`` of an actor class."""
    explicit = given.required == given.placement
    said: dict[str, Any] = {
        "max_restarts": given.max_restarts,
        "max_task_retries": given.max_task_retries,
        "max_pending_calls": given.max_pending_calls,
        "get_if_exists": given.get_if_exists,
        **amounts(given.required, zero_cpus=explicit),
        **_place(given.required, given.destination),
    }
    for name in ("name", "namespace", "lifetime"):
        if getattr(given, name) is not None:
            said[name] = getattr(given, name)
    if given.max_concurrency:
        said["max_concurrency"] = given.max_concurrency
    if given.must_be_in_order:
        said["allow_out_of_order_execution"] = False
    return {**said, **_environment(given.runtime_env)}


#: Names of what a `WireMethod` consists of.
_OF_CALLS = (
    "num_returns", "max_task_retries", "retry_exceptions", "concurrency_group", "_generator_backpressure_num_objects"
)  # fmt: skip


def of_call(how: WireMethod, declared: WireMethod) -> dict[str, Any]:
    """For ``.options`` of an actor's method, or ``ray.method``: in what `how` differs from what it is without them."""
    said = {name: value for name, value, own in zip(_OF_CALLS, how, declared, strict=True) if value != own}
    if "num_returns" in said:
        said["num_returns"] = _RETURNS.get(how[0], how[0])
    return said


def how_of(state: Mapping[str, Any]) -> WireMethod:
    """What a method of an actor declares, from what Ray keeps of it."""
    given = state["num_returns"]
    return (
        next((number for number, name in _RETURNS.items() if name == given), given),
        state["max_task_retries"] or 0,
        bool(state["retry_exceptions"]),
        "",  # the group is known to the actor
        state["generator_backpressure_num_objects"] or -1,
    )


def amounts(shape: Mapping[str, int], *, zero_cpus: bool) -> dict[str, Any]:
    """Resources in units.

    Args:
      shape: in 1/10_000, perhaps of a placement group.
      zero_cpus: say so where there are none: Ray would take one.
    """
    said: dict[str, Any] = {"num_cpus": 0} if zero_cpus else {}
    others: dict[str, float] = {}
    for name, amount in bundles.outside(shape).items():
        if name in _OWN_OPTION:
            said[_OWN_OPTION[name]] = amount / SCALE if amount % SCALE else amount // SCALE  # bytes are whole to Ray
        else:
            others[name] = amount / SCALE
    if others:
        said["resources"] = others
    return said


def _place(shape: Mapping[str, int], destination: Destination) -> dict[str, Any]:
    said = dict(destination.wish)
    group = bundles.group_of(shape)
    if group:
        said["scheduling_strategy"] = theirs.PlacementGroupSchedulingStrategy(
            PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))),
            placement_group_bundle_index=bundles.bundle_of(shape),
            placement_group_capture_child_tasks=destination.captures,
        )
    elif "scheduling_strategy" in said:
        said["scheduling_strategy"] = _strategy(said["scheduling_strategy"])
    elif not destination.inherits:
        said["scheduling_strategy"] = "DEFAULT"  # outside of the group of who submits it, if he is in one
    return said


def _environment(wanted: WantedEnvironment | None) -> dict[str, Any]:
    """Raises ValueError: a folder, which Ray takes at the connection only."""
    if wanted is None:
        return {}
    return {"runtime_env": shipping.work_environment(wanted, ray.get_runtime_context().runtime_env)}


def _strategy(ours: Any) -> Any:
    """Ray's object for one of `scheduling.scheduling_strategies`; names are the same."""
    if isinstance(ours, NodeAffinitySchedulingStrategy):
        return theirs.NodeAffinitySchedulingStrategy(
            ours.node_id,
            ours.soft,
            _spill_on_unavailable=ours._spill_on_unavailable,  # noqa: SLF001  Ray's names, which both sides have
        )
    if isinstance(ours, NodeLabelSchedulingStrategy):
        return theirs.NodeLabelSchedulingStrategy(_matches(ours.hard), soft=_matches(ours.soft))
    return ours


def _matches(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's operators on labels."""
    return {
        key: getattr(theirs, type(match).__name__)(*getattr(match, "values", ())) for key, match in ours.items()
    }
