"""An episode that a simulator outside the cluster plays for a learner. No torch, no core, no gymnasium.

    episode = client.start_episode()
    while not is_over:
        action = episode.act(observation)
        observation, reward, terminated, truncated, _ = simulator.step(action)
        episode.log_returns(reward)
        is_over = terminated or truncated
    episode.end(observation, terminated=terminated, truncated=truncated)

Calls are tried again within their time; the server counts each step once, however often it hears of it, and answers it
with the same action. After an error the same call may be made again, with the same observation. What ends an episode
for its simulator is EpisodeNotFound (the server was started again) and EpisodeOver (it was cut): then begin another.

``EpisodeScript`` is pure: it says what to send; ``Episode`` and ``AsyncEpisode`` send it. One caller at a time.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn
from urllib.parse import quote

import numpy as np

from . import episode_wire, exchange
from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStarted, EpisodeStep, StartEpisode, StepReply
from .exchange import Answer, Exchange, Sending
from .requests import Actions, Columns
from .spaces import ONLY

Observation = np.ndarray | Mapping[str, np.ndarray] | float
#: What makes a request of the seconds that are left for it.
Made = Callable[[float], Sending]


class EpisodeScript:
    """What one episode says to the server.

    Args:
      to: Where it is sent.
      policy: Whose actions it wants; None: of the policy that learns.
      name: Of the episode; None: a new one.

    Raises:
      BadRequest: an episode cannot be called so.
    """

    def __init__(self, to: Exchange, policy: str | None, name: str | None) -> None:
        self._to, self._policy = to, policy
        self.name = uuid.uuid4().hex if name is None else episode_wire.check_name(name)
        self.num_steps = 0  #: that were answered
        self.version: int | None = None  #: of the policy that acted last
        self._earned = 0.0  # since the last action
        self._path = f"/v1/episodes/{quote(self.name, safe='')}"

    def earn(self, reward: float) -> None:
        """What the last action has earned, or a part of it. It is kept until an answer has come."""
        self._earned += float(reward)

    def starting(self) -> Made:
        asking = StartEpisode(episode=self.name, policy=self._policy)
        return lambda _: self._to.posting("/v1/episodes", asking)

    def acting(self, observation: Observation, mask: np.ndarray | None, reward: float) -> Made:
        columns, step, earned = _columns(observation), self.num_steps, self._earned + float(reward)
        allowed = None if mask is None else np.asarray(mask)

        def made(left_s: float) -> Sending:
            asking = EpisodeStep(
                step=step, observation=columns, reward=earned, action_mask=allowed, timeout_s=max(left_s, 1e-3)
            )
            return self._to.posting(f"{self._path}/steps", asking)

        return made

    def ending(self, observation: Observation | None, reward: float, *, terminated: bool, truncated: bool) -> Made:
        columns = None if observation is None else _columns(observation)
        step, earned = self.num_steps, self._earned + float(reward)

        def made(left_s: float) -> Sending:
            asking = EpisodeEnd(
                step=step,
                reward=earned,
                terminated=bool(terminated),
                truncated=bool(truncated),
                observation=columns,
                timeout_s=max(left_s, 1e-3),
            )
            return self._to.posting(f"{self._path}/end", asking)

        return made

    def answered(self, answer: Answer) -> Actions:
        """The action in an answer: the step is done."""
        reply = exchange.told_by(answer, StepReply)
        self.num_steps, self.version, self._earned = reply.step + 1, reply.version, 0.0
        return _scalars(reply.action)

    def refuse_other_actions(self) -> NoReturn:
        """Raises NotImplementedError, with the reason."""
        raise NotImplementedError(
            "actions that something else chose cannot be logged: PPO learns from the actions of its own policy, whose "
            "probability it must know; act through this episode, or leave the step out"
        )


class Episode:
    """An episode under way; ``PolicyClient.start_episode`` makes it."""

    def __init__(self, script: EpisodeScript, answer: Callable[[Made, float | None], Answer], timeout_s: float) -> None:
        self._script, self._answer, self._timeout_s = script, answer, timeout_s

    @property
    def name(self) -> str:
        """What the server knows it by."""
        return self._script.name

    @property
    def num_steps(self) -> int:
        """Steps that have an action."""
        return self._script.num_steps

    @property
    def version(self) -> int | None:
        """Of the policy that acted last; None before that."""
        return self._script.version

    def start(self) -> None:
        """Make it known; ``start_episode`` has done it."""
        exchange.told_by(self._answer(self._script.starting(), self._timeout_s), EpisodeStarted)

    def act(self, observation: Observation, mask: np.ndarray | None = None, *, reward: float = 0.0) -> Actions:
        """The policy's action for what is seen now.

        Args:
          observation: [*shape]; for a nested space such arrays by column name, "camera", "state/position".
          mask: [choices] booleans, True where allowed.
          reward: What the action before has earned, beside what was logged.

        Raises:
          ServingError: see errors.py.
        """
        acting = self._script.acting(observation, mask, reward)
        return self._script.answered(self._answer(acting, self._timeout_s))

    def log_returns(self, reward: float) -> None:
        """What the last action has earned, or more of it. It goes out with the next action, or the end."""
        self._script.earn(reward)

    def log_action(self, observation: Observation, action: Actions) -> NoReturn:
        """Actions that were chosen elsewhere are not learned from.

        Raises:
          NotImplementedError: always; says why.
        """
        self._script.refuse_other_actions()

    def end(
        self,
        observation: Observation | None = None,
        *,
        terminated: bool = False,
        truncated: bool = False,
        reward: float = 0.0,
    ) -> EpisodeEnded:
        """The episode is over.

        Args:
          observation: What is seen at last; needed where it was truncated.
          terminated, truncated: As gymnasium has them; one of them at least.
          reward: What the last action has earned, beside what was logged.

        Raises:
          ServingError: see errors.py.
        """
        ending = self._script.ending(observation, reward, terminated=terminated, truncated=truncated)
        return exchange.told_by(self._answer(ending, self._timeout_s), EpisodeEnded)


class AsyncEpisode:
    """``Episode`` for programs with an event loop; ``AsyncPolicyClient.start_episode`` makes it."""

    def __init__(
        self, script: EpisodeScript, answer: Callable[[Made, float | None], Awaitable[Answer]], timeout_s: float
    ) -> None:
        self._script, self._answer, self._timeout_s = script, answer, timeout_s

    @property
    def name(self) -> str:
        """What the server knows it by."""
        return self._script.name

    @property
    def num_steps(self) -> int:
        """Steps that have an action."""
        return self._script.num_steps

    @property
    def version(self) -> int | None:
        """Of the policy that acted last; None before that."""
        return self._script.version

    async def start(self) -> None:
        """See ``Episode.start``."""
        exchange.told_by(await self._answer(self._script.starting(), self._timeout_s), EpisodeStarted)

    async def act(self, observation: Observation, mask: np.ndarray | None = None, *, reward: float = 0.0) -> Actions:
        """See ``Episode.act``."""
        acting = self._script.acting(observation, mask, reward)
        return self._script.answered(await self._answer(acting, self._timeout_s))

    def log_returns(self, reward: float) -> None:
        """See ``Episode.log_returns``."""
        self._script.earn(reward)

    def log_action(self, observation: Observation, action: Actions) -> NoReturn:
        """See ``Episode.log_action``."""
        self._script.refuse_other_actions()

    async def end(
        self,
        observation: Observation | None = None,
        *,
        terminated: bool = False,
        truncated: bool = False,
        reward: float = 0.0,
    ) -> EpisodeEnded:
        """See ``Episode.end``."""
        ending = self._script.ending(observation, reward, terminated=terminated, truncated=truncated)
        return exchange.told_by(await self._answer(ending, self._timeout_s), EpisodeEnded)


def _columns(observation: Observation) -> Columns:
    columns = dict(observation) if isinstance(observation, Mapping) else {ONLY: observation}
    # Copies: simulators write the next observation where this one is, and it may have to be sent again.
    return {name: np.array(column) for name, column in columns.items()}


def _scalars(action: Actions) -> Actions:
    """Arrays without dimensions as the numbers that environments take; others are the caller's own."""
    if isinstance(action, dict):
        return {name: _scalars(part) for name, part in action.items()}
    if isinstance(action, tuple):
        return tuple(_scalars(part) for part in action)
    own: np.ndarray = action.copy()[()]
    return own
