"""The episodes of simulators outside, and their steps until a learner takes them. A table: no clock, no I/O.

    start -> step 0 -> action -> step 1 (with the reward of step 0) -> action -> ... -> end
    step:   asked -> acted -> complete, when its reward and what followed are known -> taken, or dropped as too old

Whatever is sent may come twice, late, or not at all. An episode has a name, a step a number, and the table these rules:

- The step after the last is acted on; the last one, told as before, is answered again with the same action. While it
  is under way its twin waits for it. All else is refused: what is older, what skips, the same step told otherwise.
- So each step is complete once, and taken once. What was a twin is counted in ``duplicates``, whatever came of it.
- Who says nothing for ``silence_s`` is cut at the last step whose outcome is known; the step that he was in is lost.
- No more episodes begin than may be under way, by their number and by the bytes that they may hold.
- An end is remembered, and answered again; so is a cut, until ``max_remembered`` others have ended.

A learner takes so many steps exactly, oldest weights first, of episodes that go on, too. With ``max_lag`` = L a step is
dropped that L + 1 or more versions were published after. Nobody may act ahead of use: there are no more steps than
batches will take until they are too old. So at L = 0 all wait while the learner learns.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from ..rllib.rollouts.external import ExternalSegment, Taken
from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStep, StepReply
from .errors import BadRequest, EpisodeNotFound, EpisodeOver, OutOfStep, Overloaded
from .requests import Actions, Columns

#: What an episode's name has, at most: it stands in logs, and thousands are remembered.
MAX_NAME_LENGTH = 128
#: What is counted, see ``Taken.counts``.
COUNTS = ("episodes", "started", "cut_episodes", "steps", "lost_steps", "dropped_steps", "duplicates")


class Found(Enum):
    """What is to be done for a request that has no answer yet."""

    BEGIN = "act, and tell what came of it"
    WAIT = "its twin is under way: their answer is the same"


class Acted(NamedTuple):
    """What a policy did in a step."""

    action: Actions  #: for the simulator
    drawn: np.ndarray  #: [W] as it was drawn
    log_prob: float
    value: float
    state: np.ndarray  #: [S] recurrent, after the step
    version: int


@dataclass(slots=True, eq=False)
class _Step:
    number: int
    order: int  #: among all steps of all episodes
    observation: Columns
    mask: np.ndarray | None
    drawn: np.ndarray
    log_prob: float
    value: float
    state: np.ndarray  #: before the step
    version: int
    reward: float = 0.0


@dataclass(slots=True, eq=False)
class _Run:
    """Steps of one episode that are complete and not taken, and what follows the last of them."""

    steps: list[_Step] = field(default_factory=list)
    last_observation: Columns | None = None
    last_value: float = 0.0


@dataclass(slots=True, eq=False)
class _Episode:
    heard_s: float
    state: np.ndarray  #: recurrent, before the next step
    run: _Run = field(default_factory=_Run)
    last: _Step | None = None  #: acted, and its outcome is not known
    told: EpisodeStep | None = None  #: what was said of it
    answer: StepReply | None = None
    asked: EpisodeStep | EpisodeEnd | None = None  #: what is under way
    num_steps: int = 0
    episode_return: float = 0.0


class _Ending(NamedTuple):
    """What is remembered of an episode that is over; an answer of None: it was cut."""

    told: EpisodeEnd | None  #: without what was seen: thousands of images are too much to remember
    answer: EpisodeEnded | None


class EpisodeTable:
    """Episodes for one learner.

    Args:
      batch_steps: How many it will take at once.
      max_lag: L.
      state_size: S, of the policy's recurrent states.
      silence_s: After which an episode is cut.
      max_open: Episodes under way at once.
      max_open_bytes: What they may hold, each the step that was acted on and the one that is asked.
      step_bytes: Of a step: observation, mask and state.
      max_remembered: Ends that are remembered.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self,
        *,
        batch_steps: int,
        max_lag: int,
        state_size: int = 0,
        silence_s: float = 60.0,
        max_open: int = 10_000,
        max_open_bytes: int = 2 << 30,
        step_bytes: int = 0,
        max_remembered: int = 10_000,
    ) -> None:
        if min(batch_steps, max_open, max_remembered) < 1 or max_lag < 0 or not silence_s > 0.0:
            raise ValueError("a batch, the episodes and the silence are positive, and a lag is at least 0")
        self._batch_steps, self._max_lag, self._state_size = batch_steps, max_lag, state_size
        self._silence_s, self._max_remembered = silence_s, max_remembered
        self._step_bytes = step_bytes
        self._max_open = max(1, min(max_open, max_open_bytes // (2 * step_bytes))) if step_bytes else max_open
        self._open: OrderedDict[str, _Episode] = OrderedDict()  # heard of longest ago first
        self._over: OrderedDict[str, _Ending] = OrderedDict()
        self._closed: list[_Run] = []  # of episodes that are over
        self._finished: list[tuple[float, int]] = []
        self._counts: Counter[str] = Counter()
        self._held = self._acted = 0
        self._version = 0
        self._is_taken = False  # a batch was taken at this version

    @property
    def held(self) -> int:
        """Steps that are complete and were not taken or dropped."""
        return self._held

    # ---- simulators

    def start(self, episode: str, now_s: float) -> None:
        """An episode begins, or is said to again.

        Raises:
          EpisodeOver: it is over already.
          Overloaded: there are too many.
          BadRequest: its name is too long.
        """
        if len(episode) > MAX_NAME_LENGTH:
            told = f"{episode[:16]!r}... has {len(episode)} characters; a name has {MAX_NAME_LENGTH} at most"
            raise BadRequest(told, field="episode")
        if episode in self._over:
            self._counts["duplicates"] += 1
            self._raise_over(episode)
        if episode in self._open:
            self._counts["duplicates"] += 1
            self._hear(episode, now_s)
            return
        if len(self._open) >= self._max_open:
            megabytes = 2 * self._step_bytes * len(self._open) / 1e6
            raise Overloaded(
                f"episode {episode!r} cannot begin: {len(self._open)} are under way, and may hold {megabytes:,.0f} MB; "
                f"end one, or come again",
                retry_after_s=1.0,
            )
        self._open[episode] = _Episode(now_s, np.zeros(self._state_size, np.float32))
        self._counts["started"] += 1

    def step(self, episode: str, told: EpisodeStep, now_s: float) -> StepReply | Found:
        """An action is wanted. ``BEGIN`` is to be followed by ``acted`` or ``failed``.

        Raises:
          EpisodeNotFound, EpisodeOver, OutOfStep, BadRequest: see above; nothing was changed.
        """
        live = self._heard(episode, now_s)
        if live.last is not None and told.step == live.num_steps - 1:
            assert live.told is not None
            assert live.answer is not None
            self._counts["duplicates"] += 1
            _check_same(live.told, told)
            return live.answer
        return self._begin(live, told)

    def state_before(self, episode: str) -> np.ndarray:
        """[S] the recurrent state that the step under way is to be acted from."""
        return self._open[episode].state

    def acted(self, episode: str, acted: Acted, now_s: float) -> StepReply:
        """The step under way has an action: that is its answer from now on."""
        live = self._hear(episode, now_s)
        told, live.asked = live.asked, None
        assert isinstance(told, EpisodeStep)
        self._complete(live, told.reward)
        live.last = _Step(
            told.step, self._acted, told.observation, told.action_mask,
            acted.drawn, acted.log_prob, acted.value, live.state, acted.version,
        )  # fmt: skip
        live.run.last_observation, live.run.last_value = told.observation, acted.value
        self._acted += 1
        live.state = acted.state
        live.num_steps += 1
        live.told, live.answer = told, StepReply(action=acted.action, step=told.step, version=acted.version)
        return live.answer

    def end(self, episode: str, told: EpisodeEnd, now_s: float) -> EpisodeEnded | Found:
        """An episode is over. ``BEGIN`` is to be followed by ``ended`` or ``failed``.

        Raises:
          EpisodeNotFound, EpisodeOver, OutOfStep, BadRequest: as ``step``.
        """
        over = self._over.get(episode)
        if over is not None and over.answer is not None and over.told is not None:
            self._counts["duplicates"] += 1
            _check_same(over.told, replace(told, observation=None))
            return over.answer
        return self._begin(self._heard(episode, now_s), told)

    def ended(self, episode: str, value: float) -> EpisodeEnded:
        """The end under way holds.

        Args:
          episode: Which.
          value: What the critic expects from the last observation; 0 where it terminated.
        """
        live = self._open.pop(episode)
        told = live.asked
        assert isinstance(told, EpisodeEnd)
        self._complete(live, told.reward)
        live.run.last_observation = None if told.terminated else told.observation
        live.run.last_value = 0.0 if told.terminated else value
        answer = EpisodeEnded(episode=episode, steps=live.num_steps, episode_return=live.episode_return)
        if live.num_steps:
            self._finished.append((live.episode_return, live.num_steps))
            self._counts["episodes"] += 1
        self._close(episode, live, _Ending(replace(told, observation=None), answer))
        return answer

    def failed(self, episode: str) -> None:
        """What was under way came to nothing: it may be asked again."""
        self._open[episode].asked = None

    def expire(self, now_s: float) -> None:
        """Cut those of which nothing was heard for so long; not those that wait for an answer."""
        while self._open:
            episode, live = next(iter(self._open.items()))
            if now_s - live.heard_s <= self._silence_s:
                return
            if live.asked is not None:
                self._hear(episode, now_s)
                continue
            del self._open[episode]
            self._counts["lost_steps"] += live.last is not None
            self._counts["cut_episodes"] += 1
            self._close(episode, live, _Ending(None, None))

    # ---- the learner

    def publish(self, version: int) -> None:
        """There are newer weights; those of a server that was started again may be of any version."""
        if version > self._version:
            self._version, self._is_taken = version, False

    def may_act(self) -> bool:
        """Whether a step that is acted now would be of use."""
        batches = self._max_lag + (not self._is_taken)
        return self._held < self._batch_steps * batches

    def take(self, num_steps: int, version: int) -> Taken | None:
        """Exactly so many steps, oldest weights first; None if there are too few.

        Args:
          num_steps: At least 1.
          version: Of the weights that learn from them.
        """
        runs = [*self._closed, *(live.run for live in self._open.values())]
        for run in runs:
            self._drop_old(run, version - self._max_lag)
        self._closed = [run for run in self._closed if run.steps]
        if self._held < num_steps:
            return None
        runs = sorted((run for run in runs if run.steps), key=lambda run: (run.steps[0].version, run.steps[0].order))
        segments: list[ExternalSegment] = []
        left = num_steps
        for run in runs:
            if not left:
                break
            segments.append(_segment(run, min(left, len(run.steps))))
            left -= len(segments[-1])
        self._closed = [run for run in self._closed if run.steps]
        self._held -= num_steps
        self._is_taken = True
        counts = {name: self._counts[name] for name in COUNTS}
        finished, self._finished = tuple(self._finished), []
        self._counts.clear()
        return Taken(tuple(segments), finished, counts, len(self._open), self._held)

    # ---- inside

    def _hear(self, episode: str, now_s: float) -> _Episode:
        live = self._open[episode]
        live.heard_s = now_s
        self._open.move_to_end(episode)
        return live

    def _heard(self, episode: str, now_s: float) -> _Episode:
        if episode not in self._open:
            if episode in self._over:
                self._raise_over(episode)
            raise EpisodeNotFound(f"no episode {episode[:64]!r} was started since this server was", field="episode")
        return self._hear(episode, now_s)

    def _raise_over(self, episode: str) -> None:
        answer = self._over[episode].answer
        if answer is None:
            raise EpisodeOver(f"episode {episode!r} was cut: {self._silence_s:g} s without a word", field="episode")
        raise EpisodeOver(f"episode {episode!r} has ended, after {answer.steps} steps", field="episode")

    def _begin(self, live: _Episode, told: EpisodeStep | EpisodeEnd) -> Found:
        if live.asked is not None and told.step == live.num_steps:
            self._counts["duplicates"] += 1
            _check_same(live.asked, told)
            return Found.WAIT
        if told.step != live.num_steps:
            self._counts["duplicates"] += told.step < live.num_steps
            steps = live.num_steps
            raise OutOfStep(f"{told.step}; the episode has {steps} steps, so {steps} is next", field="step")
        if told.step == 0 and told.reward != 0.0:
            raise BadRequest(f"{told.reward:g} before the first action; nothing is earned yet", field="reward")
        live.asked = told
        return Found.BEGIN

    def _complete(self, live: _Episode, reward: float) -> None:
        """What the last step earned, and what followed it, are known."""
        if live.last is not None:
            live.last.reward = reward
            live.episode_return += reward
            live.run.steps.append(live.last)
            live.last = None
            self._held += 1
            self._counts["steps"] += 1

    def _close(self, episode: str, live: _Episode, ending: _Ending) -> None:
        if live.run.steps:
            self._closed.append(live.run)
        self._over[episode] = ending
        while len(self._over) > self._max_remembered:
            self._over.popitem(last=False)

    def _drop_old(self, run: _Run, oldest: int) -> None:
        old = next((i for i, step in enumerate(run.steps) if step.version >= oldest), len(run.steps))
        del run.steps[:old]
        self._held -= old
        self._counts["dropped_steps"] += old


def _check_same(before: EpisodeStep | EpisodeEnd, now: EpisodeStep | EpisodeEnd) -> None:
    """Raises OutOfStep where a step is told otherwise than before: it was acted on, and cannot be another."""
    if type(before) is not type(now):
        raise OutOfStep(f"{now.step} is a step in one request and the end in another", field="step")
    for name in ("step", "reward", "terminated", "truncated"):
        if getattr(before, name, None) != getattr(now, name, None):
            raise OutOfStep(f"step {now.step} was told before with another {name}", field=name)
    if not _are_same(before.observation, now.observation):
        raise OutOfStep(f"step {now.step} was told before with another observation", field="observation")
    ours, theirs = getattr(before, "action_mask", None), getattr(now, "action_mask", None)
    if not _are_same(None if ours is None else {"": ours}, None if theirs is None else {"": theirs}):
        raise OutOfStep(f"step {now.step} was told before with another mask", field="action_mask")


def _are_same(one: Columns | None, other: Columns | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _segment(run: _Run, length: int) -> ExternalSegment:
    """The first steps of a run, which are in it no longer."""
    steps, run.steps = run.steps[:length], run.steps[length:]
    last_observation, last_value = run.last_observation, run.last_value
    if run.steps:
        last_observation, last_value = run.steps[0].observation, run.steps[0].value
    masks = None
    if any(step.mask is not None for step in steps):
        width = next(len(step.mask) for step in steps if step.mask is not None)
        masks = np.stack([np.ones(width, bool) if step.mask is None else step.mask for step in steps])
    return ExternalSegment(
        first_step=steps[0].number,
        observations={name: np.stack([step.observation[name] for step in steps]) for name in steps[0].observation},
        actions=np.stack([step.drawn for step in steps]),
        masks=masks,
        log_probs=np.array([step.log_prob for step in steps], np.float32),
        rewards=np.array([step.reward for step in steps], np.float32),
        values=np.array([step.value for step in steps], np.float32),
        states=np.stack([step.state for step in steps]),
        versions=np.array([step.version for step in steps], np.int64),
        last_observation=last_observation,
        last_value=float(last_value),
    )
