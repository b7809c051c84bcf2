"""The rows of the state API, what `list_tasks` and the like give, and how they are chosen. Ray's names and fields.

A row has its fields as attributes and as keys: ``row.state``, ``row["state"]``. Fields marked as detail are None unless
``detail=True`` was asked for; with it, filters may name them too. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import StateApiError

#: (key, "=" or "!=", value).
Filter = tuple[str, str, Any]
#: Marks a field that is told only when details are asked for.
DETAIL = {"detail": True}


@dataclass(slots=True)
class Row:
    """Base of all rows."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        return getattr(self, name, default)

    def keys(self) -> list[str]:
        """The names of all fields."""
        return [f.name for f in dataclasses.fields(self)]

    def values(self) -> list[Any]:
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self]

    def asdict(self) -> dict[str, Any]:
        """The row as a plain dict."""
        return dict(self.items())


R = TypeVar("R", bound=Row)


@dataclass(slots=True)
class TaskState(Row):
    """One attempt at a task, an actor's creation or a call."""

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str | None
    node_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    owner_id: str | None = field(default=None, metadata=DETAIL)
    language: str | None = field(default=None, metadata=DETAIL)
    required_resources: dict[str, float] | None = field(default=None, metadata=DETAIL)
    runtime_env_info: dict[str, Any] | None = field(default=None, metadata=DETAIL)
    placement_group_id: str | None = field(default=None, metadata=DETAIL)
    events: list[dict[str, Any]] | None = field(default=None, metadata=DETAIL)
    profiling_data: dict[str, Any] | None = field(default=None, metadata=DETAIL)
    creation_time_ms: float | None = field(default=None, metadata=DETAIL)
    start_time_ms: float | None = field(default=None, metadata=DETAIL)
    end_time_ms: float | None = field(default=None, metadata=DETAIL)
    task_log_info: dict[str, Any] | None = field(default=None, metadata=DETAIL)
    error_message: str | None = field(default=None, metadata=DETAIL)
    is_debugger_paused: bool | None = field(default=None, metadata=DETAIL)
    call_site: str | None = field(default=None, metadata=DETAIL)
    label_selector: dict[str, str] | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class ActorState(Row):
    """An actor, living or dead."""

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str
    node_id: str | None
    pid: int
    ray_namespace: str
    worker_id: str | None = field(default=None, metadata=DETAIL)
    owner_id: str | None = field(default=None, metadata=DETAIL)
    serialized_runtime_env: str | None = field(default=None, metadata=DETAIL)
    required_resources: dict[str, float] | None = field(default=None, metadata=DETAIL)
    death_cause: str | None = field(default=None, metadata=DETAIL)
    is_detached: bool | None = field(default=None, metadata=DETAIL)
    placement_group_id: str | None = field(default=None, metadata=DETAIL)
    repr_name: str | None = field(default=None, metadata=DETAIL)
    num_restarts: int | None = field(default=None, metadata=DETAIL)
    num_restarts_due_to_node_preemption: int | None = field(default=None, metadata=DETAIL)
    call_site: str | None = field(default=None, metadata=DETAIL)
    label_selector: dict[str, str] | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class ObjectState(Row):
    """An object as one process holds it: there is a row for each of them."""

    object_id: str
    object_size: int
    task_status: str
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str
    attempt_number: int = 0
    worker_id: str | None = field(default=None, metadata=DETAIL)
    owner_id: str | None = field(default=None, metadata=DETAIL)
    is_stored: bool | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class WorkerState(Row):
    """A process of the session: the driver, or a worker."""

    worker_id: str
    is_alive: bool
    worker_type: str
    exit_type: str | None
    node_id: str
    ip: str
    pid: int
    exit_detail: str | None = field(default=None, metadata=DETAIL)
    worker_launch_time_ms: float | None = field(default=None, metadata=DETAIL)
    worker_launched_time_ms: float | None = field(default=None, metadata=DETAIL)
    start_time_ms: float | None = field(default=None, metadata=DETAIL)
    end_time_ms: float | None = field(default=None, metadata=DETAIL)
    debugger_port: int | None = field(default=None, metadata=DETAIL)
    num_paused_threads: int | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class NodeState(Row):
    """A machine."""

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: str | None
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str]
    start_time_ms: float | None = field(default=None, metadata=DETAIL)
    end_time_ms: float | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class PlacementGroupState(Row):
    """A placement group."""

    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
    bundles: list[dict[str, Any]] | None = field(default=None, metadata=DETAIL)
    is_detached: bool | None = field(default=None, metadata=DETAIL)
    stats: dict[str, Any] | None = field(default=None, metadata=DETAIL)


@dataclass(slots=True)
class JobState(Row):
    """A driver's session."""

    job_id: str
    submission_id: str | None
    type: str
    status: str
    entrypoint: str
    driver_info: dict[str, Any] | None
    message: str | None = None
    error_type: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None


def check_filters(kind: type[Row], filters: Sequence[Filter], *, detail: bool) -> None:
    """Raise `StateApiError` for a filter that no row of this kind could pass or fail."""
    names = [f.name for f in dataclasses.fields(kind) if detail or not f.metadata.get("detail")]
    for entry in filters:
        if len(entry) != 3:
            raise StateApiError(f'a filter is (key, "=" or "!=", value), not {entry!r}')
        key, predicate, _ = entry
        if predicate not in ("=", "!="):
            raise StateApiError(f'unsupported filter predicate {predicate!r} of {entry!r}; there are "=" and "!="')
        if key not in names:
            later = key in {f.name for f in dataclasses.fields(kind)}
            raise StateApiError(
                f"invalid filter key {key!r}: "
                + ("ask with detail=True for it" if later else f"the keys are {', '.join(names)}")
            )


def passes(row: Row, filters: Iterable[Filter]) -> bool:
    """Whether a row has all the values that filters ask for. Text is compared whatever its case, numbers and truth
    values also with what they are written as.
    """
    return all((_plain(row[key]) == _plain(value)) == (predicate == "=") for key, predicate, value in filters)


def without_details(row: R) -> R:
    """The row with its detail fields as None."""
    for f in dataclasses.fields(row):
        if f.metadata.get("detail"):
            setattr(row, f.name, None)
    return row


def _plain(value: Any) -> str:
    return str(value).lower()
