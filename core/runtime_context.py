"""Where the calling code runs: ``get_runtime_context()``."""

from __future__ import annotations

import os
from typing import Any

from .engines.base import ActorDescription, Place
from .engines.current import engine
from .environments.runtime_env import RuntimeEnv
from .ray_compat.ray_ids import ActorID, JobID, NodeID, TaskID
from .remote import ActorHandle

#: Kinds of accelerators that Ray knows beside GPUs; programs look for theirs.
_OTHER_ACCELERATORS = ("FURIOSA", "HPU", "MBLT", "NPU", "RBLN", "TPU", "TTNPU", "neuron_cores")


class RuntimeContext:
    """The job, node, worker, task and actor that the caller belongs to; ids in hexadecimal. A snapshot."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def get_job_id(self) -> str:
        return self._place.job_id.hex()

    def get_node_id(self) -> str:
        return self._place.node_id.hex()

    def get_worker_id(self) -> str:
        return self._place.worker_id.hex()

    def get_task_id(self) -> str | None:
        """None in a driver, and in threads that user code has started."""
        return self._place.task_id.hex() or None

    # What Ray calls deprecated and programs still use: the same as objects.

    @property
    def job_id(self) -> JobID:
        return JobID(self._place.job_id)

    @property
    def node_id(self) -> NodeID:
        return NodeID(self._place.node_id)

    @property
    def task_id(self) -> TaskID | None:
        """None in a driver."""
        return TaskID(self._place.task_id) if self._place.task_id else None

    @property
    def actor_id(self) -> ActorID | None:
        """None outside actors."""
        return ActorID(self._place.actor_id) if self._place.actor_id else None

    def get(self) -> dict[str, Any]:
        """job_id, node_id and namespace; task_id and actor_id where there are such."""
        all_of_them = {name: getattr(self, name) for name in ("job_id", "node_id", "task_id", "actor_id", "namespace")}
        return {name: value for name, value in all_of_them.items() if value is not None}

    def get_task_name(self) -> str | None:
        return self._place.task_name or None

    def get_actor_id(self) -> str | None:
        """None outside actors."""
        return self._place.actor_id.hex() or None

    def get_actor_name(self) -> str | None:
        """Empty for an actor without a name, None outside actors."""
        return None if not self._place.actor_id else self._actor("get_actor_name").name

    @property
    def current_actor(self) -> ActorHandle:
        """A handle to the actor that asks; it does not keep the actor alive.

        Raises:
          RuntimeError: the caller is not in an actor.
        """
        return ActorHandle(self._actor("current_actor").identity)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that asks has been restarted. Raises as `current_actor`."""
        return self._actor("was_current_actor_reconstructed").restarts > 0

    def get_session_name(self) -> str:
        """The name of the session's directory; empty if it has none."""
        return os.path.basename(engine().directory())

    def get_temp_dir(self) -> str:
        """Where the session's directory is."""
        return os.path.dirname(engine().directory())

    def is_canceled(self) -> bool:
        """Whether the call of an actor in which this is asked has been cancelled: then it should come to its end.

        Raises:
          RuntimeError: this is no call of an actor.
        """
        if not self._place.actor_id or not self._place.task_id:
            raise RuntimeError("is_canceled() can only be asked in a method of an actor: tasks get KeyboardInterrupt")
        return engine().is_canceled()

    def get_node_labels(self) -> dict[str, str]:
        """Of the node that the caller runs on."""
        return dict(self._place.node_labels)

    def get_assigned_resources(self) -> dict[str, float]:
        """What the calling task, or actor, holds: ``{"CPU": 1.0}``. In a placement group under the plain names, too.

        Raises:
          RuntimeError: called in a driver, which holds nothing.
        """
        if not self._place.task_id and not self._place.actor_id:
            raise RuntimeError("get_assigned_resources: a driver holds no resources; call it in a task or an actor")
        return self._place.equipment.resources()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Ids of the accelerators that the caller may use, by kind; there are only GPUs here."""
        return {**{kind: [] for kind in _OTHER_ACCELERATORS}, "GPU": list(self._place.equipment.gpus)}

    def get_placement_group_id(self) -> str | None:
        """None outside of placement groups."""
        return self._place.equipment.group.hex() or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what the caller submits runs in its placement group, unless told otherwise."""
        return self._place.equipment.captures

    @property
    def runtime_env(self) -> RuntimeEnv:
        """What the caller's process was started with. `working_dir` and `py_modules` are the copies."""
        return RuntimeEnv.of_process(engine().environment())

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return self.runtime_env.serialize()

    def _actor(self, what: str) -> ActorDescription:
        description = engine().describe_actor(self._place.actor_id) if self._place.actor_id else None
        if description is None:
            raise RuntimeError(f"{what} can only be asked in an actor")
        return description

    @property
    def gcs_address(self) -> str:
        """Of the cluster; of a session on this machine what stands for one: no other process can connect to it."""
        return engine().address()

    @property
    def namespace(self) -> str:
        """Where names of actors are looked up that come without a namespace."""
        return self._place.namespace


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs that the calling task or actor may use, which is what it sees in CUDA_VISIBLE_DEVICES; [] in a driver.

    Numbers, or what CUDA_VISIBLE_DEVICES held for the session as a whole if it was set.
    """
    place = engine().place()
    gpus = place.equipment.gpus
    return list(gpus) if place.gpus_listed else [int(gpu) for gpu in gpus]


def get_runtime_context() -> RuntimeContext:
    """Where the caller runs.

    Example:
      >>> shoal.get_runtime_context().get_node_id()
    """
    return RuntimeContext(engine().place())
