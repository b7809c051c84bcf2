"""One environment behind a border: what comes out of it is stored and checked, every failure of it is an EnvFailure.

``SerialVectorEnv`` is made of these, and so is evaluation, which plays single episodes. An exception in environment
code becomes ``EnvCrash``, which names the worker and the copy. An observation, reward or mask that no learner can use
(not a number, of another shape; by ``Checks`` not finite, or outside its space) becomes ``EnvFailure``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .actions import MASK_KEY, ActionLayout, mask_is_observed, without_mask
from .checks import call_of, check_outcome, place_of
from .columns import ColumnWriter, Row, UnsupportedSpace
from .registry import MissingLibrary
from .vector import USUAL_CHECKS, Checks, EnvCrash, EnvFailure

if TYPE_CHECKING:
    import gymnasium

#: What ``reset`` and ``step`` give, for messages.
_OF_RESET = ("observation", "info")
_OF_STEP = ("observation", "reward", "terminated", "truncated", "info")
#: Characters of a wrong value that a message shows.
_LONGEST_SHOWN = 80
#: What float() would read; a union of types, made in each step, would take 0.1 us.
_TEXT = (str, bytes)

#: Infos by which wrappers tell what the learner's rewards and flags leave out.
SCORE_KEY = "shoal/score"  #: the reward before it was clipped or scaled: what the episode's return counts
LIFE_KEY = "shoal/life_lost"  #: ``terminated`` is only for the learner: the episode goes on, without a reset


class EnvCopy:
    """One environment.

    Args:
      make: Makes the environment.
      env_index: Its index among all copies of the run, for messages.
      worker_index: The rollout worker that it lives in, for messages; None in the user's own process.

    Attributes:
      observation_space: of what is stored: without the mask, if that is part of the observations.
      action_space: of the actions.
      writer: knows the columns of the observations.
      mask: what the environment gave as action mask with its last observation, as it gave it; None if nothing.
      score: what the last step counts for the episode's return; the reward, unless a wrapper has changed that.
      goes_on: the last step's ``terminated`` is only for the learner, and the episode goes on.

    Raises:
      EnvFailure: the constructor raised.
      MissingLibrary: what makes it cannot be imported.
      UnsupportedSpace: the observations have no columns.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env[Any, Any]], env_index: int, *, worker_index: int | None = None
    ) -> None:
        self.env_index = env_index
        self._worker_index = worker_index
        self.mask: Any = None
        self.score = 0.0
        self.goes_on = False
        try:
            self._env = make()
            for what in ("observation_space", "action_space"):
                if not hasattr(self._env, what):
                    told = f"gave {_shown(self._env)}, which is no environment: it has no {what}"
                    raise EnvFailure(f"{self._where}: its constructor {told}")
            self.observation_space = self._env.observation_space
            self.action_space = self._env.action_space
        except (EnvFailure, UnsupportedSpace, MissingLibrary):
            raise
        except BaseException as error:
            raise self._failure("constructor", error, EnvFailure) from error
        self._mask_is_observed = mask_is_observed(self.observation_space, self.action_space)
        if self._mask_is_observed:
            self.observation_space = without_mask(self.observation_space)
        self.writer = ColumnWriter(self.observation_space)
        self._write = self.writer.write

    def reset(self, row: Row, seed: int) -> None:
        """Start an episode and write its first observation to ``row``.

        Raises:
          EnvCrash: the environment raised.
          EnvFailure: the observation does not fit.
        """
        try:
            outcome = self._env.reset(seed=seed)
        except BaseException as error:
            raise self._failure("reset", error, EnvCrash) from error
        try:
            observation, info = outcome
            self.mask = observation[MASK_KEY] if self._mask_is_observed else info.get(MASK_KEY)
            self._write(row, observation)
        except Exception as error:
            raise self._misfit("reset", _OF_RESET, outcome, error) from error

    def step(self, action: Any, row: Row) -> tuple[float, bool, bool]:
        """One step; the observation goes to ``row``.

        Args:
          action: as the environment takes it.
          row: where the observation goes.

        Returns:
          reward, terminated, truncated; by the rule of ``vector.py`` never both flags.

        Raises:
          EnvCrash: the environment raised.
          EnvFailure: what it gave is no outcome of a step.
        """
        try:
            outcome = self._env.step(action)
        except BaseException as error:
            raise self._failure("step", error, EnvCrash) from error
        try:
            observation, reward, terminated, truncated, info = outcome
            self._write(row, observation)
            if isinstance(reward, _TEXT):  # float() would read it
                raise TypeError(reward)
            reward = self.score = float(reward)
            self.mask, self.goes_on = None, False
            if info:
                self.mask = info.get(MASK_KEY)
                self.score = float(info.get(SCORE_KEY, reward))
                self.goes_on = bool(info.get(LIFE_KEY)) and not truncated
            if self._mask_is_observed:
                self.mask = observation[MASK_KEY]
            return reward, bool(terminated), bool(truncated) and not terminated
        except Exception as error:
            raise self._misfit("step", _OF_STEP, outcome, error) from error

    def render(self) -> Any:
        """What the environment shows, as its render mode has it."""
        try:
            return self._env.render()
        except BaseException as error:
            raise self._failure("render", error, EnvFailure) from error

    def write_mask(self, layout: ActionLayout, into: np.ndarray, step: int) -> None:
        """Store the mask of the last observation.

        Args:
          layout: of the actions.
          into: [num_choices] bool.
          step: steps of the episode so far, for messages.

        Raises:
          EnvFailure: there is none, though there was one at first, or it does not fit.
        """
        try:
            if self.mask is None:
                raise ValueError("there is no action mask, though the first reset gave one")
            layout.write_mask(self.mask, into)
        except ValueError as error:
            raise EnvFailure(f"{self._where}: {call_of(step)}: {error}") from error

    def check_outcome(self, step: int, row: Sequence[np.ndarray], reward: float, checks: Checks = USUAL_CHECKS) -> None:
        """Refuse what no learner can use.

        Args:
          step: steps of the episode that led to the observation; 0 for the first, which has no reward.
          row: the observation, by column.
          reward: of that step.
          checks: what to look for.

        Raises:
          EnvFailure: names the step, and what it gave.
        """
        check_outcome(self._where, step, self.writer.specs, row, reward, checks)

    def close(self) -> None:
        """Free what the environment holds."""
        try:
            self._env.close()
        except Exception as error:
            raise self._failure("close", error, EnvFailure) from error

    @property
    def _where(self) -> str:
        return place_of(self._worker_index, self.env_index)

    def _failure(self, call: str, error: BaseException, kind: type[EnvFailure]) -> EnvFailure:
        """What an environment raised, whatever it is: sys.exit in a game, or a panic in Rust, which is no
        ``Exception``, would otherwise end the worker, and a replacement would repeat it.
        """
        if self._worker_index is None and not isinstance(error, Exception | SystemExit):
            raise error  # the user's own process: it is Ctrl-C; the terminal's signals do not reach workers
        own_traceback = "".join(traceback.format_exception(error)).rstrip()
        return kind(f"{self._where}: its {call} raised {type(error).__name__}: {text_of(error)}\n{own_traceback}")

    def _misfit(self, call: str, names: Sequence[str], outcome: Any, error: Exception) -> EnvFailure:
        """What an environment gave and cannot be used: ``error`` was raised here, so its traceback would lead nobody
        to the fault.
        """
        if not isinstance(outcome, tuple | list) or len(outcome) != len(names):
            given = f"{len(outcome)} values" if isinstance(outcome, tuple | list) else _shown(outcome)
            told = f"{given}, not {', '.join(names)}: gymnasium's interface wants {len(names)} values"
        elif not isinstance(outcome[-1], Mapping):
            told = f"the info {_shown(outcome[-1])}, which is no dict"
        elif names == _OF_STEP and not _is_number(outcome[1]):
            told = f"the reward {_shown(outcome[1])}, which is no number"
        else:
            told = f"what cannot be used: {text_of(error)}"
        return EnvFailure(f"{self._where}: its {call} gave {told}")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str | bytes)


def _shown(value: Any) -> str:
    """A value that is not what it should be, in one short line."""
    text = " ".join(text_of(value, repr).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... (a {type(value).__name__})"


def text_of(value: object, how: Callable[[object], str] = str) -> str:
    """Its text; there are exceptions of users whose ``__str__`` raises."""
    try:
        return how(value)
    except Exception as error:  # noqa: BLE001 - whatever it is, the failure is to be told
        return f"(a {type(value).__name__} whose text cannot be told: {type(error).__name__})"
