"""A rollout worker: environments, the policy that acts in them, and nothing that learns.

A plain class; ``Algorithm`` makes actors of it and ``WorkerSet`` talks to them. Weights arrive with each request (as an
object-store reference that the runtime has resolved), batches leave as return values. Imports no torch, but for
policies that see images (``image_encoders.py``); the runtime gives a worker one thread for it.

The constructor makes nothing that can fail, so that a failing environment is the error of a call, with its own
traceback, and not the death of an actor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...envs.columns import UnsupportedSpace
from ...envs.opening import Vector, open_vector
from ...envs.registry import MissingLibrary, UnknownEnvironment
from ...envs.replay import State
from ...envs.vector import USUAL_CHECKS, Checks, Episode, NoStateError, VectorEnv
from .. import streams
from ..config import ConfigError
from ..inference.inference_client import Exchange, InStore, RemotePolicy
from ..policies.acting import Acting
from ..policies.policy import Policy
from ..policies.policy_spec import NetworkSettings, PolicySpec, policy_spec
from ..policies.weights import Weights
from ..threads import limit_matrix_threads
from .batch import Batch
from .evaluation import play_episodes
from .rollout import Memory, collect

#: Name in the state of the environments of what acting remembers of them, [N, S] float32; of recurrent policies only.
_RECURRENT = "recurrent"


@dataclass(frozen=True)
class Collected:
    """A rollout, and all that is needed to go on behind it in any other worker."""

    __shoal_plain__: ClassVar[bool] = True  # see ``core/serialization/values.py``

    batch: Batch
    state: State | None  #: where the environments stand now, and recurrent states; None where that cannot be told
    replaced: int  #: environments that crashed or hung in this rollout and were replaced
    incidents: tuple[str, ...]  #: a line for each of these, and for each episode that could not be continued
    seconds: float  #: how long it took
    exchange: Exchange | None = None  #: with an inference actor, if one acted


class EnvRunner:
    """Some of a run's environment copies.

    Args:
      env_id: The environment's name.
      worker_index: This worker's index, for messages.
      env_indices: Which of the run's copies live here.
      seed: The run's seed.
      resumed_at: Iteration at which the run last started new episodes everywhere, as it was resumed without a state of
        its environments; 0 if it never was.
      replacement: How often this worker was replaced without one; with ``resumed_at`` it keeps new copies from
        repeating old episodes.
      state: Where the environments stood when the worker that this one replaces had sent its last rollout.
      vector: Which implementation steps the copies, see ``envs.opening``.
      num_processes, num_groups: Of vector "parallel".
      checks: Which numbers of the environment are refused.
      inference: Handle and index of the inference actor that acts if weights come as ``InStore``.
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
        state: State | None = None,
        vector: Vector = "serial",
        num_processes: int = 0,
        num_groups: int = 1,
        checks: Checks = USUAL_CHECKS,
        inference: tuple[Any, int] | None = None,
    ) -> None:
        self._env_id = env_id
        self._worker_index = worker_index
        self._env_indices = env_indices
        self._seed = seed
        self._resumed_at = resumed_at
        self._replacement = replacement
        self._state = state
        self._vector, self._checks = vector, checks
        self._num_processes, self._num_groups = num_processes, num_groups
        self._inference = inference
        self._opened: VectorEnv | None = None
        self._memory: Memory | None = None  # None: to begin with the next rollout
        self._replaced_before = 0
        limit_matrix_threads(1)  # the runtime came too late for numpy: an LSTM took 20 times as long on a busy machine

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy that fits the environment.

        Raises:
          ConfigError: the environment's spaces are not supported, or do not fit the network.
          EnvFailure: the environment's constructor raised.
        """
        envs = self._envs()
        return policy_spec(self._env_id, envs.observation_space, envs.action_space, network)

    def collect(self, weights: Weights | InStore, num_steps: int, iteration: int) -> Collected:
        """Act for ``num_steps`` steps in each copy, going on where the last call stopped.

        Args:
          weights: What to act with; or where an inference actor finds what it acts with.
          num_steps: T.
          iteration: Number of this rollout in the run; picks the random streams of the actions.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: the inference actor keeps dying.
        """
        began_s = time.monotonic()
        envs = self._envs()
        policy = self._acting(weights)
        if self._memory is None:
            self._memory = self._begin(envs, policy)
        action_streams = streams.action_streams(self._seed, self._env_indices, iteration)
        batch = collect(envs, policy, num_steps, action_streams, self._memory)
        incidents, replaced = tuple(envs.incidents), envs.replaced - self._replaced_before
        envs.incidents.clear()
        self._replaced_before = envs.replaced
        state = self._stands(policy, self._memory)
        exchange = policy.exchange if isinstance(policy, RemotePolicy) else None
        return Collected(batch, state, replaced, incidents, time.monotonic() - began_s, exchange)

    def begin(self, weights: Weights) -> State | None:
        """Where the environments stand before the first step, which is to come; None where that cannot be told.

        Args:
          weights: Of any version.
        """
        policy = Policy(weights)
        if self._memory is None:
            self._memory = self._begin(self._envs(), policy)
        return self._stands(policy, self._memory)

    def evaluate(self, weights: Weights, episodes: Sequence[int]) -> list[Episode]:
        """Play the evaluation episodes with these numbers, deterministically, in environments of their own.

        Raises:
          EnvFailure: an environment raised.
        """
        return play_episodes(
            self._env_id,
            Policy(weights),
            episodes,
            self._seed,
            worker_index=self._worker_index,
            checks=self._checks,
        )

    def resume(self, resumed_at: int, state: State | None) -> None:
        """Go on at the next ``collect`` as a run that is resumed.

        Args:
          resumed_at: As in the constructor.
          state: Where the environments stood; None starts new episodes.
        """
        self._resumed_at, self._state = resumed_at, state
        self._replacement = 0
        self._memory = None
        self._replaced_before = 0
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _acting(self, weights: Weights | InStore) -> Policy | RemotePolicy:
        if isinstance(weights, Weights):
            return Policy(weights)
        assert self._inference is not None
        return RemotePolicy(*self._inference, self._worker_index, weights)

    def _begin(self, envs: VectorEnv, policy: Acting) -> Memory:
        """Go to where the environments stood, or start an episode in each; gives what acting remembered there."""
        memory = Memory.of_new_episodes(policy, envs.num_envs)
        if self._state is None:
            envs.reset()
            return memory
        state, self._state = dict(self._state), None
        if policy.spec.is_recurrent:
            memory.states = state.pop(_RECURRENT)
        envs.restore(state)
        # An episode that could not be continued has begun anew, like those that had just begun.
        memory.starts = envs.state()["begins"]
        return memory

    def _stands(self, policy: Acting, memory: Memory) -> State | None:
        try:
            state = self._envs().state()
        except NoStateError:  # told when it matters: when something must go on from there
            return None
        return {**state, _RECURRENT: memory.states} if policy.spec.is_recurrent else state

    def _envs(self) -> VectorEnv:
        if self._opened is None:
            try:
                self._opened = open_vector(
                    self._env_id,
                    self._env_indices,
                    streams.environment_seeds(self._seed, self._resumed_at, self._replacement),
                    vector=self._vector,
                    num_processes=self._num_processes,
                    num_groups=self._num_groups,
                    worker_index=self._worker_index,
                    checks=self._checks,
                )
            except UnsupportedSpace as error:
                raise ConfigError(f"env: {self._env_id!r}: {error}") from error
            except UnknownEnvironment as error:  # the driver knew it
                raise ConfigError(
                    f"env: {error} in rollout worker {self._worker_index}; if the driver's own program defines or "
                    f"registers it, that belongs in a module, named as in my_games:Maze or my_games:Maze-v0"
                ) from error
            except MissingLibrary as error:
                raise ConfigError(f"env: {error}") from error
        return self._opened
