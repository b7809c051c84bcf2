"""Vector environments of other libraries, under the rule of ``vector.py``.

Such a library steps its copies itself and has an opinion on what happens where an episode ends. Three are known, by
gymnasium's names; here is what becomes of each:

    SAME_STEP  the step that ends an episode gives the next one's first observation, and the last one beside it: as
               here. Nothing to do but to sort the arrays.
    NEXT_STEP  the step that ends an episode gives its last observation; the step after that ignores its action and
               gives the first observation of the next. That row is no transition: ``valid`` is False. The final
               observation stands in ``observations`` too, until then.
    DISABLED   nothing is reset by itself: the copies that ended are reset here, in the same step, each with the seed
               of its episode.

Only in DISABLED mode is an episode a function of its seed; in the others, copies are seeded once and run on from there.
In no mode can single copies be replayed, so ``state`` refuses. Nor are they replaced: what these libraries raise is an
``EnvFailure``, as far as they survive to raise it.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from .actions import MASK_KEY, ActionLayout, mask_is_observed, without_mask
from .arrays import Arrays
from .checks import Watch, check_outcome, place_of
from .columns import ColumnWriter
from .copies import text_of
from .seeds import SeedOfEpisode
from .vector import USUAL_CHECKS, Checks, EnvFailure, Episode, NoStateError

if TYPE_CHECKING:
    import gymnasium

Infos = dict[str, Any]


class Autoreset(enum.Enum):
    """What happens where an episode ends; see above."""

    NEXT_STEP = "NextStep"
    SAME_STEP = "SameStep"
    DISABLED = "Disabled"


class Foreign(Protocol):
    """What must be known of a foreign vector environment. All values are batches: N rows per leaf of the space.

    Attributes:
      name: for messages.
      num_envs: N.
      observation_space, action_space: of one copy.
      autoreset: its mode.
    """

    name: str
    num_envs: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    autoreset: Autoreset

    def reset(self, seeds: list[int], which: np.ndarray | None) -> tuple[Any, Infos]:
        """Begin episodes.

        Args:
          seeds: [N].
          which: [N] bool, the copies that are meant, in DISABLED mode; None for all.

        Returns:
          observations of all copies, infos as gymnasium has them.
        """

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Observations, rewards, terminated, truncated, infos. SAME_STEP has the last observations in the infos, under
        "final_obs": a batch, or an array of objects, one per copy.
        """

    def score(self, rewards: np.ndarray, infos: Infos) -> np.ndarray:
        """What counts for the episode's return, [N]: the rewards, before anybody clipped them."""

    def is_over(self, ended: np.ndarray, infos: Infos) -> np.ndarray:
        """Which of the copies that ended [N] have finished a whole episode, and not only a life in a game."""

    def close(self) -> None:
        """Free what it holds."""


class ForeignVectorEnv:
    """A foreign vector environment as a ``VectorEnv``; see there for attributes and methods.

    Args:
      foreign: What is wrapped.
      env_indices: Index of each copy among all copies of the run; N of them.
      seeds: (index, episode number) -> seed of an episode.
      worker_index: The rollout worker that they live in, for messages.
      checks: Which numbers are refused.
    """

    def __init__(
        self,
        foreign: Foreign,
        env_indices: Sequence[int],
        seeds: SeedOfEpisode,
        *,
        worker_index: int | None = None,
        checks: Checks = USUAL_CHECKS,
    ) -> None:
        if foreign.num_envs != len(env_indices):
            raise EnvFailure(f"{foreign.name} has {foreign.num_envs} environments, not {len(env_indices)}")
        self._foreign, self._seeds, self._worker_index, self._checks = foreign, seeds, worker_index, checks
        self._env_indices = [int(index) for index in env_indices]
        self.num_envs = foreign.num_envs
        self.observation_space, self.action_space = foreign.observation_space, foreign.action_space
        self.layout = ActionLayout.of(self.action_space)
        self._mask_is_observed = mask_is_observed(self.observation_space, self.action_space)
        if self._mask_is_observed:
            self.observation_space = without_mask(self.observation_space)
        self._writer = ColumnWriter(self.observation_space)
        self._arrays = Arrays.allocate(self.observation_space, self.action_space, self.num_envs)
        self.observations, self.final_observations = self._arrays.observations, self._arrays.final_observations
        self.rewards, self.valid = self._arrays.rewards, self._arrays.valid
        self.terminated, self.truncated = self._arrays.terminated, self._arrays.truncated
        self.action_masks: np.ndarray | None = None
        self.finished: list[Episode] = []
        self.is_quiet = False  # not known
        self.replaced = 0
        self.incidents: list[str] = []
        self._final_rows = self._writer.rows(self.final_observations)
        self._watch = Watch(self._arrays, self._writer.specs, checks)
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: copies that spend the next step on their reset
        self._episodes = np.full(self.num_envs, -1, np.int64)
        self._lengths = np.zeros(self.num_envs, np.int64)  # steps since the last reset, for messages
        self._scores = np.zeros(self.num_envs)
        self._score_lengths = np.zeros(self.num_envs, np.int64)
        self._everywhere = np.ones(self.num_envs, bool)
        self._is_reset = self._is_closed = False

    def reset(self) -> None:
        """See ``VectorEnv``."""
        self._episodes += 1
        given = self._call("reset", self._foreign.reset, self._episode_seeds(), None)
        try:
            self._take_first(given)
        except EnvFailure:
            raise
        except Exception as error:
            raise self._misfit("reset", error) from error

    def _take_first(self, given: tuple[Any, Infos]) -> None:
        """The outcome of a reset of all copies."""
        observations, infos = given
        if not self._is_reset and (self._mask_is_observed or MASK_KEY in infos):
            self.action_masks = self._arrays.action_masks
        self._is_reset = True
        self._write(observations, infos, self._everywhere)
        for array in (self.rewards, self.terminated, self.truncated, self._resetting):
            array[:] = 0
        for array in (self._lengths, self._scores, self._score_lengths):
            array[:] = 0
        self.valid[:] = True
        self.finished = []
        self._check(None)

    def step(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        if not self._is_reset:
            raise RuntimeError("reset the environments before the first step")
        batch = self.layout.unflatten_batch(self.layout.read(actions, self.num_envs))
        given = self._call("step", self._foreign.step, batch)
        try:
            self._take(given)
        except EnvFailure:
            raise
        except Exception as error:
            raise self._misfit("step", error) from error

    def _take(self, given: tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]) -> None:
        """The outcome of a step."""
        observations, rewards, terminated, truncated, infos = given
        np.logical_not(self._resetting, out=self.valid)
        np.multiply(rewards, self.valid, out=self.rewards, casting="same_kind")
        np.logical_and(terminated, self.valid, out=self.terminated)
        np.logical_and(truncated, self.valid & ~self.terminated, out=self.truncated)
        ended = self.terminated | self.truncated
        self._lengths += self.valid
        self._score_lengths += self.valid
        self._scores += self._foreign.score(rewards, infos) * self.valid
        self.finished = []
        if not ended.any():
            self._write(observations, infos, self._everywhere)
            self._resetting = ended
            self._check(None)
            return
        self._keep_final(observations, infos, ended)
        self._note_finished(ended & self._foreign.is_over(ended, infos))
        if self._foreign.autoreset is Autoreset.DISABLED:
            self._write(observations, infos, ~ended)
            self._episodes += ended
            observations, infos = self._call("reset", self._foreign.reset, self._episode_seeds(), ended)
            self._write(observations, infos, ended)
        else:
            self._write(observations, infos, self._everywhere)
        self._resetting = ended if self._foreign.autoreset is Autoreset.NEXT_STEP else np.zeros_like(ended)
        self._check(ended)
        self._lengths[ended] = 0

    def state(self) -> NoReturn:
        """Raises NoStateError."""
        raise NoStateError(
            f"{self._foreign.name} steps its copies all together, so that the episodes under way cannot be told or "
            f"repeated: a resumed run starts new ones"
        )

    def restore(self, state: dict[str, np.ndarray]) -> NoReturn:
        """Raises NoStateError."""
        self.state()

    def close(self) -> None:
        """See ``VectorEnv``."""
        if not self._is_closed:
            self._is_closed, self._is_reset = True, False
            self._call("close", self._foreign.close)

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            own_traceback = "".join(traceback.format_exception(error)).rstrip()
            raise EnvFailure(
                f"{self._where}: its {what} raised {type(error).__name__}: {text_of(error)}\n{own_traceback}"
            ) from error

    def _misfit(self, what: str, error: Exception) -> EnvFailure:
        """What it gave and cannot be used; ``error`` was raised here: its traceback would lead nobody to the fault."""
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        return EnvFailure(f"{self._where}: its {what} gave what cannot be used: {told}")

    @property
    def _where(self) -> str:
        worker = "" if self._worker_index is None else f"worker {self._worker_index}, "
        return f"{worker}{self._foreign.name}"

    def _episode_seeds(self) -> list[int]:
        return [self._seeds(*key) for key in zip(self._env_indices, self._episodes.tolist(), strict=True)]

    def _write(self, observations: Any, infos: Infos, which: np.ndarray) -> None:
        """Store observations and masks of some copies."""
        self._writer.write_batch(self.observations, observations, which)
        if self.action_masks is not None:
            masks = np.asarray(observations[MASK_KEY] if self._mask_is_observed else infos[MASK_KEY])
            try:
                self.layout.write_masks(masks, self.action_masks, which)
            except ValueError as error:
                raise EnvFailure(f"{self._foreign.name}: {error}") from error

    def _keep_final(self, observations: Any, infos: Infos, ended: np.ndarray) -> None:
        if self._foreign.autoreset is Autoreset.SAME_STEP and "final_obs" not in infos:
            raise ValueError('episodes ended, and the infos have no "final_obs" with their last observations')
        if self._foreign.autoreset is not Autoreset.SAME_STEP:
            self._writer.write_batch(self.final_observations, observations, ended)
        elif isinstance(infos["final_obs"], np.ndarray) and infos["final_obs"].dtype == object:
            for i in np.flatnonzero(ended).tolist():
                self._writer.write(self._final_rows[i], infos["final_obs"][i])
        else:
            self._writer.write_batch(self.final_observations, infos["final_obs"], ended)

    def _note_finished(self, over: np.ndarray) -> None:
        for i in np.flatnonzero(over).tolist():
            episode = Episode(self._env_indices[i], float(self._scores[i]), int(self._score_lengths[i]))
            self.finished.append(episode)
        self._scores[over] = 0.0
        self._score_lengths[over] = 0

    def _check(self, ended: np.ndarray | None) -> None:
        if self._watch.is_right(ended):
            return
        specs = self._writer.specs
        rows = self._writer.rows(self.observations)
        for i, index in enumerate(self._env_indices):
            where, reward, length = place_of(self._worker_index, index), float(self.rewards[i]), int(self._lengths[i])
            if ended is not None and ended[i]:
                check_outcome(where, length, specs, self._final_rows[i], reward, self._checks)
                length = 0
            check_outcome(where, length, specs, rows[i], reward, self._checks)
