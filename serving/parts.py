"""A batch in parts, each of which one version of a policy answers at once. Pure, but for the model that acts.

Usually a batch is one part. There are more where requests of several versions wait, or two requests of one session: the
second acts from the state that the first one leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import PolicyNotFound, ServingError
from .models import Answers, Model, Rows
from .requests import ActReply, ActRequest


@dataclass(slots=True, eq=False)
class Asked:
    """A request that waits for its answer. Each is a client of the queue: so it can be withdrawn by itself."""

    request: ActRequest
    rows: int
    number: int | None  #: the version that was asked for
    key: str | int  #: what decides, if none was
    arrived_s: float
    answer: asyncio.Future[ActReply] | None = None  #: None: it is answered at once

    @property
    def is_over(self) -> bool:
        """Whether it has its answer, or nobody waits for one any more."""
        return self.answer is not None and self.answer.done()

    def tell(self, answer: ActReply | ServingError) -> None:
        """Answer it, unless it is over."""
        if self.answer is None or self.answer.done():
            return
        if isinstance(answer, ServingError):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(slots=True, eq=False)
class Part:
    """Requests of a batch that one version answers at once; without any, it is a shadow's."""

    number: int
    model: Model
    asked: list[Asked] = field(default_factory=list)
    rows: Rows | None = None
    seen: np.ndarray | None = None  #: a shadow's: what was answered, [N, W]


def divided(asked: Sequence[Asked], version_of: Callable[[Asked], int], models: Mapping[int, Model]) -> list[Part]:
    """A batch in parts, in an order that keeps that of each session. Requests that were answered are left out.

    Args:
      asked: Requests, oldest first.
      version_of: The version that answers one; raises PolicyNotFound, which then is the answer.
      models: By version.
    """
    parts: dict[tuple[int, int], Part] = {}
    turns: dict[str, int] = {}  # session -> its requests so far
    for each in asked:
        if each.is_over:
            continue
        try:
            number = version_of(each)
        except PolicyNotFound as error:  # retired while the request waited
            each.tell(error)
            continue
        model = models[number]
        turn = 0
        if model.state_size and each.request.sessions:
            turn = max(turns.get(session, 0) for session in each.request.sessions)
            for session in each.request.sessions:
                turns[session] = turn + 1
        part = parts.get((turn, number))
        if part is None:
            part = parts[turn, number] = Part(number, model)
        part.asked.append(each)
    return [parts[key] for key in sorted(parts)]


@np.errstate(all="ignore")  # what is no number is told to whom it concerns
def acted(part: Part) -> Answers | Exception:
    """What the model makes of a part; or what it raised, which must not end the thread or the loop."""
    assert part.rows is not None
    try:
        outcome = part.model.act(part.rows)
        expected = len(part.rows.states)
        if len(outcome.actions) != expected:
            raise ValueError(f"{len(outcome.actions)} actions for {expected} rows")
    except Exception as error:  # noqa: BLE001 - models are anybody's
        return error
    return outcome


def joined(asked: Sequence[Asked], states: Sequence[np.ndarray]) -> Rows:
    """The rows of all requests, one behind the other; a single one's are not copied."""
    first = asked[0].request
    if len(asked) == 1:
        mask, likeliest = first.action_mask, first.deterministic
        return Rows(first.observations, states[0], mask, likeliest, first.want_log_prob, first.want_value)
    requests = [each.request for each in asked]
    wants_log_prob = any(request.want_log_prob for request in requests)
    wants_value = any(request.want_value for request in requests)
    columns = {
        name: np.concatenate([request.observations[name] for request in requests]) for name in first.observations
    }
    masks = None
    if any(request.action_mask is not None for request in requests):
        width = next(request.action_mask.shape[1] for request in requests if request.action_mask is not None)
        masks = np.concatenate(
            [
                np.ones((each.rows, width), bool) if each.request.action_mask is None else each.request.action_mask
                for each in asked
            ]
        )
    deterministic: np.ndarray | bool = first.deterministic
    if any(request.deterministic != deterministic for request in requests):
        deterministic = np.repeat([request.deterministic for request in requests], [each.rows for each in asked])
    return Rows(columns, np.concatenate(states), masks, deterministic, wants_log_prob, wants_value)
