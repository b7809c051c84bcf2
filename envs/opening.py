"""Opening a vector environment by name: which of the implementations steps the copies.

    serial     one after the other, in this process (``serial.py``; in groups, ``parted.py``); the default
    parallel   in other processes, over one shared block (``parallel.py``)
    batched    as arrays, for environments whose equations are in ``classic.py``
    gymnasium  by gymnasium's own vector environment of that name (``make_vec``), or by the one that the user's
               ``module:attribute`` makes, if it asks for ``num_envs``
    envpool    by EnvPool: what it has under gymnasium's names, and ``atari/GAME``
    ale        by ALE's own vector environment: ``atari/GAME``

The last three keep their own counsel about episodes: a run on them cannot go on in the midst of one (``foreign.py``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Literal

from . import registry
from .atari_options import AtariOptions
from .batched import BatchedVectorEnv
from .classic import CLASSIC
from .foreign import ForeignVectorEnv
from .libraries import AtariLearningEnvironment, EnvPool, Gymnasium
from .parallel import ParallelVectorEnv
from .parted import PartedVectorEnv
from .registry import ATARI, UnknownEnvironment
from .seeds import SeedOfEpisode
from .serial import SerialVectorEnv
from .vector import USUAL_CHECKS, Checks, EnvFailure, VectorEnv

Vector = Literal["serial", "parallel", "batched", "gymnasium", "envpool", "ale"]


def open_vector(
    env_id: str,
    env_indices: Sequence[int],
    seeds: SeedOfEpisode,
    *,
    vector: Vector = "serial",
    num_processes: int = 0,
    num_groups: int = 1,
    worker_index: int | None = None,
    checks: Checks = USUAL_CHECKS,
) -> VectorEnv:
    """Copies of an environment.

    Args:
      env_id: The environment's name, see ``registry``; wrappers in it are understood by "serial" and "parallel".
      env_indices: Index of each copy among all copies of the run.
      seeds: (index, episode number) -> seed of the reset that starts the episode.
      vector: Which implementation.
      num_processes: Of "parallel"; 0 takes as many as there are cores, but no more than copies.
      num_groups: Of "serial" and "parallel": parts of the copies that can be stepped apart.
      worker_index: The rollout worker that they live in, for messages.
      checks: Which numbers are refused.

    Raises:
      UnknownEnvironment: there is no such environment, or not in this implementation, or not in wrappers.
      MissingLibrary: what the implementation needs is not installed.
      EnvFailure: an environment cannot be made.
      UnsupportedSpace: its spaces have no columns.
    """
    options: dict[str, Any] = {"worker_index": worker_index, "checks": checks}
    check(env_id, vector)
    if vector in ("serial", "parallel"):
        make = functools.partial(registry.make, env_id)
        if vector == "serial" and num_groups > 1:
            return PartedVectorEnv(make, env_indices, seeds, num_groups=num_groups, **options)
        if vector == "serial":
            return SerialVectorEnv(make, env_indices, seeds, **options)
        processes = min(num_processes or os.cpu_count() or 1, max(1, len(env_indices) // num_groups))
        return ParallelVectorEnv(make, env_indices, seeds, num_processes=processes, num_groups=num_groups, **options)
    if vector == "batched":
        return BatchedVectorEnv(CLASSIC[env_id](), env_indices, seeds, **options)
    first_seeds = [seeds(int(index), 0) for index in env_indices]
    return ForeignVectorEnv(_foreign(env_id, vector, first_seeds), env_indices, seeds, **options)


def check(env_id: str, vector: Vector) -> None:
    """Make sure that an implementation has an environment, without constructing it; as far as that can be known.

    Raises:
      UnknownEnvironment: it has not.
    """
    name, wrappers = registry.split(env_id)
    if wrappers and vector not in ("serial", "parallel"):
        raise UnknownEnvironment(
            f"{name} by {vector} takes no wrappers ({', '.join(wrappers)}): serial and parallel do"
        )
    if vector == "batched" and name not in CLASSIC:
        raise UnknownEnvironment(f"{name} has no batched form: there are {', '.join(CLASSIC)}")
    if vector == "ale" and not name.startswith(ATARI):
        raise UnknownEnvironment(f"{name} is no Atari game for ALE's vector environment: {ATARI}pong is one")
    registry.check(env_id)  # everywhere: evaluation plays ordinary copies
    if vector != "gymnasium" and registry.makes_vectors(registry.find(name)):
        raise UnknownEnvironment(f"{name} makes vector environments, which vector gymnasium steps, not {vector}")


def _foreign(env_id: str, vector: Vector, seeds: list[int]) -> Gymnasium | EnvPool | AtariLearningEnvironment:
    game = env_id.removeprefix(ATARI) if env_id.startswith(ATARI) else None
    try:
        if vector == "ale":
            return AtariLearningEnvironment(env_id.removeprefix(ATARI), len(seeds), AtariOptions())
        if vector == "envpool":
            if game is None:
                return EnvPool(env_id, seeds)
            task = "".join(word.capitalize() for word in game.split("_")) + "-v5"
            return EnvPool(task, seeds, AtariOptions())
        return Gymnasium(_make_gymnasium(env_id, len(seeds)))
    except ImportError:
        raise
    except Exception as error:
        raise EnvFailure(f"{env_id} by {vector} cannot be made: {type(error).__name__}: {error}") from error


def _make_gymnasium(env_id: str, num_envs: int) -> Any:
    import gymnasium

    constructor = registry.find(env_id)
    if registry.makes_vectors(constructor):
        return constructor(num_envs=num_envs)
    registry.prepare(gymnasium.spec(env_id))
    return gymnasium.make_vec(env_id, num_envs)
