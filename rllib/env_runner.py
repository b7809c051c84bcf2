"""A rollout worker: environments, the policy that acts in them, and nothing that learns.

A plain class; ``Algorithm`` makes actors of it and ``WorkerSet`` talks to them. Weights arrive with each request (as an
object-store reference that the runtime has resolved), batches leave as return values. Imports no torch.

The constructor only stores, so that a failing environment is the error of a call, with its own traceback, and not
the death of an actor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..envs import registry
from ..envs.columns import UnsupportedSpace
from ..envs.serial import SerialVectorEnv
from ..envs.vector import Episode, VectorEnv
from . import spaces, streams
from .batch import Batch
from .config import ConfigError
from .evaluation import play_episodes
from .policy import Policy
from .rollout import collect
from .weights import PolicySpec, Weights


class EnvRunner:
    """Some of a run's environment copies.

    Args:
      env_id: The environment's name.
      worker_index: This worker's index, for messages.
      env_indices: Which of the run's copies live here.
      seed: The run's seed.
      resumed_at: Iteration at which the run was resumed; 0 if it was not.
      replacement: How often this worker was replaced; with ``resumed_at`` it keeps new copies from repeating old
        episodes.
    """

    def __init__(
        self,
        *,
        env_id: str,
        worker_index: int,
        env_indices: Sequence[int],
        seed: int,
        resumed_at: int = 0,
        replacement: int = 0,
    ) -> None:
        self._env_id = env_id
        self._worker_index = worker_index
        self._env_indices = env_indices
        self._seed = seed
        self._resumed_at = resumed_at
        self._replacement = replacement
        self._opened: VectorEnv | None = None
        self._to_reset = True

    def policy_spec(self, hidden_sizes: tuple[int, ...]) -> PolicySpec:
        """The shape of the policy that fits the environment.

        Raises:
          ConfigError: the environment's spaces are not supported.
          EnvFailure: the environment's constructor raised.
        """
        envs = self._envs()
        return spaces.policy_spec(self._env_id, envs.observation_space, envs.action_space, hidden_sizes)

    def collect(self, weights: Weights, num_steps: int, iteration: int) -> Batch:
        """Act for ``num_steps`` steps in each copy, going on where the last call stopped.

        Args:
          weights: What to act with.
          num_steps: T.
          iteration: Number of this rollout in the run; picks the random streams of the actions.

        Raises:
          EnvFailure: an environment raised.
        """
        envs = self._envs()
        if self._to_reset:
            envs.reset()
            self._to_reset = False
        action_streams = [streams.action_stream(self._seed, index, iteration) for index in self._env_indices]
        return collect(envs, Policy(weights), num_steps, action_streams)

    def evaluate(self, weights: Weights, episodes: Sequence[int]) -> list[Episode]:
        """Play the evaluation episodes with these numbers, deterministically, in environments of their own.

        Raises:
          EnvFailure: an environment raised.
        """
        return play_episodes(self._env_id, Policy(weights), episodes, self._seed, worker_index=self._worker_index)

    def resume(self, iteration: int) -> None:
        """Start new episodes at the next ``collect``, with the seeds of a run resumed at this iteration."""
        self._resumed_at = iteration
        self._to_reset = True
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _envs(self) -> VectorEnv:
        if self._opened is None:
            make = partial(registry.make, self._env_id)
            seeds = streams.environment_seeds(self._seed, self._resumed_at, self._replacement)
            try:
                self._opened = SerialVectorEnv(make, self._env_indices, seeds, worker_index=self._worker_index)
            except UnsupportedSpace as error:
                raise ConfigError(f"env: {self._env_id!r}: {error}") from error
        return self._opened
