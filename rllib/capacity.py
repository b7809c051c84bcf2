"""What this machine, or this container, has room for, as far as that can be told before anything is started.

Bounds from below: what a run needs at the very least, whatever its environment gives. So a run that is let through may
need more than there is; one that is refused could never have begun. What the nets need is told by ``PolicySpec``, once
the spaces are known.
"""

from __future__ import annotations

import os

from ..core.scheduling.memory import memory_bytes
from .config import AlgorithmConfig, ConfigError, RolloutSettings

#: A row of a batch, see ``rollouts/batch.py``: four numbers in float32, four flags, an action, and an observation of
#: one byte.
_ROW_BYTES = 4 * 4 + 4 + 4 + 1
#: An environment that is a Python object: its spaces and generators alone are more.
_OBJECT_BYTES = 1_000
#: One that is a row of arrays: its number and seed, and the state of its episode.
_COLUMN_BYTES = 64
#: Private memory of an idle worker process: 10.6 MB, as `shoal soak limits` measures.
_PROCESS_BYTES = 10_000_000
#: Settings that say how many processes there are, beside the driver's own if it is more than one; env_processes are of
#: each worker.
_PROCESSES = ("num_workers", "num_learners", "num_shards", "num_inference_actors", "env_processes")


def gigabytes(amount: float) -> str:
    """So many bytes in GB, for messages: two digits at least, for containers may be small."""
    return f"{amount / 1e9:,.0f} GB" if amount >= 1e10 else f"{amount / 1e9:.2g} GB"


def check_rollouts_fit(config: AlgorithmConfig) -> None:
    """Make sure that there is room for the copies of the environment and for one rollout of them.

    Raises:
      ConfigError: there is none.
    """
    if not isinstance(config, RolloutSettings):
        return
    steps: int = getattr(config, "rollout_steps", 1)  # each algorithm has its own, for its own reasons
    copy_bytes = _OBJECT_BYTES if config.vector in ("serial", "parallel") else _COLUMN_BYTES
    needed, there = config.num_envs * (copy_bytes + steps * _ROW_BYTES), memory_bytes()
    if needed > there:
        raise ConfigError(
            f"num_envs {config.num_envs:,} and rollout_steps {steps:,}: a rollout of {config.num_envs * steps:,} rows "
            f"needs {gigabytes(needed)} at least; there are {gigabytes(there)} here: take fewer"
        )


def check_workers_fit(config: AlgorithmConfig) -> None:
    """Make sure that there is room for the workers, learners, shards and the like, where they are processes of this
    machine.

    Raises:
      ConfigError: there is none.
    """
    counts = {field: count for field in _PROCESSES if (count := getattr(config, field, 0)) > 1}
    processes = sum(count * (config.num_workers if field == "env_processes" else 1) for field, count in counts.items())
    needed, there = processes * _PROCESS_BYTES, memory_bytes()
    if needed > there:
        told = " and ".join(f"{field} {count:,}" for field, count in counts.items())
        raise ConfigError(
            f"{told}: so many processes need {gigabytes(needed)} at least; there are "
            f"{gigabytes(there)} here: take as many as there are cores ({os.cpu_count()})"
        )


def check_numbers_fit(setting: str, count: int) -> None:
    """Make sure that there is room for so many numbers in float32, which a setting asks for.

    Raises:
      ConfigError: there is none.
    """
    needed, there = 4 * count, memory_bytes()
    if needed > there:
        raise ConfigError(
            f"{setting} {count:,}: so many numbers need {gigabytes(needed)}; there are "
            f"{gigabytes(there)} here: take fewer"
        )
