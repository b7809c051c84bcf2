"""What is asked of a policy and what it answers, and what is told about it. Pure values, the same for every way in.

Handle calls pass these objects; ``wire.py`` turns them into bytes and back; the OpenAPI document is generated from
their fields. N is the number of rows of a request: each is one observation and gets one action. Nothing here knows of
gymnasium, torch or the core. Whether a request fits a policy is for ``checking.py`` to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, TypedDict

import numpy as np

from .errors import BadRequest
from .spaces import Space, told

Columns: TypeAlias = dict[str, np.ndarray]
#: Arrays with N rows, nested as the action space is.
Actions: TypeAlias = "np.ndarray | dict[str, Actions] | tuple[Actions, ...]"


@dataclass(kw_only=True)  # frozen by rule: by Python it would take 0.8 us more to make
class ActRequest:
    """Observations that want actions."""

    observations: Columns = field(
        metadata=told("Column name -> array [N, *shape]; the array alone where the space is not nested")
    )
    action_mask: np.ndarray | None = field(
        default=None,
        metadata=told("[N, choices] booleans, true where allowed: the choices of all parts of an action side by side"),
    )
    sessions: tuple[str, ...] | None = field(
        default=None,
        metadata=told("N different names: the server keeps the recurrent state of each, and serves each one version"),
    )
    state: np.ndarray | None = field(
        default=None, metadata=told("[N, S] recurrent states of the last answer, where the caller keeps them")
    )
    episode_start: np.ndarray | None = field(
        default=None, metadata=told("[N] booleans, true where an episode begins: its state is forgotten first")
    )
    deterministic: bool = field(default=True, metadata=told("The likeliest action, instead of one that is drawn"))
    want_log_prob: bool = field(default=False, metadata=told("Answer the logarithm of each action's probability"))
    want_value: bool = field(default=False, metadata=told("Answer what the critic expects"))
    want_drawn: bool = field(
        default=False,
        metadata=told("Answer also the actions as they were drawn, which log_prob is of: not clipped, choices from 0"),
    )
    timeout_s: float | None = field(
        default=None,
        metadata=told(
            "Seconds from when the request is read, after which no answer is wanted any more, but an error 504. The "
            "quickest policies take a tenth of a millisecond, so 0.001 is the least that makes sense; null for the "
            "server's own limit"
        ),
    )

    @property
    def num_rows(self) -> int:
        """N."""
        [first, *_] = self.observations.values()
        return len(first)


class ActOptions(TypedDict, total=False):
    """What may be said beside the observations: the fields of ``ActRequest``."""

    action_mask: np.ndarray | None
    sessions: tuple[str, ...] | None
    state: np.ndarray | None
    episode_start: np.ndarray | None
    deterministic: bool
    want_log_prob: bool
    want_value: bool
    want_drawn: bool


@dataclass(kw_only=True)  # frozen by rule: by Python it would take 0.6 us more to make
class ActReply:
    """Actions, and which policy they are of."""

    __shoal_plain__: ClassVar[bool] = True  # see ``core/serialization/values.py``

    actions: Actions = field(metadata=told("One action for each row, in the action space's own structure"))
    policy: str = field(metadata=told("Name of the policy that acted"))
    version: int = field(metadata=told("Which version of it: the same for all rows"))
    log_prob: np.ndarray | None = field(default=None, metadata=told("[N], if it was wanted"))
    value: np.ndarray | None = field(default=None, metadata=told("[N], if it was wanted"))
    drawn: np.ndarray | None = field(
        default=None, metadata=told("[N, W] actions as they were drawn, their parts side by side, if it was wanted")
    )
    state: np.ndarray | None = field(
        default=None, metadata=told("[N, S] recurrent states to come back with, unless sessions keep them")
    )


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """One version of a policy."""

    number: int = field(metadata=told("Of its weights; grows"))
    source: str = field(metadata=told("Where they came from: a checkpoint, or the learner that is followed"))
    loaded_at: float = field(metadata=told("Seconds since 1970"))
    state: Literal["serving", "shadow", "retired"] = field(
        metadata=told("shadow: sees requests, its actions are not answered; retired: answers nobody")
    )


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """What a client must know of a policy."""

    name: str = field(metadata=told("As in the path"))
    versions: tuple[VersionInfo, ...] = field(metadata=told("Newest first"))
    observation_space: Space = field(metadata=told("Without the action mask, if observations carry one"))
    action_space: Space = field(metadata=told("What one action looks like"))
    recurrent: bool = field(metadata=told("Whether actions depend on what came before"))
    state_size: int = field(default=0, metadata=told("S: numbers of a recurrent state"))
    max_rows: int = field(metadata=told("Rows that one request may have"))
    traffic: dict[int, float] = field(
        default_factory=dict, metadata=told("Version -> its share of the requests that name none; empty: the newest")
    )


def parse_name(name: str) -> tuple[str, int | None]:
    """Name and version of what a request is for: "walker" is ("walker", None), "walker:3" is ("walker", 3).

    Raises:
      BadRequest: what follows the colon is no version.
    """
    policy, colon, version = name.partition(":")
    if not colon:
        return policy, None
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise BadRequest(f"{name!r}: a version is a whole number, as in {policy}:3", field="name")
    return policy, int(version)
