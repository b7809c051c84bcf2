"""Where simulators outside play their episodes and a learner takes them: the shell around ``EpisodeTable``, on the
loop of the server of policies.

    start, step, end -> checked -> table -> the policy's line -> table -> answer
    take  <- as soon as there are enough steps

A step that was begun is finished, whether or not its client still waits: the twin that it sends gets the answer. Who
may not act yet, as the learner has all that it can use, waits here, and not by asking again and again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..rllib.rollouts.external import Taken
from .checking import Checker
from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStarted, EpisodeStep, StartEpisode, StepReply
from .episodes import Acted, EpisodeTable, Found
from .errors import BadObservation, BadRequest, Overloaded, PolicyNotFound, ServingError, Unready
from .requests import Actions, ActReply, ActRequest, Columns, PolicyInfo
from .spaces import columns_of, num_choices

R = TypeVar("R")

_log = logging.getLogger(__name__)

#: How long a step waits for the learner before it is told to come again: less than a client's usual patience.
_PATIENCE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """What is done with episodes."""

    policy: str
    """Name of the policy that learns from them."""
    batch_steps: int
    """Steps that the learner takes at once."""
    max_lag: int = 2
    """Versions published since a step was acted after which nobody learns from it."""
    silence_s: float = 60.0
    """After which an episode of which nothing is heard is cut."""
    max_open_bytes: int = 2 << 30
    """What episodes under way may hold of what their simulators see, 2 GiB: with pictures of 84 x 84 x 4 bytes their
    number is the tighter bound, with larger ones this."""


class EpisodeDesk:
    """Episodes of one policy, on the running event loop.

    Args:
      settings: What is done with them.
      info: Of the policy; its spaces do not change.
      act: Asks the policy.
    """

    def __init__(
        self, settings: EpisodeSettings, info: PolicyInfo, act: Callable[[ActRequest], Awaitable[ActReply]]
    ) -> None:
        self._act, self._checker = act, Checker(info)
        #: Name of the policy that learns.
        self.policy = settings.policy
        self._is_recurrent = info.state_size > 0
        self._table = EpisodeTable(
            batch_steps=settings.batch_steps,
            max_lag=settings.max_lag,
            state_size=info.state_size,
            silence_s=settings.silence_s,
            max_open_bytes=settings.max_open_bytes,
            step_bytes=_step_bytes(info),
        )
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._changed = asyncio.Event()  # somebody may act who had to wait, or enough has come
        self._wanted_steps = settings.batch_steps
        self._is_leaving = False

    # ---- simulators

    async def start(self, asking: StartEpisode) -> EpisodeStarted:
        """Raises PolicyNotFound, EpisodeOver, Overloaded."""
        self._check_is_staying()
        policy = self.policy
        if asking.policy not in (None, policy):
            raise PolicyNotFound(f"{asking.policy!r} does not learn from episodes, {policy!r} does", field="policy")
        now_s = time.monotonic()
        self._table.expire(now_s)
        self._table.start(asking.episode, now_s)
        return EpisodeStarted(episode=asking.episode, policy=policy)

    async def step(self, episode: str, asking: EpisodeStep) -> StepReply:
        """Raises any of ``errors.py``; the episode is as it was then."""
        self._check_is_staying()
        request = self._checked(asking.observation, asking.action_mask, asking.timeout_s)
        mask = None if request.action_mask is None else request.action_mask[0].copy()
        told = replace(asking, observation=_row(request.observations), action_mask=mask)
        found = self._table.step(episode, told, time.monotonic())
        if isinstance(found, StepReply):
            return found
        return await self._once(found, episode, lambda: self._acted(episode, request))

    async def end(self, episode: str, asking: EpisodeEnd) -> EpisodeEnded:
        """Raises any of ``errors.py``; the episode is as it was then."""
        self._check_is_staying()
        if not (asking.terminated or asking.truncated):
            raise BadRequest("say how it ended: terminated or truncated", field="terminated")
        if asking.observation is None and not asking.terminated:
            raise BadRequest("missing; a truncated episode needs what is seen at last", field="observation")
        request, told = None, asking
        if asking.observation is not None:
            request = self._checked(asking.observation, None, asking.timeout_s)
            told = replace(asking, observation=_row(request.observations))
        found = self._table.end(episode, told, time.monotonic())
        if isinstance(found, EpisodeEnded):
            return found
        return await self._once(found, episode, lambda: self._ended(episode, None if told.terminated else request))

    # ---- the learner

    def publish(self, version: int) -> None:
        """The policy has newer weights."""
        self._table.publish(version)
        self._change()

    async def take(self, num_steps: int, version: int, wait_s: float) -> Taken | None:
        """Wait for so many steps, and take them.

        Args:
          num_steps: How many, exactly.
          version: Of the weights that learn from them.
          wait_s: How long at most; then None.
        """
        end_s = time.monotonic() + wait_s
        self._wanted_steps = num_steps
        while True:
            now_s = time.monotonic()
            self._table.expire(now_s)
            taken = self._table.take(num_steps, version)
            self._change()
            if taken is not None or now_s >= end_s or self._is_leaving:
                return taken
            while self._table.held < num_steps and time.monotonic() < end_s and not self._is_leaving:
                await self._change_within(end_s - time.monotonic())

    def close(self) -> None:
        """Answer nobody any more: who waits here is told."""
        self._is_leaving = True
        self._change()

    # ---- inside

    def _check_is_staying(self) -> None:
        if self._is_leaving:
            raise Unready("this server is leaving")

    def _checked(self, observation: Columns, mask: np.ndarray | None, timeout_s: float | None) -> ActRequest:
        """The request to the policy, of one row.

        Raises:
          BadObservation, BadRequest: it does not fit; the field is named as the simulator names it.
        """
        request = ActRequest(
            observations={name: array[None] for name, array in observation.items()},
            action_mask=None if mask is None else mask[None],
            deterministic=False,
            want_log_prob=True,
            want_value=True,
            want_drawn=True,
            timeout_s=timeout_s,
        )
        try:
            return self._checker.checked(request)
        except (BadObservation, BadRequest) as error:
            field = None if error.field is None else error.field.replace("observations", "observation", 1)
            raise type(error)(f"{error.message} (a step is a row: N is 1)", field=field) from error

    async def _once(self, found: Found, episode: str, begin: Callable[[], Awaitable[R]]) -> R:
        """What is under way for an episode, begun if it is not; it goes on when whoever waits for it is gone."""
        if found is Found.BEGIN:
            task = asyncio.ensure_future(begin())
            task.add_done_callback(_noticed)
            self._under_way[episode] = task
        answer: R = await asyncio.shield(self._under_way[episode])
        return answer

    async def _acted(self, episode: str, request: ActRequest) -> StepReply:
        try:
            await self._room(request.timeout_s)
            reply = await self._act(self._with_state(episode, request))
            assert reply.drawn is not None
            assert reply.log_prob is not None
            assert reply.value is not None
            acted = Acted(
                action=_first(reply.actions),
                drawn=reply.drawn[0].copy(),
                log_prob=float(reply.log_prob[0]),
                value=float(reply.value[0]),
                state=self._table.state_before(episode) if reply.state is None else reply.state[0].copy(),
                version=reply.version,
            )
        except BaseException:
            self._table.failed(episode)
            raise
        finally:
            del self._under_way[episode]
        answer = self._table.acted(episode, acted, time.monotonic())
        self._tell_if_full()
        return answer

    async def _ended(self, episode: str, request: ActRequest | None) -> EpisodeEnded:
        value = 0.0
        try:
            if request is not None:
                reply = await self._act(self._with_state(episode, request))
                assert reply.value is not None
                value = float(reply.value[0])
        except BaseException:
            self._table.failed(episode)
            raise
        finally:
            del self._under_way[episode]
        answer = self._table.ended(episode, value)
        self._tell_if_full()
        return answer

    def _with_state(self, episode: str, request: ActRequest) -> ActRequest:
        return replace(request, state=self._table.state_before(episode)[None]) if self._is_recurrent else request

    async def _room(self, timeout_s: float | None) -> None:
        """Wait until a step is of use to the learner."""
        end_s = time.monotonic() + min(_PATIENCE_S, timeout_s or _PATIENCE_S)
        while not self._table.may_act():
            self._check_is_staying()
            left_s = end_s - time.monotonic()
            if left_s <= 0.0:
                raise Overloaded("the learner has all the steps that it can use", retry_after_s=0.05)
            await self._change_within(left_s)

    def _tell_if_full(self) -> None:
        if self._table.held >= self._wanted_steps:
            self._change()

    def _change(self) -> None:
        """Wake all who wait for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _change_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return


def _noticed(task: asyncio.Task[Any]) -> None:
    """Whoever waited for it may be gone, and then nobody is told: the twin hears again what can be said to a client; a
    fault is for the log.
    """
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServingError):
        _log.error("a step or an end of an episode failed by a fault of the server", exc_info=error)


def _step_bytes(info: PolicyInfo) -> int:
    """What a step of an episode takes at most: observation, mask, and recurrent state."""
    observation = sum(
        np.dtype(leaf.dtype).itemsize * math.prod(leaf.shape) for leaf in columns_of(info.observation_space).values()
    )
    return observation + num_choices(info.action_space) + np.dtype(np.float32).itemsize * info.state_size


def _row(columns: Mapping[str, np.ndarray]) -> Columns:
    """Copies: an array that came over HTTP is a view of a request, which may be larger; one of a reply, of a batch."""
    return {name: array[0].copy() for name, array in columns.items()}


def _first(actions: Actions) -> Actions:
    """The first row of actions, nested as they are."""
    if isinstance(actions, dict):
        return {name: _first(part) for name, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(_first(part) for part in actions)
    return np.asarray(actions[0])
