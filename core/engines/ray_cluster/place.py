"""Where code runs on a Ray cluster, and what it holds there: Ray's runtime context as a `base.Place`.

`get_runtime_context()` of Ray answers out of the process's memory, but each question costs 5 to 70 us; so what never
changes in a process is asked once, and what work holds once for each piece of work: it cannot change while it runs.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import ray

from ...runtime.equipment import BARE, Equipment
from ...scheduling import bundles
from ..base import Place
from .nodes import parts


@dataclass(frozen=True, slots=True)
class _Process:
    """What is the same all through a process. A worker of Ray's serves one job."""

    job_id: bytes
    node_id: bytes
    worker_id: bytes
    namespace: str
    labels: dict[str, str]
    is_worker: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """A task or call, and what it holds. `gpus_listed`: see `base.Place`."""

    task_id: str
    equipment: Equipment
    gpus_listed: bool


class Places:
    """Answers `base.Engine.place` for this process. Any thread."""

    def __init__(self) -> None:
        self._process: _Process | None = None
        #: The last work of each thread: concurrent calls of an actor have one each.
        self._known = threading.local()

    def here(self) -> Place:
        """Where the calling code runs."""
        context = ray.get_runtime_context()
        process = self._process
        if process is None:
            process = self._process = _process(context)
        task_id = actor_id = task_name = ""
        work = _Work("", BARE, gpus_listed=False)
        if process.is_worker:
            task_id, actor_id = context.get_task_id() or "", context.get_actor_id() or ""
            task_name = context.get_task_name() or ""
            known = getattr(self._known, "work", None)
            if known is None or known.task_id != task_id:
                known = self._known.work = _work(context, task_id)
            work = known
        return Place(
            job_id=process.job_id,
            node_id=process.node_id,
            worker_id=process.worker_id,
            task_id=bytes.fromhex(task_id),
            task_name=task_name,
            actor_id=bytes.fromhex(actor_id),
            namespace=process.namespace,
            equipment=work.equipment,
            gpus_listed=work.gpus_listed,
            node_labels=process.labels,
        )


def session_directory() -> str:
    """Of this node."""
    context = ray.get_runtime_context()
    return os.path.join(str(context.get_temp_dir()), str(context.get_session_name()))


def _process(context: Any) -> _Process:
    return _Process(
        job_id=bytes.fromhex(context.get_job_id()),
        node_id=bytes.fromhex(context.get_node_id()),
        worker_id=bytes.fromhex(context.get_worker_id()),
        namespace=context.namespace,
        labels=dict(context.get_node_labels()),
        is_worker=context.worker.mode == ray.WORKER_MODE,
    )


def _work(context: Any, task_id: str) -> _Work:
    held = parts(context.get_assigned_resources())
    group, captures = context.get_placement_group_id(), context.should_capture_child_tasks_in_placement_group
    gpus = ray.get_gpu_ids()
    return _Work(
        task_id,
        Equipment(
            bundles.inside(held, group) if group else held,
            tuple(map(str, gpus)),
            captures=bool(group) and captures,
        ),
        gpus_listed=any(isinstance(gpu, str) for gpu in gpus),
    )
