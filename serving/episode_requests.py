"""What simulators outside say of their episodes and what they are answered. Pure values, as in ``requests.py``.

An episode is started, then come its steps, numbered from 0, each with what is seen and what the action before has
earned, and then its end, with the number of its steps. Everything may be sent again, and is answered the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .requests import Actions, Columns
from .spaces import told

_NAME = told("Name of the episode, made by whoever plays it: no two have the same")
_REWARD = told("What the action before this has earned, with all since; 0 where there is none")
_TIMEOUT = told(
    "Seconds from when the request is read, after which no answer is wanted any more, but an error 504. The "
    "quickest policies take a tenth of a millisecond, so 0.001 is the least that makes sense; null for the "
    "server's own limit"
)


@dataclass(frozen=True, kw_only=True)
class StartEpisode:
    """An episode begins."""

    episode: str = field(metadata=_NAME)
    policy: str | None = field(default=None, metadata=told("Whose actions it wants; null: of the policy that learns"))


@dataclass(frozen=True, kw_only=True)
class EpisodeStarted:
    """The episode is known."""

    episode: str = field(metadata=_NAME)
    policy: str = field(metadata=told("Whose actions it gets"))


@dataclass(frozen=True, kw_only=True)
class EpisodeStep:
    """What is seen now, which wants an action."""

    step: int = field(metadata=told("Its number in the episode, from 0; the same again is answered the same"))
    observation: Columns = field(
        metadata=told("Column name -> array [*shape]; the array alone where the space is not nested")
    )
    reward: float = field(default=0.0, metadata=_REWARD)
    action_mask: np.ndarray | None = field(
        default=None,
        metadata=told("[choices] booleans, true where allowed: the choices of all parts of an action side by side"),
    )
    timeout_s: float | None = field(default=None, metadata=_TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class StepReply:
    """What to do in a step."""

    action: Actions = field(metadata=told("In the action space's own structure"))
    step: int = field(metadata=told("The number of the step"))
    version: int = field(metadata=told("Which version of the policy acted"))


@dataclass(frozen=True, kw_only=True)
class EpisodeEnd:
    """The episode is over: terminated, or truncated, which is to be said."""

    step: int = field(metadata=told("How many steps it had"))
    reward: float = field(default=0.0, metadata=_REWARD)
    terminated: bool = field(default=False, metadata=told("It came to its own end: nothing can be earned any more"))
    truncated: bool = field(default=False, metadata=told("It was cut, by a time limit for instance"))
    observation: Columns | None = field(
        default=None, metadata=told("What is seen at last, as in a step; wanted where it was truncated")
    )
    timeout_s: float | None = field(default=None, metadata=_TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class EpisodeEnded:
    """The episode is taken down as over."""

    episode: str = field(metadata=_NAME)
    steps: int = field(metadata=told("How many it had"))
    episode_return: float = field(metadata=told("Sum of its rewards"))
