"""What stepping many copies of an environment together looks like; and the rule of episode ends, stated here once.

The rule. An episode ends because the task is over (``terminated``: nothing follows, the successor is worth 0) or
because someone stopped watching (``truncated``, a time limit: the successor exists and has a value, it is only not
in the next row). If an environment reports both, ``terminated`` wins and ``truncated`` reads False: the two flags of a
row are never both set. When a copy's episode ends it is reset in the same step:

    observations[i]        first observation of the next episode: what the policy acts on next
    final_observations[i]  last observation of the episode that ended: the true successor, whose value bootstraps a
                           truncated return. Meaningful only in a step where terminated[i] or truncated[i] is set.

An environment may say that only a part of an episode is over that is learned from apart, as a life in a game: the row
is ``terminated``, but nothing is reset, and the episode is not among the ``finished``.

So every row is a real transition but those with ``valid[i]`` False, which nothing must be learned from: the environment
crashed or hung in this step and was replaced, or (only behind an adapter) a foreign vector environment spent the step
on its reset. Such a row has reward 0 and neither flag; what follows it is the first observation of a new episode. The
row before it is cut like a truncated one: its successor is the observation that the invalid row acted on, whose value
is known. So a new episode starts after a row with ``terminated``, ``truncated`` or not ``valid``.

An episode is a function of (seed, copy, episode number, actions): every reset passes a seed, see ``seeds.py``. What a
copy does therefore depends neither on the other copies nor on where it runs, and ``state`` needs to hold no more than
the number of the episode and the actions since its start (``replay.py``).

The arrays belong to the vector environment and are overwritten by the next ``step``; readers copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .columns import Columns

if TYPE_CHECKING:
    import gymnasium


class EnvFailure(RuntimeError):  # noqa: N818 - reads as what it says
    """The environment's own code raised, or returned what its spaces forbid. Trying again will most likely not help.

    The text holds the worker's index, the environment's index and the environment's traceback; the original
    exception is the ``__cause__`` in the process where it happened.
    """


class EnvCrash(EnvFailure):
    """The environment's own code raised in ``reset`` or ``step``. A new copy may live longer: vector environments
    make one, and pass this on when copy after copy crashes before it finishes an episode.
    """


class NoStateError(RuntimeError):
    """This vector environment cannot tell its state, so a run cannot go on in the middle of its episodes: new ones are
    started instead. One line that names the environment and the reason.
    """


class Episode(NamedTuple):
    """A finished episode: which copy it ran in and what it earned. A tuple, as thousands of copies finish hundreds of
    episodes a step.
    """

    env_index: int  #: index of the environment copy among all copies of the run
    episode_return: float  #: undiscounted sum of rewards
    length: int  #: steps


@dataclass(frozen=True)
class Checks:
    """Which numbers are refused. A refusal is an ``EnvFailure`` that names the copy and the step of its episode."""

    #: rewards and observations that are NaN or infinite, or choices that there are not; 1 us a step for small ones
    finite: bool = True
    bounds: bool = False  #: observations outside their space; 5 us a step and column, more for images


#: What is looked at if nobody says otherwise.
USUAL_CHECKS = Checks()


class VectorEnv(Protocol):
    """N copies of an environment, stepped together under the rule above.

    Attributes:
      num_envs: N.
      observation_space, action_space: of one copy; an action mask is no part of the observations.
      observations: [N, *shape] by column, in the space's dtypes; what to act on next.
      final_observations: like ``observations``; rows of episodes that ended in the last step.
      rewards: [N] float32 of the last step.
      terminated, truncated: [N] bool of the last step; never both set in a row.
      valid: [N] bool; False where the last step was no transition.
      action_masks: [N, num_choices] bool, True is allowed, for ``observations``; None if the environment gives none.
        Known after the first ``reset``.
      finished: the episodes that ended in the last step, by copy.
      is_quiet: every row of the last step is a transition within an episode, so neither flag is set anywhere, ``valid``
        everywhere, and nothing is ``finished``; False if that is not known. Most steps are, and cost the reader less.
      replaced: how many environments crashed or hung and were replaced so far.
      incidents: a line for each of these and for each episode that ``restore`` could not continue, since the reader
        last emptied the list.
    """

    num_envs: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    observations: Columns
    final_observations: Columns
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    action_masks: np.ndarray | None
    finished: list[Episode]
    is_quiet: bool
    replaced: int
    incidents: list[str]

    def reset(self) -> None:
        """Start the next episode in every copy, the first one at first, dropping those under way.

        Raises:
          EnvFailure: an environment raised.
        """

    def step(self, actions: np.ndarray) -> None:
        """Step every copy; the attributes then hold the outcome.

        Args:
          actions: [N, W], see ``ActionLayout``; [N] too where W is 1.

        Raises:
          EnvFailure: an environment gave what its spaces forbid, or keeps crashing.
          ValueError: actions of another shape.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Where every copy stands, for ``restore`` in any vector environment of the same copies.

        Raises:
          NoStateError: it cannot be told.
        """

    def restore(self, state: dict[str, np.ndarray]) -> int:
        """Go back to a state. Episodes that cannot be continued exactly are dropped for new ones, each with a line in
        ``incidents``.

        Returns:
          How many copies start a new episode.

        Raises:
          NoStateError: this vector environment cannot go anywhere by itself.
          ValueError: a state of other copies, or of other spaces.
          EnvFailure: an environment raised.
        """

    def close(self) -> None:
        """Free what the environments hold. May be called twice."""


@runtime_checkable
class SteppedInParts(Protocol):
    """A ``VectorEnv`` whose copies are in groups that are stepped apart, so that one may be acted for while others are
    on their way.

    Attributes:
      groups: the rows of each.
      steps_elsewhere: other processes step; else ``step_async`` does, and takes as long as the step.
    """

    groups: list[slice]
    steps_elsewhere: bool

    def step_async(self, group: int, actions: np.ndarray, /) -> None:
        """Begin a step of one group, with actions [n, W] of its rows, which must not be read until ``step_wait``."""

    def step_wait(self, group: int, /) -> None:
        """Wait for the group that was sent first of those in flight. Its rows then hold the outcome, and ``finished``
        its episodes.
        """
