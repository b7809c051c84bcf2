"""The requests for one policy, on the server's event loop: they wait, become batches, and are answered.

    act --check--> BatchQueue --close--> parts, of one version each --> model --> answers
                      |                                          '--> shadows
                      '-- full: Overloaded; too late: TimedOut; the caller is gone: dropped

When a batch closes is for ``rllib/batching.py`` to say, which version answers a request for ``policies.py``: it is
asked when the batch closes, so versions change between batches and never inside a part. Usually a batch has one part.
There are more where requests of several versions wait, or two requests of one session: the second acts from the state
that the first one leaves.

Quick models act at once, where the requests come in; others in the server's thread (``model_thread.py``), while more
requests come. Shadows act when the answers are out. All but ``acted`` runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from functools import partial

import numpy as np

from ..rllib.batching import BatchQueue, QueueFullError
from .checking import Checker
from .errors import BadRequest, Overloaded, PolicyFailed, ServingError, TimedOut
from .measures import ROWS, SECONDS, PolicyMetrics, Tally
from .model_thread import ModelThread
from .models import Answers, Model
from .parts import Asked, Part, acted, divided, joined
from .policies import PolicyTable
from .policy_spaces import nested, rows_of
from .requests import ActReply, ActRequest, PolicyInfo
from .serving_settings import ServingSettings
from .sessions import Sessions

_log = logging.getLogger(__name__)

#: A batch that is due sooner than this does not wait: the timers of an event loop are whole milliseconds.
_SOON_S = 0.0005


class PolicyLine:
    """The requests for one policy.

    Args:
      name: Of the policy; it is in the table.
      table: Says which version answers.
      models: Version -> what acts, shared with the server: who is retired is in it no longer.
      sessions: Recurrent states, shared with other policies.
      settings: Of the server.
      thread: Where slow models act, shared with other policies.
    """

    def __init__(
        self,
        name: str,
        table: PolicyTable,
        models: Mapping[int, Model],
        sessions: Sessions,
        settings: ServingSettings,
        thread: ModelThread,
    ) -> None:
        self._name, self._table, self._models = name, table, models
        self._sessions, self._settings, self._thread = sessions, settings, thread
        self._loop = asyncio.get_running_loop()
        self._queue = BatchQueue(
            full_rows=settings.max_batch_rows,
            max_waiting_rows=settings.max_waiting_rows,
            objective_s=settings.slo_s,
        )
        self._parts: deque[Part] = deque()
        self._num_asked = self._in_flight = 0
        self._is_planned = False
        self._alarm: asyncio.TimerHandle | None = None
        self._latency, self._queue_time, self._batch_rows = Tally(SECONDS), Tally(SECONDS), Tally(ROWS)
        self._answers: Counter[str] = Counter()
        self._of_shadows: dict[int, Counter[str]] = {}
        self._checker = Checker(self.info())

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        return self._in_flight

    def info(self) -> PolicyInfo:
        """What a client must know."""
        model = self._models[self._table.front(self._name)]
        return PolicyInfo(
            name=self._name,
            versions=self._table.versions(self._name),
            observation_space=model.observation_space,
            action_space=model.action_space,
            recurrent=model.state_size > 0,
            state_size=model.state_size,
            max_rows=self._settings.max_request_rows,
            traffic=self._table.traffic(self._name),
        )

    async def act(self, request: ActRequest, number: int | None) -> ActReply:
        """Answer a request.

        Args:
          request: Not checked yet.
          number: The version that is to answer; None: as the table divides them.

        Raises:
          ServingError: see ``errors.py``.
        """
        try:
            asked = self._enter(request, number)
        except ServingError as error:
            self._answers[error.code] += 1
            raise
        self._in_flight += 1
        patience_s = self._settings.timeout_s if asked.request.timeout_s is None else asked.request.timeout_s
        alarm = self._loop.call_later(patience_s, self._too_late, asked, patience_s)
        try:
            reply = await asked.answer
        except ServingError as error:
            self._answers[error.code] += 1
            raise
        except asyncio.CancelledError:  # nobody waits for it any more
            self._queue.withdraw(asked)
            self._answers["cancelled"] += 1
            raise
        finally:
            alarm.cancel()
            self._in_flight -= 1
        self._answers["ok"] += 1
        return reply

    def metrics(self) -> list[PolicyMetrics]:
        """How it goes: the policy, and each shadow, by "name:version", whose answers are rows of the likeliest action:
        "agrees" and "differs"; "failed" counts its parts that raised.
        """
        front = self._table.front(self._name)
        told = [
            PolicyMetrics(
                policy=self._name,
                latency_s=self._latency.read(),
                queue_s=self._queue_time.read(),
                batch_rows=self._batch_rows.read(),
                in_flight=self._in_flight,
                version=front,
                answers=dict(self._answers),
            )
        ]
        for number in self._table.shadows(self._name):
            nothing, counted = Tally(SECONDS).read(), self._of_shadows.get(number, Counter())
            told.append(
                PolicyMetrics(
                    policy=f"{self._name}:{number}",
                    latency_s=nothing,
                    queue_s=nothing,
                    batch_rows=Tally(ROWS).read(),
                    in_flight=0,
                    version=number,
                    answers=dict(counted),
                )
            )
        return told

    # ---- a request comes, or goes

    def _enter(self, request: ActRequest, number: int | None) -> Asked:
        """Put a request into the queue."""
        request = self._checker.checked(request)
        key: str | int = self._num_asked if request.sessions is None else request.sessions[0]
        model = self._models[self._table.choose(self._name, number, key)]  # now, so that it is told at once
        for is_wanted, what in ((request.want_log_prob, "log_prob"), (request.want_value, "value")):
            if is_wanted and what not in model.tells:
                raise BadRequest(f"{self._name!r} does not tell any", field=f"want_{what}")
        self._num_asked += 1
        now_s = time.monotonic()
        asked = Asked(request, request.num_rows, number, key, now_s, self._loop.create_future())
        deadline_s = None
        if request.timeout_s is not None and request.timeout_s < (self._settings.slo_s or float("inf")):
            deadline_s = now_s + request.timeout_s
        try:
            self._queue.offer(asked, asked.rows, now_s, deadline_s)
        except QueueFullError as error:
            raise Overloaded(f"{self._name!r}: {error}", retry_after_s=max(error.retry_after_s, 0.0)) from error
        self._plan(now_s)
        return asked

    def _too_late(self, asked: Asked, patience_s: float) -> None:
        is_waiting = bool(self._queue.withdraw(asked))
        if not asked.answer.done():
            what = "it still waited for its turn" if is_waiting else "the policy was still at it"
            asked.answer.set_exception(TimedOut(f"not answered within {patience_s:g} s: {what}", field="timeout_s"))

    def _plan(self, now_s: float) -> None:
        """See to it that the next batch begins when it is due."""
        if self._is_planned:
            return
        due_s = self._queue.due_s()
        if due_s == float("inf"):
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due_s - now_s < _SOON_S:
            # Not here and now: other requests that have come together with this one can be in the same batch.
            self._is_planned = True
            self._loop.call_soon(self._begin)
        else:
            self._alarm = self._loop.call_later(due_s - now_s, self._begin)

    def _version(self, asked: Asked) -> int:
        return self._table.choose(self._name, asked.number, asked.key)

    # ---- a batch

    def _begin(self) -> None:
        self._is_planned, self._alarm = False, None
        now_s = time.monotonic()
        if self._queue.due_s() - now_s >= _SOON_S:  # what was due has been withdrawn
            self._plan(now_s)
            return
        batch = self._queue.take(now_s)
        self._batch_rows.add(batch.rows)
        asked: list[Asked] = [request.client for request in batch.requests]  # type: ignore[misc]
        for each in asked:
            self._queue_time.add(now_s - each.arrived_s)
        self._parts.extend(divided(asked, self._version, self._models))
        self._next()

    def _next(self) -> None:
        """Go on with the batch that runs: its next part, or its end."""
        while self._parts:
            part = self._parts.popleft()
            if part.rows is None and not self._prepare(part):
                continue
            if not part.model.is_quick:
                self._thread.submit(partial(acted, part), partial(self._done, part))
                return
            self._deliver(part, acted(part))
            if self._parts and not self._parts[0].asked:  # shadows are next: answers go out first
                self._loop.call_soon(self._next)
                return
        now_s = time.monotonic()
        self._queue.finish(now_s)
        self._plan(now_s)

    def _done(self, part: Part, outcome: Answers | Exception) -> None:
        self._deliver(part, outcome)
        self._next()

    def _prepare(self, part: Part) -> bool:
        """Join the rows of a part's requests; False if none of them can be answered."""
        size, now_s = part.model.state_size, time.monotonic()
        states = []
        for each in list(part.asked):
            try:
                states.append(self._states(each, size, now_s))
            except BadRequest as error:
                part.asked.remove(each)
                if not each.answer.done():
                    each.answer.set_exception(error)
        if part.asked:
            part.rows = joined(part.asked, states)
        return bool(part.asked)

    def _states(self, asked: Asked, size: int, now_s: float) -> np.ndarray:
        request = asked.request
        if size and request.sessions is not None:
            return self._sessions.states(self._name, request.sessions, request.episode_start, size, now_s)
        if size == 0 or request.state is None:
            return np.zeros((asked.rows, size), np.float32)
        if request.episode_start is None:
            return request.state
        return np.where(request.episode_start[:, None], np.float32(0.0), request.state)

    def _deliver(self, part: Part, outcome: Answers | Exception) -> None:
        """Answer the requests of a part; or compare, if it is a shadow's."""
        if not part.asked:
            self._compare(part, outcome)
            return
        if isinstance(outcome, Exception):
            failure = f"{self._name!r}, version {part.number}, raised {type(outcome).__name__}"
            _log.error("%s", failure, exc_info=outcome)
            for each in part.asked:
                if not each.answer.done():
                    each.answer.set_exception(PolicyFailed(failure))
            return
        now_s = time.monotonic()
        whole = nested(part.model.action_space, outcome.actions)
        place = 0
        for each in part.asked:
            rows = slice(place, place + each.rows)
            place += each.rows
            if each.answer.done():  # too late, or gone
                continue
            if outcome.failed is not None and outcome.failed[rows].any():
                told = f"{self._name!r}, version {part.number}, gave no numbers for row {outcome.failed[rows].argmax()}"
                each.answer.set_exception(PolicyFailed(told))
                continue
            keeps_state = part.model.state_size > 0 and each.request.sessions is not None
            if keeps_state:
                assert each.request.sessions is not None
                self._sessions.keep(self._name, each.request.sessions, outcome.states[rows], now_s)
            is_alone = len(part.asked) == 1
            self._latency.add(now_s - each.arrived_s)
            each.answer.set_result(
                ActReply(
                    actions=whole if is_alone else rows_of(whole, rows.start, rows.stop),
                    policy=self._name,
                    version=part.number,
                    log_prob=_wanted(outcome.log_prob, rows, is_wanted=each.request.want_log_prob),
                    value=_wanted(outcome.value, rows, is_wanted=each.request.want_value),
                    state=_wanted(outcome.states, rows, is_wanted=part.model.state_size > 0 and not keeps_state),
                )
            )
        for number in self._table.shadows(self._name):
            shadow = Part(number, self._models[number], rows=part.rows, seen=outcome.actions)
            self._parts.append(shadow)

    def _compare(self, part: Part, outcome: Answers | Exception) -> None:
        counted = self._of_shadows.setdefault(part.number, Counter())
        if isinstance(outcome, Exception):
            counted["failed"] += 1
            _log.warning("shadow %s:%d raised", self._name, part.number, exc_info=outcome)
            return
        assert part.rows is not None
        assert part.seen is not None
        likeliest = np.broadcast_to(part.rows.deterministic, len(part.seen))
        agrees = np.isclose(outcome.actions, part.seen, rtol=1e-3, atol=1e-4).all(axis=1)
        counted["agrees"] += int((agrees & likeliest).sum())
        counted["differs"] += int((~agrees & likeliest).sum())


def _wanted(array: np.ndarray | None, rows: slice, *, is_wanted: bool) -> np.ndarray | None:
    return array[rows] if is_wanted and array is not None else None
