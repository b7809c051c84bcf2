"""The requests for one policy, on the server's event loop: they wait, become batches, and are answered.

    act --check--> BatchQueue --close--> parts, of one version each --> model --> answers
                      |                                          '--> shadows
                      '-- full: Overloaded; too late: TimedOut; the caller is gone: dropped

When a batch closes is for ``batching.py`` to say, which version answers a request for ``policies.py``: it is
asked when the batch closes, so versions change between batches and never inside a part. Usually a batch has one part.
There are more where requests of several versions wait, or two requests of one session: the second acts from the state
that the first one leaves.

Quick models act where the requests come in, and so quick ones that waiting for company would cost more act at once,
when nothing is before a request; others in the server's thread (``model_thread.py``), while more
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

from ..rllib.inference.batching import BatchQueue, QueueFullError
from .checking import Checker
from .errors import BadRequest, Overloaded, PolicyFailed, ServingError, TimedOut
from .measures import ROWS, SECONDS, PolicyMetrics, Tally
from .model_thread import ModelThread
from .models import Answers, Model
from .parts import Asked, Part, acted, divided, joined
from .policies import PolicyTable
from .policy_spaces import nesting, rows_of
from .requests import ActReply, ActRequest, PolicyInfo
from .serving_settings import ServingSettings
from .sessions import Sessions

_log = logging.getLogger(__name__)

#: A batch that is due sooner than this does not wait: the timers of an event loop are whole milliseconds.
_SOON_S = 0.0005
#: What two turns of the event loop, a future and the queue cost a request: quicker models do not wait for company.
_TURN_S = 0.0001
#: Batches that are answered at once, and so quickly, are noted so many together, behind an answer. Before each answer
#: it took an eighth of a request whose code is in no cache any more.
_NOTED_TOGETHER = 16

#: Of the objective, for what is not waited here: the way in and the way out, of a request and its answer.
_WAY_S, _WAY_SHARE = 0.0005, 0.1


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
        self._entry = table.entry(name)
        self._sessions, self._settings, self._thread = sessions, settings, thread
        self._loop = asyncio.get_running_loop()
        slo_s = settings.slo_s
        self._queue = BatchQueue(
            full_rows=settings.max_batch_rows,
            max_waiting_rows=settings.max_waiting_rows,
            objective_s=None if slo_s is None else slo_s - min(_WAY_S, _WAY_SHARE * slo_s),
        )
        self._parts: deque[Part] = deque()
        self._num_asked = self._in_flight = 0
        self._emptied: asyncio.Future[None] | None = None
        self._is_planned = False
        self._alarm: asyncio.TimerHandle | None = None
        self._latency, self._queue_time, self._batch_rows = Tally(SECONDS), Tally(SECONDS), Tally(ROWS)
        self._unnoted: list[tuple[int, float, bool]] = []  # rows, seconds, PolicyFailed?; see ``_note``
        self._answers: Counter[str] = Counter()
        self._of_shadows: dict[int, Counter[str]] = {}
        info = self.info()
        self._checker, self._nested = Checker(info), nesting(info.action_space)
        self._no_states = np.zeros((settings.max_request_rows, 0), np.float32)

    async def emptied(self) -> None:
        """Wait until nobody waits for an answer. For one caller, which sees to it that nobody comes."""
        if self._in_flight:
            self._emptied = self._loop.create_future()
            await self._emptied

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
            asked, chosen = self._entered(request, number)
            if self._is_worth_no_wait(self._models[chosen], asked.rows):
                reply = self._answer_at_once(asked, chosen)
            else:
                self._offer(asked)
                reply = await self._answer_in_turn(asked)
        except ServingError as error:
            self._answers[error.code] += 1
            raise
        except asyncio.CancelledError:
            self._answers["cancelled"] += 1
            raise
        self._answers["ok"] += 1
        return reply

    def metrics(self) -> list[PolicyMetrics]:
        """How it goes: the policy, and each shadow, by "name:version", whose answers are rows of the likeliest action:
        "agrees" and "differs"; "failed" counts its parts that raised.
        """
        self._note()
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
        for number in self._entry.shadows:
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

    def _entered(self, request: ActRequest, number: int | None) -> tuple[Asked, int]:
        """A request that fits, and the version that would answer it now."""
        request = self._checker.checked(request)
        key: str | int = self._num_asked if request.sessions is None else request.sessions[0]
        chosen = self._entry.choose(number, key)  # now, so that it is told at once
        if request.want_log_prob or request.want_value or request.want_drawn:
            self._check_wishes(request, self._models[chosen])
        self._num_asked += 1
        return Asked(request, request.num_rows, number, key, time.monotonic()), chosen

    def _check_wishes(self, request: ActRequest, model: Model) -> None:
        wishes = ((request.want_log_prob, "log_prob"), (request.want_value, "value"), (request.want_drawn, "drawn"))
        for is_wanted, what in wishes:
            if is_wanted and what not in model.tells:
                raise BadRequest(f"{self._name!r} does not tell any", field=f"want_{what}")

    def _is_worth_no_wait(self, model: Model, rows: int) -> bool:
        """Whether a request is answered here and now: nothing is before it, and a batch costs less than waiting for
        company would. By the rule of ``batching.py`` the window is then shorter than a turn of the loop.
        """
        queue = self._queue
        if not model.is_quick or not queue.is_idle or queue.times.seconds(rows) > _TURN_S:
            return False
        return not self._entry.shadows

    def _answer_at_once(self, asked: Asked, number: int) -> ActReply:
        part = Part(number, self._models[number], [asked])
        part.rows = joined(part.asked, [self._states(asked, part.model.state_size, asked.arrived_s)])
        outcome = acted(part)
        now_s = time.monotonic()
        [reply] = self._replies(part, outcome, now_s)
        seconds, is_failure = now_s - asked.arrived_s, isinstance(reply, PolicyFailed)
        self._unnoted.append((asked.rows, seconds, is_failure))
        if seconds > _TURN_S:
            self._note()
        elif len(self._unnoted) == _NOTED_TOGETHER:
            self._loop.call_soon(self._note)
        if isinstance(reply, ServingError):
            raise reply
        return reply

    def _note(self) -> None:
        """Count the batches that were answered at once, and learn from them how long batches take."""
        noted, self._unnoted = self._unnoted, []
        for rows, seconds, is_failure in noted:
            self._queue.note_batch(rows, seconds)
            self._batch_rows.add(rows)
            if not is_failure:
                self._latency.add(seconds)
        self._queue_time.add(0.0, len(noted))

    async def _answer_in_turn(self, asked: Asked) -> ActReply:
        assert asked.answer is not None
        patience_s = self._settings.timeout_s if asked.request.timeout_s is None else asked.request.timeout_s
        alarm = self._loop.call_later(patience_s, self._too_late, asked, patience_s)
        self._in_flight += 1
        try:
            return await asked.answer
        except asyncio.CancelledError:  # nobody waits for it any more
            self._queue.withdraw(asked)
            raise
        finally:
            alarm.cancel()
            self._in_flight -= 1
            if not self._in_flight and self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

    def _offer(self, asked: Asked) -> None:
        """Let a request wait for its turn."""
        if self._unnoted:
            self._note()
        now_s, timeout_s, deadline_s = asked.arrived_s, asked.request.timeout_s, None
        if timeout_s is not None and timeout_s < (self._settings.slo_s or float("inf")):
            deadline_s = now_s + timeout_s
        try:
            self._queue.offer(asked, asked.rows, now_s, deadline_s)
        except QueueFullError as error:
            raise Overloaded(f"{self._name!r}: {error}", retry_after_s=max(error.retry_after_s, 0.0)) from error
        asked.answer = self._loop.create_future()
        self._plan(now_s)

    def _too_late(self, asked: Asked, patience_s: float) -> None:
        is_waiting = bool(self._queue.withdraw(asked))
        what = "it still waited for its turn" if is_waiting else "the policy was still at it"
        asked.tell(_timed_out(patience_s, what))

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
        return self._entry.choose(asked.number, asked.key)

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
        if self._parts or part.model.state_size or self._entry.shadows:
            self._deliver(part, outcome)
            self._next()
            return
        # Nothing of the next batch depends on this one: the thread has it before the answers go out, which is 5 % of
        # a batch of 5 ms.
        now_s = time.monotonic()
        self._queue.finish(now_s)
        if not self._is_planned and self._queue.due_s() - now_s < _SOON_S:
            self._begin()
        else:
            self._plan(now_s)
        self._deliver(part, outcome)

    def _prepare(self, part: Part) -> bool:
        """Join the rows of a part's requests; False if none of them can be answered."""
        size, now_s = part.model.state_size, time.monotonic()
        states = []
        for each in list(part.asked):
            try:
                states.append(self._states(each, size, now_s))
            except BadRequest as error:
                part.asked.remove(each)
                each.tell(error)
        if part.asked:
            part.rows = joined(part.asked, states)
        return bool(part.asked)

    def _states(self, asked: Asked, size: int, now_s: float) -> np.ndarray:
        if size == 0:
            return self._no_states[: asked.rows]
        request = asked.request
        if request.sessions is not None:
            return self._sessions.states(self._name, request.sessions, request.episode_start, size, now_s)
        if request.state is None:
            return np.zeros((asked.rows, size), np.float32)
        if request.episode_start is None:
            return request.state
        return np.where(request.episode_start[:, None], np.float32(0.0), request.state)

    def _deliver(self, part: Part, outcome: Answers | Exception) -> None:
        """Answer the requests of a part; or compare, if it is a shadow's."""
        if not part.asked:
            self._compare(part, outcome)
            return
        now_s = time.monotonic()
        for each, reply in zip(part.asked, self._replies(part, outcome, now_s), strict=True):
            if not isinstance(reply, PolicyFailed):
                self._latency.add(now_s - each.arrived_s)
            each.tell(reply)
        if isinstance(outcome, Answers):
            for number in self._entry.shadows:
                self._parts.append(Part(number, self._models[number], rows=part.rows, seen=outcome.actions))

    def _replies(self, part: Part, outcome: Answers | Exception, now_s: float) -> list[ActReply | ServingError]:
        """What to tell each request of a part; keeps the states of sessions."""
        if isinstance(outcome, Exception):
            failure = f"{self._name!r}, version {part.number}, raised {type(outcome).__name__}"
            _log.error("%s", failure, exc_info=outcome)
            return [PolicyFailed(failure) for _ in part.asked]
        whole = self._nested(outcome.actions)
        replies: list[ActReply | ServingError] = []
        place = 0
        for each in part.asked:
            rows = slice(place, place + each.rows)
            place += each.rows
            if outcome.failed is not None and outcome.failed[rows].any():
                told = f"{self._name!r}, version {part.number}, gave no numbers for row {outcome.failed[rows].argmax()}"
                replies.append(PolicyFailed(told))
                continue
            request = each.request
            limit_s = request.timeout_s
            # Before the alarm rang: a quick policy holds up the loop.
            if limit_s is not None and now_s - each.arrived_s > limit_s:
                replies.append(_timed_out(limit_s, "the policy was still at it"))
                continue
            sessions = request.sessions if part.model.state_size else None
            if sessions is not None and not each.is_over:
                self._sessions.keep(self._name, sessions, outcome.states[rows], now_s)
            actions = whole if len(part.asked) == 1 else rows_of(whole, rows.start, rows.stop)
            reply = ActReply(actions=actions, policy=self._name, version=part.number)
            if request.want_log_prob and outcome.log_prob is not None:
                reply.log_prob = outcome.log_prob[rows]
            if request.want_value and outcome.value is not None:
                reply.value = outcome.value[rows]
            if request.want_drawn and outcome.drawn is not None:
                reply.drawn = outcome.drawn[rows]
            if part.model.state_size and sessions is None:
                reply.state = outcome.states[rows]
            replies.append(reply)
        return replies

    def _compare(self, part: Part, outcome: Answers | Exception) -> None:
        if part.number not in self._of_shadows:  # and those that are no shadows any more go
            present = self._entry.shadows
            self._of_shadows = {number: each for number, each in self._of_shadows.items() if number in present}
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


def _timed_out(limit_s: float, what: str) -> TimedOut:
    return TimedOut(f"not answered within {limit_s:g} s: {what}", field="timeout_s")
