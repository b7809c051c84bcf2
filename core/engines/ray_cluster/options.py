"""Options as shoal has checked them, in Ray's words.

Amounts come back from 1/10_000 to units, and from the resources of a placement group to plain ones with the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ...environments.runtime_env import WantedEnvironment
from ...options import DYNAMIC, STREAMING, ActorOptions, Destination, TaskOptions
from ...protocol.specs import WireMethod
from ...resources import SCALE
from ...scheduling import bundles
from . import shipping

_RETURNS: Mapping[int, int | str] = {STREAMING: "streaming", DYNAMIC: "dynamic"}
_OWN_OPTION = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


def of_task(given: TaskOptions) -> dict[str, Any]:
    """For ``.options`` of a remote function."""
    said = {
        "num_returns": _RETURNS.get(given.num_returns, given.num_returns),
        "max_retries": given.max_retries,
        "retry_exceptions": _retry_exceptions(given.retry_on),
        **amounts(given.resources, zero_cpus=True),
        **_place(given.resources, given.destination),
    }
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


def of_call(how: WireMethod) -> dict[str, Any]:
    """For ``.options`` of an actor's method."""
    num_returns, retries, retry_exceptions, group, backpressure = how
    said: dict[str, Any] = {
        "num_returns": _RETURNS.get(num_returns, num_returns),
        "max_task_retries": retries,
        "retry_exceptions": retry_exceptions,
    }
    if group:
        said["concurrency_group"] = group
    if backpressure > 0:
        said["_generator_backpressure_num_objects"] = backpressure
    return said


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
            said[_OWN_OPTION[name]] = amount / SCALE
        else:
            others[name] = amount / SCALE
    if others:
        said["resources"] = others
    return said


def _place(shape: Mapping[str, int], destination: Destination) -> dict[str, Any]:
    group = bundles.group_of(shape)
    if not group:
        return {}
    strategy = PlacementGroupSchedulingStrategy(
        PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))),
        placement_group_bundle_index=bundles.bundle_of(shape),
        placement_group_capture_child_tasks=destination.captures,
    )
    return {"scheduling_strategy": strategy}


def _environment(wanted: WantedEnvironment | None) -> dict[str, Any]:
    """Raises ValueError: a folder, which Ray takes at the connection only."""
    if wanted is None:
        return {}
    return {"runtime_env": shipping.work_environment(wanted, ray.get_runtime_context().runtime_env)}


def _retry_exceptions(retry_on: tuple[type[BaseException], ...]) -> bool | list[type[BaseException]]:
    return True if retry_on == (Exception,) else list(retry_on) or False
