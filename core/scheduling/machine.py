"""What a machine offers to a session: resources, the ids of its GPUs, labels. Ray's names.

    CPU GPU memory object_store_memory     amounts; memory in bytes
    node:<address>  node:__internal_head__ 1 each: work can be tied to a node by asking for a little of these
    accelerator_type:<model>               1, where there are GPUs

GPUs are those that ``CUDA_VISIBLE_DEVICES`` lists; where it is not set, those that the driver of the system lists. No
library of the GPUs is loaded for it.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..resources import ResourceSet
from .labels import check_labels

#: Which GPUs a process may use: ids or numbers, with commas between.
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
#: What everything here says its address is.
ADDRESS = "127.0.0.1"
#: What stands for the address of a cluster; nobody can connect to it.
CLUSTER_ADDRESS = f"{ADDRESS}:0"
#: Of an actor or task that asks for a model of accelerator, and of a node that has it.
ACCELERATOR_SHARE = 0.001

_MODEL = re.compile(r"\w+\s+([A-Z0-9]+)")


@dataclass(frozen=True)
class Machine:
    """What the session's node has. `resources` in 1/10_000; `gpus_listed`: the ids are from ``CUDA_VISIBLE_DEVICES``,
    else they are numbers.
    """

    resources: dict[str, int]
    gpus: list[str]
    gpus_listed: bool
    labels: dict[str, str]


def offer(
    *,
    num_cpus: float,
    num_gpus: float | None,
    memory_bytes: float,
    store_bytes: int,
    resources: Mapping[str, float] | None,
    labels: Mapping[str, str] | None,
    environ: Mapping[str, str],
) -> Machine:
    """What `init` offers, by its arguments and what the machine has.

    Args:
      num_gpus: None: as many as there are.

    Raises:
      TypeError, ValueError: an argument is of the wrong type or out of range; more GPUs than are visible.
    """
    own_labels = check_labels({} if labels is None else labels)
    visible = visible_gpus(environ)
    if num_gpus is None:
        found = _installed_gpus()
        num_gpus = found if visible is None else min(found, len(visible))
    elif visible is not None and num_gpus > len(visible):
        raise ValueError(
            f"num_gpus={num_gpus}, but {VISIBLE_DEVICES}={environ[VISIBLE_DEVICES]!r} leaves {len(visible)} visible"
        )
    own = {f"node:{ADDRESS}": 1.0, "node:__internal_head__": 1.0}
    model = _model() if num_gpus else ""
    if model:
        own[f"accelerator_type:{model}"] = 1.0
        own_labels.setdefault("ray.io/accelerator-type", model)
    given = ResourceSet.of(num_cpus=num_cpus, num_gpus=num_gpus, memory=memory_bytes, resources=resources)
    store = ResourceSet.of(memory=store_bytes).parts()["memory"]
    parts = {**given.parts(), "object_store_memory": store, **ResourceSet.of(resources=own).parts()}
    count = -(-parts.get("GPU", 0) // 10_000)
    gpus = [str(n) for n in range(count)] if visible is None else visible[:count]
    return Machine(parts, gpus, visible is not None, own_labels)


def visible_gpus(environ: Mapping[str, str]) -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` lists; None if it is not set."""
    listed = environ.get(VISIBLE_DEVICES)
    if listed is None:
        return None
    return [] if listed == "NoDevFiles" else [entry.strip() for entry in listed.split(",") if entry.strip()]


def _installed_gpus() -> int:
    return len(glob.glob("/proc/driver/nvidia/gpus/*")) or len(glob.glob("/dev/nvidia[0-9]*"))


def _model() -> str:
    """The model of the first GPU, as Ray calls it: ``H200`` of "NVIDIA H200"."""
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # not ours to read: the GPU works without its name
        for line in text.splitlines():
            key, _, value = line.partition(":")
            found = _MODEL.match(value.strip())
            if key.strip() == "Model" and found:
                return found.group(1)
    return ""
