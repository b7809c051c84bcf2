"""Playing whole episodes with a fixed policy, and what they earned.

Each episode starts from a seed of its own, so episode 7 of an evaluation is the same one whoever plays it and
whatever is played beside it. ``play`` needs no actors; ``EnvRunner.evaluate`` plays a share of the episodes with
``play_episodes`` in a rollout worker.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ...envs import registry
from ...envs.actions import ActionLayout
from ...envs.columns import Columns
from ...envs.copies import EnvCopy
from ...envs.vector import USUAL_CHECKS, Checks, EnvCrash, EnvFailure, Episode
from .. import streams

_log = logging.getLogger(__name__)

#: An evaluation that has played one set of episodes for so long says so, once.
NOTICE_S = 60.0
#: How often the same episodes are begun before what crashes in them ends the evaluation.
MAX_CRASHES = 3
#: Steps between two looks at the clock.
_STEPS_A_LOOK = 256
#: Episodes that are played side by side, so that one forward pass serves them all.
MAX_SIDE_BY_SIDE = 16

#: Two-sided 97.5 % quantiles of Student's t for 1 .. 30 degrees of freedom (any statistics table).
_T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Actor(Protocol):
    """Whatever picks actions: ``Policy``, or a user's own."""

    def act(
        self,
        observations: Columns,
        states: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        *,
        deterministic: bool,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N, W], see ``envs.actions.ActionLayout``, and states [N, ...] to come back with.

        Args:
          observations: Columns [N, *shape].
          states: What the last call gave of these rows; None in the first step of an episode.
          masks: [N, num_choices] bool, True where allowed; None where the environment gives none.
          deterministic: The likeliest actions.
          rng: For actions that are not.
        """


@dataclass(frozen=True)
class Evaluation:
    """What a policy earned in some episodes, by episode."""

    returns: tuple[float, ...]  #: undiscounted sums of rewards
    lengths: tuple[int, ...]  #: steps

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> Evaluation:
        """What these episodes earned."""
        played = list(episodes)
        return cls(tuple(e.episode_return for e in played), tuple(e.length for e in played))

    @property
    def mean(self) -> float:
        """Mean return."""
        return statistics.fmean(self.returns)

    @property
    def std(self) -> float:
        """Standard deviation of the returns (n - 1 in the denominator); 0 for a single episode."""
        return statistics.stdev(self.returns) if len(self.returns) > 1 else 0.0

    @property
    def ci95(self) -> float:
        """Half the width of the 95 % t interval of the mean; infinite for a single episode."""
        count = len(self.returns)
        if count < 2:
            return math.inf
        degrees = count - 1
        # Beyond the table the expansion about the normal quantile is exact to three digits.
        quantile = _T_QUANTILES[degrees - 1] if degrees <= len(_T_QUANTILES) else 1.95996 + 2.3723 / (degrees - 1)
        return quantile * self.std / math.sqrt(count)


def play(env_id: str, policy: Actor, episodes: int, seed: int, *, checks: Checks = USUAL_CHECKS) -> Evaluation:
    """Play episodes in this process, with deterministic actions. Each is played to its end, however far that is: an
    environment that may go on for ever needs a time limit. After ``NOTICE_S`` a warning in the log says so.

    Args:
      env_id: A name that ``envs.registry`` knows.
      policy: What acts.
      episodes: How many, >= 1.
      seed: Decides how each episode starts.
      checks: Which numbers of the environment are refused.

    Raises:
      UnknownEnvironment: see ``registry.make``.
      EnvFailure: the environment raised, or gave a number that is refused.
    """
    return Evaluation.of(play_episodes(env_id, policy, range(episodes), seed, checks=checks))


def play_episodes(
    env_id: str,
    policy: Actor,
    episodes: Sequence[int],
    seed: int,
    *,
    worker_index: int | None = None,
    checks: Checks = USUAL_CHECKS,
) -> list[Episode]:
    """Play the episodes with these numbers; results in the same order, ``env_index`` is the number."""
    registry.check(env_id)
    played: list[Episode] = []
    for start in range(0, len(episodes), MAX_SIDE_BY_SIDE):
        numbers = episodes[start : start + MAX_SIDE_BY_SIDE]
        for crashes in range(1, MAX_CRASHES + 1):
            try:
                played += _play_fresh(env_id, policy, numbers, seed, worker_index, checks)
                break
            except EnvCrash as crash:
                if crashes == MAX_CRASHES:
                    told = f"{crash}\nThese episodes were begun {MAX_CRASHES} times, and each time one crashed."
                    raise EnvFailure(told) from crash.__cause__
                _log.warning("%s; its evaluation is played again", str(crash).partition("\n")[0])
    return played


def _play_fresh(
    env_id: str, policy: Actor, numbers: Sequence[int], seed: int, worker_index: int | None, checks: Checks
) -> list[Episode]:
    """Play episodes side by side in new copies; a second time gives the same, so what crashes may be begun again."""
    copies: list[EnvCopy] = []
    seeds = [streams.evaluation_seed(seed, number) for number in numbers]
    try:
        copies.extend(EnvCopy(partial(registry.make, env_id), number, worker_index=worker_index) for number in numbers)
        played = _play_side_by_side(copies, policy, seeds, checks)
    except BaseException:
        for copy in copies:
            with suppress(EnvFailure):  # what has crashed may well not close, and the crash is what is to be told
                copy.close()
        raise
    for copy in copies:
        copy.close()
    return played


def play_watched(
    copy: EnvCopy, policy: Actor, seed: int, number: int, watch: Callable[[], object], *, checks: Checks = USUAL_CHECKS
) -> Episode:
    """Play the evaluation episode with this number in a copy; ``watch`` is called after the reset and each step."""
    return _play_side_by_side([copy], policy, [streams.evaluation_seed(seed, number)], checks, watch)[0]


def _play_side_by_side(
    copies: Sequence[EnvCopy],
    policy: Actor,
    seeds: Sequence[int],
    checks: Checks,
    watch: Callable[[], object] = lambda: None,
) -> list[Episode]:
    writer, layout = copies[0].writer, ActionLayout.of(copies[0].action_space)
    columns = writer.allocate(len(copies))
    rows = writer.rows(columns)
    for copy, row, seed in zip(copies, rows, seeds, strict=True):
        copy.reset(row, seed)
        copy.check_outcome(0, row, 0.0, checks)
    returns, lengths = [0.0] * len(copies), [0] * len(copies)
    playing = list(range(len(copies)))
    states: np.ndarray | None = None
    told_at_s = time.monotonic() + NOTICE_S
    watch()
    while playing:
        if lengths[playing[0]] % _STEPS_A_LOOK == 0 and time.monotonic() > told_at_s:
            told_at_s = math.inf
            _log.warning(
                "an evaluation has been playing for %.0f s: episode %d is at step %s; if it may go on for ever, give "
                "the environment a time limit, as in --env NAME+time_limit=1000",
                NOTICE_S,
                copies[playing[0]].env_index,
                f"{lengths[playing[0]]:,}",
            )
        observations = {name: column[playing] for name, column in columns.items()}
        masks = _masks([copies[i] for i in playing], [lengths[i] for i in playing], layout)
        actions, states = policy.act(observations, states, masks, deterministic=True)
        still_playing: list[int] = []
        for i, action in zip(playing, layout.unflatten_all(layout.read(actions, len(playing))), strict=True):
            reward, terminated, truncated = copies[i].step(action, rows[i])
            returns[i] += copies[i].score
            lengths[i] += 1
            copies[i].check_outcome(lengths[i], rows[i], reward, checks)
            if not (terminated or truncated) or copies[i].goes_on:
                still_playing.append(i)
        states = states[np.isin(playing, still_playing)]
        playing = still_playing
        watch()
    return [Episode(copies[i].env_index, returns[i], lengths[i]) for i in range(len(copies))]


def _masks(copies: Sequence[EnvCopy], lengths: Sequence[int], layout: ActionLayout) -> np.ndarray | None:
    """[N, num_choices] bool for the copies' last observations; None where the environment gives none."""
    if all(copy.mask is None for copy in copies):
        return None
    masks = np.ones((len(copies), layout.num_choices), bool)
    for row, copy, length in zip(masks, copies, lengths, strict=True):
        copy.write_mask(layout, row, length)
    return masks
