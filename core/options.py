"""Options of tasks and actors: checked once, where they are given.

What Ray has and this version does not is refused with that sentence, never ignored.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .environments.runtime_env import WantedEnvironment, wanted
from .resources import SCALE, ResourceSet
from .scheduling.labels import NodeRule
from .scheduling.machine import ACCELERATOR_SHARE

#: Times that a task is run again after its worker has died, unless told otherwise. Ray's.
DEFAULT_MAX_RETRIES = 3

#: Numbers of returns that are none: the task is a generator, and its items are objects of their own, as they come...
STREAMING = -1
#: ... or when it has ended, by way of one object that holds their refs.
DYNAMIC = -2

_GENERATOR_RETURNS = {"streaming": STREAMING, "dynamic": DYNAMIC}
_RESOURCES = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type")
#: What `destinations.py` makes of them stands in `Destination`.
_PLACES = (
    "fallback_strategy",
    "label_selector",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "scheduling_strategy",
)
_BACKPRESSURE = "_generator_backpressure_num_objects"
#: False hides work from Ray's state API, to save what telling costs. Here telling costs nothing until somebody asks.
_EVENTS = "enable_task_events"
_TASK = frozenset(
    {
        *_RESOURCES,
        *_PLACES,
        "num_returns",
        "max_retries",
        "retry_exceptions",
        "max_calls",
        "name",
        "runtime_env",
        _BACKPRESSURE,
        _EVENTS,
    }
)
_ACTOR = frozenset(
    {
        *_RESOURCES,
        *_PLACES,
        "object_store_memory",
        "allow_out_of_order_execution",
        "concurrency_groups",
        "get_if_exists",
        "lifetime",
        "max_concurrency",
        "max_pending_calls",
        "max_restarts",
        "max_task_retries",
        "name",
        "namespace",
        "runtime_env",
        _EVENTS,
    }
)
_METHOD = frozenset(
    {"num_returns", "max_task_retries", "retry_exceptions", "concurrency_group", _BACKPRESSURE, _EVENTS}
)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where work is to run.

    inherits: in its submitter's placement group, if that one captures what it submits; all else is said then.
    captures: what it submits runs in the same placement group. (Which one, the resources say: their names have its id.)
    rule: which nodes will do; None: all.
    wish: scheduling_strategy, label_selector and fallback_strategy as the user gave them, without what names a
      placement group: an engine with more than one node has more to choose than the rule says.
    """

    inherits: bool = True
    captures: bool = False
    rule: NodeRule | None = None
    wish: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Of a remote function. `resources` in 1/10_000, a placement group's own if it is to run in one."""

    num_returns: int = 1  #: or STREAMING, DYNAMIC (protocol/specs.py)
    resources: Mapping[str, int] = field(default_factory=lambda: {"CPU": 10_000})
    max_retries: int = DEFAULT_MAX_RETRIES
    retry_on: tuple[type[BaseException], ...] = ()
    name: str | None = None
    runtime_env: WantedEnvironment | None = None
    max_calls: int = 0
    backpressure: int = -1
    destination: Destination = Destination()
    threads: int = 0  #: that it may start; 0: one


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Of a method of an actor; None: not said, so that the next in the order of precedence decides."""

    num_returns: int | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | None = None
    concurrency_group: str | None = None
    backpressure: int | None = None


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """Of an actor class. `placement`: what the node must have at least; `required`: what it gives up while the actor
    lives. Both are of a placement group if it is to live in one.
    """

    required: Mapping[str, int] = field(default_factory=dict)
    placement: Mapping[str, int] = field(default_factory=lambda: {"CPU": 10_000})
    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 0  #: 0: not given
    max_pending_calls: int = -1
    #: Calls of one caller must run in the order in which they were made. (Those of a serial actor do anyhow.)
    must_be_in_order: bool = False
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)
    runtime_env: WantedEnvironment | None = None
    destination: Destination = Destination()
    threads: int = 0  #: that it may start; 0: one


def task_options(given: Mapping[str, Any], *, generator: bool = False) -> TaskOptions:
    """Check the keywords of ``@remote`` or ``.options`` on a function.

    Args:
      generator: the function is one: its items are streamed unless told otherwise.

    Raises:
      ValueError: an unknown or unsupported option, or a value out of range.
      TypeError: a value of the wrong type.
    """
    _check_names(given, _TASK, "tasks")
    num_returns = _num_returns(given.get("num_returns"), generator=generator)
    max_calls = given.get("max_calls") or 0
    _check_int("max_calls", max_calls, least=0)
    max_retries = given.get("max_retries", DEFAULT_MAX_RETRIES)
    _check_int("max_retries", max_retries, least=-1)
    return TaskOptions(
        num_returns=(STREAMING if generator else 1) if num_returns is None else num_returns,
        resources=_resources(given, default_cpus=1),
        max_retries=max_retries,
        retry_on=_retry_on(given.get("retry_exceptions", False)),
        name=_check_str("name", given.get("name")),
        runtime_env=wanted(given.get("runtime_env")),
        max_calls=max_calls,
        backpressure=_backpressure(given.get(_BACKPRESSURE)) or -1,
        threads=_threads(given),
    )


def actor_options(given: Mapping[str, Any]) -> ActorOptions:
    """Check the keywords of ``@remote`` or ``.options`` on a class. Raises as `task_options`."""
    _check_names(given, _ACTOR, "actors")
    name = _check_str("name", given.get("name"))
    if name == "":
        raise ValueError("an actor's name cannot be the empty string")
    lifetime = given.get("lifetime")
    if lifetime not in (None, "detached", "non_detached"):
        raise ValueError(f"lifetime must be 'detached', 'non_detached' or None, not {lifetime!r}")
    get_if_exists = given.get("get_if_exists", False)
    if not isinstance(get_if_exists, bool):
        raise TypeError(f"get_if_exists must be True or False, not {get_if_exists!r}")
    if get_if_exists and name is None:
        raise ValueError("get_if_exists needs a name")
    max_restarts, max_task_retries = given.get("max_restarts", 0), given.get("max_task_retries", 0)
    _check_int("max_restarts", max_restarts, least=-1)
    _check_int("max_task_retries", max_task_retries, least=-1)
    max_concurrency = given.get("max_concurrency")
    if max_concurrency is not None:
        _check_int("max_concurrency", max_concurrency, least=1)
    max_pending_calls = given.get("max_pending_calls", -1)
    _check_int("max_pending_calls", max_pending_calls, least=-1)
    groups = given.get("concurrency_groups") or {}
    if not isinstance(groups, dict):
        raise TypeError(f"concurrency_groups must be a dict of names and numbers, not {groups!r}")
    for group, bound in groups.items():
        if not _check_str("the name of a concurrency group", group):
            raise ValueError("the name of a concurrency group cannot be the empty string")
        _check_int(f"concurrency_groups[{group!r}]", bound, least=1)
    # Ray's rule: an actor for which no resource is asked takes one CPU to be placed and none while it runs. Memory is
    # no resource in this, nor is an empty dict.
    explicit = bool(given.get("resources")) or any(
        given.get(option) is not None for option in ("num_cpus", "num_gpus", "accelerator_type")
    )
    required = _resources(given, default_cpus=1 if explicit else 0)
    return ActorOptions(
        required=required,
        placement=required if explicit else _resources(given, default_cpus=1),
        name=name,
        namespace=_check_str("namespace", given.get("namespace")),
        get_if_exists=bool(get_if_exists),
        lifetime=lifetime,
        max_restarts=max_restarts,
        max_task_retries=max_task_retries,
        max_concurrency=max_concurrency or 0,
        max_pending_calls=max_pending_calls,
        must_be_in_order=given.get("allow_out_of_order_execution") is False,
        concurrency_groups=groups,
        runtime_env=wanted(given.get("runtime_env")),
        threads=_threads(given),
    )


def method_options(given: Mapping[str, Any], *, generator: bool | None = None) -> MethodOptions:
    """Check the keywords of ``@method`` or ``.options`` on an actor's method. Raises as `task_options`.

    Args:
      generator: whether the method is one; None: not known here.
    """
    _check_names(given, _METHOD, "methods of actors")
    num_returns = _num_returns(given.get("num_returns"), generator=generator)
    if given.get("max_task_retries") is not None:
        _check_int("max_task_retries", given["max_task_retries"], least=-1)
    retry_exceptions = given.get("retry_exceptions")
    if not isinstance(retry_exceptions, (bool, type(None))):
        raise TypeError(f"retry_exceptions of a method must be True or False, not {retry_exceptions!r}")
    group = _check_str("concurrency_group", given.get("concurrency_group"))
    backpressure = _backpressure(given.get(_BACKPRESSURE))
    return MethodOptions(num_returns, given.get("max_task_retries"), retry_exceptions, group, backpressure)


def _threads(given: Mapping[str, Any]) -> int:
    """A thread for each whole CPU; 0 for one, so that most work has one environment."""
    cpus = int(given.get("num_cpus") or 0)
    return cpus if cpus > 1 else 0


def _num_returns(given: Any, *, generator: bool | None) -> int | None:
    """A number, STREAMING or DYNAMIC; None: not said."""
    if isinstance(given, str):
        if given not in _GENERATOR_RETURNS:
            raise ValueError(f"num_returns must be a number, 'streaming' or 'dynamic', not {given!r}")
        if generator is False:
            raise ValueError(f"num_returns={given!r} is for generators: functions with a yield")
        return _GENERATOR_RETURNS[given]
    if given is not None:
        _check_int("num_returns", given, least=0)
    number: int | None = given
    return number


def _backpressure(given: Any) -> int | None:
    """Items of a generator that may be ahead of its consumer; -1: any number; None: not said."""
    if given is None or given == -1:
        return given  # type: ignore[no-any-return]
    _check_int(_BACKPRESSURE, given, least=1)
    number: int = given
    return number


def _retry_on(given: Any) -> tuple[type[BaseException], ...]:
    """The exceptions after which a task is run again."""
    if isinstance(given, bool):
        return (Exception,) if given else ()
    if isinstance(given, list) and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in given):
        return tuple(given)
    error = ValueError if isinstance(given, list) else TypeError
    raise error(f"retry_exceptions must be True, False or a list of exception classes, not {given!r}")


def _resources(given: Mapping[str, Any], *, default_cpus: float) -> dict[str, int]:
    num_cpus, resources = given.get("num_cpus"), given.get("resources")
    if not isinstance(resources, (dict, type(None))):
        raise TypeError(f"resources must be a dict of names and amounts, not {type(resources).__name__} {resources!r}")
    accelerator = _check_str("accelerator_type", given.get("accelerator_type"))
    if accelerator is not None:
        resources = {**(resources or {}), f"accelerator_type:{accelerator}": ACCELERATOR_SHARE}
    parts = ResourceSet.of(
        num_cpus=default_cpus if num_cpus is None else num_cpus,
        num_gpus=given.get("num_gpus"),
        memory=given.get("memory"),
        resources=resources,
    ).parts()
    store = given.get("object_store_memory")
    if store is not None:
        _check_int("object_store_memory", store, least=0)
        warnings.warn(
            "object_store_memory of an actor reserves no memory of the object store: leave it out",
            DeprecationWarning,
            stacklevel=5,
        )
        parts.update({"object_store_memory": store * SCALE} if store else {})
    return parts


def _check_names(given: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    for name in given:
        if name == "object_store_memory" and name not in known:
            raise ValueError("object_store_memory cannot be set for tasks: what they return takes what it needs")
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            valid = ", ".join(sorted(known))
            raise ValueError(f"Invalid option keyword {name} for {what}{hint}; valid ones are {valid}")


def _check_int(name: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _check_str(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__} {value!r}")
    return value
