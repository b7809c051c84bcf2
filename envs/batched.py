"""Thousands of copies whose equations are stepped as arrays.

``VectorEnv`` over a ``Dynamics``: equations of motion in numpy, for all copies at once. No environment object, no loop
over copies, but for telling the episodes that ended. Whatever a copy does is a function of its own numbers, so neither
the batch nor the process it runs in changes a bit of it. Its state is the physical one, so ``restore`` is immediate.

``classic.py`` has the equations; another environment needs a class with the methods of ``Dynamics`` and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .actions import ActionLayout
from .arrays import Arrays
from .checks import call_of, place_of
from .columns import ONLY
from .replay import State
from .seeds import EpisodeSeeds, SeedOfEpisode, mix_array
from .vector import USUAL_CHECKS, Checks, EnvFailure, Episode

if TYPE_CHECKING:
    import gymnasium


class Dynamics(Protocol):
    """Equations of motion of n copies. States are [S, n] float64: one row per quantity, so that rows are contiguous.

    Attributes:
      state_size: S.
      time_limit: steps after which an episode is cut.
      observation_space: a flat Box, of one copy.
      action_space: Discrete, or a flat Box.
    """

    state_size: int
    time_limit: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def start(self, seeds: np.ndarray) -> np.ndarray:
        """First states [S, n] of episodes with these seeds [n]; each a function of its seed."""

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move the states, in place.

        Args:
          states: [S, n].
          actions: [n, W].

        Returns:
          rewards [n] float64, terminated [n] bool.

        Raises:
          ValueError: an action is none of the space.
        """

    def observe(self, states: np.ndarray, into: np.ndarray) -> None:
        """Write what is seen of states [S, n] to ``into`` [n, D]."""


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each seed, [count, n] float64: a generator without a state, one counter a number.

    The 53 upper bits of SplitMix64's output, as numpy's own generators do it.
    """
    counters = mix_array(seeds)[None] + np.arange(count, dtype=np.uint64)[:, None]
    numbers: np.ndarray = (mix_array(counters) >> np.uint64(11)) * 2.0**-53
    return numbers


class BatchedVectorEnv:
    """Copies stepped as arrays. Attributes and methods: see ``VectorEnv``; nothing is ever replaced here.

    Args:
      dynamics: The equations.
      env_indices: Index of each copy among all copies of the run; N = len(env_indices) >= 1.
      seeds: (index, episode number) -> seed of an episode; ``EpisodeSeeds`` gives all at once.
      worker_index: The rollout worker that they live in, for messages.
      checks: Which numbers are refused. Numbers within bounds are what the equations see to.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        env_indices: Sequence[int],
        seeds: SeedOfEpisode,
        *,
        worker_index: int | None = None,
        checks: Checks = USUAL_CHECKS,
    ) -> None:
        self._dynamics, self._seeds, self._checks, self._worker_index = dynamics, seeds, checks, worker_index
        self._env_indices = np.array(env_indices, np.int64)
        self.num_envs = len(self._env_indices)
        self.observation_space, self.action_space = dynamics.observation_space, dynamics.action_space
        self.layout = ActionLayout.of(self.action_space)
        arrays = Arrays.allocate(self.observation_space, self.action_space, self.num_envs)
        self.observations, self.final_observations = arrays.observations, arrays.final_observations
        self.rewards, self.terminated, self.truncated = arrays.rewards, arrays.terminated, arrays.truncated
        self.valid = arrays.valid
        self.action_masks: np.ndarray | None = None
        self.finished: list[Episode] = []
        self.is_quiet = False  # not known
        self.replaced = 0
        self.incidents: list[str] = []
        self._states = np.zeros((dynamics.state_size, self.num_envs))
        self._episodes = np.full(self.num_envs, -1, np.int64)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._returns = np.zeros(self.num_envs)
        self._is_reset = False

    def reset(self) -> None:
        """See ``VectorEnv``."""
        self._start(np.arange(self.num_envs))
        self._rest()

    def step(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        if not self._is_reset:
            raise RuntimeError("reset the environments before the first step")
        actions = self.layout.read(actions, self.num_envs)
        rewards, self.terminated[:] = self._dynamics.step(self._states, actions)
        self._lengths += 1
        self._returns += rewards
        self.rewards[:] = rewards
        np.greater_equal(self._lengths, self._dynamics.time_limit, out=self.truncated)
        self.truncated &= ~self.terminated
        self._dynamics.observe(self._states, self.observations[ONLY])
        if self._checks.finite:
            self._check(rewards)
        self.finished = []
        ended = np.flatnonzero(self.terminated | self.truncated)
        if len(ended):
            self.finished = list(
                map(
                    Episode,
                    self._env_indices[ended].tolist(),
                    self._returns[ended].tolist(),
                    self._lengths[ended].tolist(),
                )
            )
            self.final_observations[ONLY][ended] = self.observations[ONLY][ended]
            self._start(ended)

    def state(self) -> State:
        """See ``VectorEnv``. Instead of actions it holds ``physics`` [N, S] float64."""
        if not self._is_reset:
            raise RuntimeError("environments that were never reset have no state")
        return {
            "episode": self._episodes.copy(),
            "length": self._lengths.copy(),
            "episode_return": self._returns.copy(),
            "begins": self._lengths == 0,
            "physics": self._states.T.copy(),
        }

    def restore(self, state: State) -> int:
        """See ``VectorEnv``."""
        physics = state.get("physics", np.zeros(0))
        if physics.shape != self._states.T.shape:
            raise ValueError(
                f"a state with physics of shape {physics.shape}; these batched environments have {self._states.T.shape}"
            )
        self._states[:] = physics.T
        self._episodes[:], self._lengths[:] = state["episode"], state["length"]
        self._returns[:] = state["episode_return"]
        self._dynamics.observe(self._states, self.observations[ONLY])
        self._rest()
        return 0

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._is_reset = False

    def _start(self, copies: np.ndarray) -> None:
        """Begin the next episode in the copies with these positions."""
        self._episodes[copies] += 1
        self._lengths[copies] = 0
        self._returns[copies] = 0.0
        indices, episodes = self._env_indices[copies], self._episodes[copies]
        if isinstance(self._seeds, EpisodeSeeds):
            seeds = self._seeds.many(indices, episodes)
        else:
            seeds = np.array([self._seeds(*key) for key in zip(indices.tolist(), episodes.tolist(), strict=True)])
        states = self._dynamics.start(seeds)
        self._states[:, copies] = states
        seen = np.empty((len(copies), *self.observations[ONLY].shape[1:]), self.observations[ONLY].dtype)
        self._dynamics.observe(states, seen)
        self.observations[ONLY][copies] = seen

    def _rest(self) -> None:
        self._is_reset = True
        self.finished = []
        for array in (self.rewards, self.terminated, self.truncated):
            array[:] = 0

    def _check(self, rewards: np.ndarray) -> None:
        """Raises EnvFailure if a number is not finite, which an action that is not finite leads to."""
        if np.isfinite(rewards).all() and np.isfinite(self.observations[ONLY]).all():
            return
        fine = np.isfinite(rewards) & np.isfinite(self.observations[ONLY]).all(axis=1)
        wrong = int(np.flatnonzero(~fine)[0])
        where = place_of(self._worker_index, int(self._env_indices[wrong]))
        seen = np.array2string(self.observations[ONLY][wrong], separator=", ")
        raise EnvFailure(
            f"{where}: its {call_of(int(self._lengths[wrong]))} gave the reward {rewards[wrong]:g} and the "
            f"observation {seen}"
        )
