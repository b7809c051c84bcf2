"""N copies of one environment in this process, stepped together; and the rule of episode ends, stated here once.

The rule. An episode ends because the task is over (``terminated``: nothing follows, the successor is worth 0) or
because someone stopped watching (``truncated``, a time limit: the successor exists and has a value, it is only not
in the next row). If an environment reports both, ``terminated`` wins and ``truncated`` reads False: the two flags of a
row are never both set. When a copy's episode ends it is reset in the same step:

    observations[i]        first observation of the next episode: what the policy acts on next
    final_observations[i]  last observation of the episode that ended: the true successor, whose value bootstraps a
                           truncated return. Meaningful only in a step where terminated[i] or truncated[i] is set.

So every row is a real transition, N a step, and no row is an ignored action (gymnasium's default NEXT_STEP mode has
one such row per episode).

The arrays belong to the VectorEnv and are overwritten by the next ``step``; readers copy. Each copy is reset with its
own seed once and runs on from its own generator, so what it does depends on its seed and actions only, not on the
other copies. An exception in environment code becomes ``EnvFailure``, which names the worker and the copy; so does an
observation or reward that no learner can use (not finite, not a number, of another shape).
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium


class EnvFailure(RuntimeError):  # noqa: N818 - reads as what it says
    """The environment's own code raised, or returned what its spaces forbid. Trying again will most likely not help.

    The text holds the worker's index, the environment's index and the environment's traceback; the original
    exception is the ``__cause__`` in the process where it happened.
    """


#: What becomes an `EnvFailure`. sys.exit in a game would otherwise end the worker, and a replacement would repeat it.
_RAISED_BY_ENVIRONMENTS = (Exception, SystemExit, KeyboardInterrupt)


@dataclass(frozen=True)
class Episode:
    """A finished episode: which copy it ran in and what it earned."""

    env_index: int  #: index of the environment copy among all copies of the run
    episode_return: float  #: undiscounted sum of rewards
    length: int  #: steps


class EnvCopy:
    """One environment; every failure of its code leaves as EnvFailure. Used by VectorEnv and by evaluation.

    Args:
      make: Makes the environment.
      env_index: Its index among all copies of the run, for messages.
      worker_index: The rollout worker that it lives in, for messages; None in the user's own process.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env[Any, Any]], env_index: int, *, worker_index: int | None = None
    ) -> None:
        self.env_index = env_index
        self._worker_index = worker_index
        try:
            self._env = make()
            self.observation_space = self._env.observation_space
            self.action_space = self._env.action_space
        except _RAISED_BY_ENVIRONMENTS as error:
            raise self._failure("constructor", error) from error

    def reset(self, into: np.ndarray, seed: int | None = None) -> None:
        """Start an episode and write its first observation to ``into``."""
        try:
            _store(self._env.reset(seed=seed)[0], into)
        except _RAISED_BY_ENVIRONMENTS as error:
            raise self._failure("reset", error) from error

    def step(self, action: Any, into: np.ndarray) -> tuple[float, bool, bool]:
        """One step; the observation goes to ``into``.

        Returns:
          reward, terminated, truncated; by the rule above never both flags.
        """
        try:
            observation, reward, terminated, truncated, _ = self._env.step(action)
            _store(observation, into)
            if isinstance(reward, str | bytes):  # float() would read it
                raise TypeError(f"the reward {reward!r} is a {type(reward).__name__} and not a number")
            return float(reward), bool(terminated), bool(truncated) and not terminated
        except _RAISED_BY_ENVIRONMENTS as error:
            raise self._failure("step", error) from error

    def close(self) -> None:
        """Free what the environment holds."""
        try:
            self._env.close()
        except Exception as error:
            raise self._failure("close", error) from error

    def check_outcome(self, step: int, observation: np.ndarray, reward: float) -> None:
        """Refuse what is not finite.

        Args:
          step: steps of the episode that led to the observation; 0 for the first, which has no reward.
          observation: of any shape, numeric.
          reward: of that step.

        Raises:
          EnvFailure: names the step, and what it gave.
        """
        call = f"step {step}" if step else "reset"
        if step and not math.isfinite(reward):
            raise EnvFailure(f"{self._where}: its {call} gave the reward {reward:g}")
        if not np.isfinite(observation).all():
            shown = np.array2string(observation, threshold=8, separator=", ").replace("\n", "")
            raise EnvFailure(f"{self._where}: its {call} gave an observation that is not finite: {shown}")

    @property
    def _where(self) -> str:
        where = "" if self._worker_index is None else f"worker {self._worker_index}, "
        return f"{where}environment {self.env_index}"

    def _failure(self, call: str, error: BaseException) -> EnvFailure:
        if isinstance(error, KeyboardInterrupt) and self._worker_index is None:
            raise error  # the user's own process: it is Ctrl-C; the terminal's signals do not reach workers
        own_traceback = "".join(traceback.format_exception(error)).rstrip()
        return EnvFailure(f"{self._where}: its {call} raised {type(error).__name__}: {error}\n{own_traceback}")


def _store(observation: Any, into: np.ndarray) -> None:
    # Assignment would spread a smaller array over the larger.
    if np.shape(observation) != into.shape:
        raise ValueError(f"observation of shape {np.shape(observation)}; the space says {into.shape}")
    into[...] = observation


class VectorEnv:
    """Copies stepped together with same-step autoreset (rule above).

    Args:
      make: Makes one copy.
      env_indices: Index of each copy among all copies of the run; N = len(env_indices) >= 1.
      worker_index: The rollout worker that they live in, for messages.

    Attributes:
      observations: [N, *shape] in the space's dtype; what to act on next.
      final_observations: [N, *shape]; rows of episodes that ended in the last step.
      rewards: [N] float32 of the last step.
      terminated, truncated: [N] bool of the last step; never both set in a row.
      finished: the episodes that ended in the last step, by copy.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        env_indices: Sequence[int],
        *,
        worker_index: int | None = None,
    ) -> None:
        self._copies = [EnvCopy(make, index, worker_index=worker_index) for index in env_indices]
        self.num_envs = len(self._copies)
        self.observation_space = self._copies[0].observation_space
        self.action_space = self._copies[0].action_space
        # A space without a shape (Dict, Tuple) fails at reset; the caller has the spaces before that.
        shape = self.observation_space.shape or ()
        self.observations = np.zeros((self.num_envs, *shape), self.observation_space.dtype)
        self.final_observations = np.zeros_like(self.observations)
        self.rewards = np.zeros(self.num_envs, np.float32)
        self.terminated = np.zeros(self.num_envs, bool)
        self.truncated = np.zeros(self.num_envs, bool)
        self.finished: list[Episode] = []
        self._returns = [0.0] * self.num_envs
        self._lengths = [0] * self.num_envs

    def reset(self, seeds: Sequence[int]) -> None:
        """Start an episode in every copy, dropping those under way. To be called before the first ``step``.

        Args:
          seeds: [N]; each copy's generator starts anew from its seed.
        """
        self._returns = [0.0] * self.num_envs
        self._lengths = [0] * self.num_envs
        for i, (copy, seed) in enumerate(zip(self._copies, seeds, strict=True)):
            copy.reset(self.observations[i], seed)
        self._check(self.observations)

    def step(self, actions: Sequence[Any] | np.ndarray) -> None:
        """Step every copy; the attributes then hold the outcome.

        Args:
          actions: [N], one action for each copy in the form that the environment takes.
        """
        self.finished = []
        for i, (copy, action) in enumerate(zip(self._copies, actions, strict=True)):
            reward, terminated, truncated = copy.step(action, self.observations[i])
            self.rewards[i], self.terminated[i], self.truncated[i] = reward, terminated, truncated
            self._returns[i] += reward
            self._lengths[i] += 1
            if terminated or truncated:
                self.finished.append(Episode(copy.env_index, self._returns[i], self._lengths[i]))
                self._returns[i], self._lengths[i] = 0.0, 0
                self.final_observations[i] = self.observations[i]
                copy.reset(self.observations[i])
        self._check(self.observations, self.rewards)
        if self.finished:
            self._check(self.final_observations[self.terminated | self.truncated])

    def _check(self, *stacked: np.ndarray) -> None:
        """Refuse numbers that are not finite. Looked for in whole arrays, 1 us each; only then in which copy."""
        if all(np.isfinite(array).all() for array in stacked):
            return
        ended = {episode.env_index: episode.length for episode in self.finished}
        for i, copy in enumerate(self._copies):
            if copy.env_index in ended:
                copy.check_outcome(ended[copy.env_index], self.final_observations[i], self.rewards[i])
            copy.check_outcome(self._lengths[i], self.observations[i], self.rewards[i])
