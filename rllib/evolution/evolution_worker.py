"""The worker of an evolution strategy: environments, candidates' nets, and nothing that learns.

A plain class, of which actors are made (``crew.py``). It gets a generation by reference and the number of a task, and
sends back a report of some dozens of bytes a pair:

    task t >= 0    block t of pairs
    task t < 0     episode -1 - t of the centre

A report is a function of the generation, the task and the run's seed, so it does not matter which worker makes it, or
how often; or whether the task's episodes are played side by side, or one by one as where one has killed its worker.
Imports no torch. As in ``EnvRunner``, the constructor makes nothing that can fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...core import api
from ...envs import registry
from ...envs.columns import UnsupportedSpace
from ...envs.copies import EnvCopy
from ...envs.registry import MissingLibrary, UnknownEnvironment
from ...envs.vector import Episode
from ..config import ConfigError
from ..policies.policy import Policy
from ..policies.policy_spec import NetworkSettings, PolicySpec, policy_spec
from ..policies.weights import Weights
from ..rollouts.evaluation import play_episodes
from ..threads import limit_matrix_threads
from .candidate_player import CandidatePlayer, Generation, Outcome, PlaySettings
from .noise import Noise, PhiloxNoise, TableNoise


@dataclass(frozen=True)
class NoiseSource:
    """Where a process gets the run's noise from."""

    seed: int  #: the run's
    table: Any = None  #: reference to the table in the object store; None: from a counter-based generator

    def open(self, size: int) -> Noise:
        """The noise of vectors of this size; the table is not copied."""
        if self.table is None:
            return PhiloxNoise(seed=self.seed, size=size)
        return TableNoise(api.get(self.table), seed=self.seed, size=size)


class EvolutionWorker:
    """Plays what it is asked for.

    Args:
      settings: How to play.
      noise: What pairs are made with.
      worker_index: This worker's index, for messages.
    """

    def __init__(self, *, settings: PlaySettings, noise: NoiseSource, worker_index: int) -> None:
        self._settings, self._noise, self._worker_index = settings, noise, worker_index
        self._player: CandidatePlayer | None = None
        limit_matrix_threads(1)

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy that fits the environment.

        Raises:
          ConfigError: the environment's spaces are not supported, or do not fit the network; or it is unknown here.
          EnvFailure: the environment's constructor raised.
        """
        env_id = self._settings.env_id
        try:
            copy = EnvCopy(partial(registry.make, env_id), 0, worker_index=self._worker_index)
        except UnsupportedSpace as error:
            raise ConfigError(f"env: {env_id!r}: {error}") from error
        except UnknownEnvironment as error:  # the driver knew it
            raise ConfigError(
                f"env: {error} in worker {self._worker_index}; if the driver's own program defines or registers it, "
                f"that belongs in a module, named as in my_games:Maze or my_games:Maze-v0"
            ) from error
        except MissingLibrary as error:
            raise ConfigError(f"env: {error}") from error
        try:
            return policy_spec(env_id, copy.observation_space, copy.action_space, network)
        finally:
            copy.close()

    def play(self, generation: Generation, task: int) -> bytes:
        """Do a task; gives a ``Report`` as it travels.

        Raises:
          EnvFailure: an environment raised, or gave what cannot be used.
          ConfigError: the settings do not fit the environment.
        """
        player = self._player_for(generation)
        report = player.play(generation, task) if task >= 0 else player.play_centre(generation, -1 - task)
        return report.to_bytes()

    def titles(self, generation: Generation, task: int) -> list[str]:
        """What the episodes of a task are called. Makes all that playing them needs."""
        return self._player_for(generation).titles(generation, task)

    def play_one(self, generation: Generation, task: int, place: int) -> Outcome:
        """Play one episode of a task; raises what ``play`` raises."""
        return self._player_for(generation).play_one(generation, task, place)

    def join(self, generation: Generation, task: int, outcomes: Sequence[Outcome]) -> bytes:
        """What ``play`` would have told, of episodes that were played one by one."""
        return self._player_for(generation).join(generation, task, outcomes).to_bytes()

    def evaluate(self, weights: Weights, episodes: Sequence[int]) -> list[Episode]:
        """Play the evaluation episodes with these numbers, in environments of their own.

        Raises:
          EnvFailure: an environment raised.
        """
        return play_episodes(
            self._settings.env_id,
            Policy(weights),
            episodes,
            self._settings.seed,
            worker_index=self._worker_index,
            checks=self._settings.checks,
        )

    def _player_for(self, generation: Generation) -> CandidatePlayer:
        if self._player is None:
            noise = self._noise.open(len(generation.asked.centre))
            self._player = CandidatePlayer(self._settings, generation.spec, noise, self._worker_index)
        return self._player
