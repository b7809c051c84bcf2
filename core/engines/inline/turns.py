"""Who runs what, and who waits, in an inline session: there is no process but this one, so the threads that use it do.

    run_ready    the calling thread runs whatever can be run, until there is nothing more; in an actor's event loop,
                 which must not run other work, a helper thread does
    wait_until   helps likewise, then waits for other threads, or says that nobody is left who could change anything
    lanes        calls of concurrent actors run in the actors' own threads or event loops, which go on to what their
                 end has made possible

Invariants: tables change only under `changing`, where SIGINT waits; user code, which includes loading and dropping
values, never runs there, so it may use the API freely. Whenever the lock is free, unfinished work is ready, running in
some thread, or stuck behind something else; hence who waits without a time-out, while nothing is ready and every
running thread waits likewise, would wait for ever, and gets a SessionError that says for what.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from ...errors import SessionError
from ...refs import ObjectRef
from ...runtime import context
from ...runtime.history import History
from ...transport.interrupts import Interrupts
from .runs import Outcome, Runs
from .session import InlineSession
from .work import Work

#: A waiting thread looks this often whether refs have died meanwhile: their end can tell nobody (`refs.py`).
_LOOK_S = 0.05


class _Thread(threading.local):
    """What is known of the calling thread. counted: it is one of `_active`. on_event_loop: it is an actor's."""

    counted = False
    on_event_loop = False


class Turns:
    """The threads of a session. Any thread may call it."""

    def __init__(self, tables: InlineSession, runs: Runs, history: History) -> None:
        self._tables = tables
        self._schedule = tables.schedule
        self._runs = runs
        self._history = history
        self._interrupts = Interrupts()
        self._condition = threading.Condition(threading.RLock())
        self._starting = threading.Lock()  # around `Lanes.start`, which several threads may come to
        #: Runs under way, less those whose thread waits for others without a time-out.
        self._active = 0
        self._thread = _Thread()
        self._due: deque[tuple[Future[Any], ObjectRef, bool]] = deque()
        self._helper: threading.Thread | None = None
        self._help_wanted = False
        self._closed = False
        self._interrupts.install()

    def close(self) -> None:
        """The session ends: everything that waits fails, actors are dropped."""
        with self.changing():
            self._closed = True
            self._tables.close(SessionError("shoal has been shut down"))
            self.changed()
        self.deliver()
        self._interrupts.remove()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around every change of the tables."""
        with self._interrupts, self._condition:
            self._tables.objects.settle()
            yield

    def changed(self) -> None:
        """Wake who waits. Called under `changing`."""
        self._condition.notify_all()

    def run_ready(self) -> None:
        """Run what can be run, until there is nothing more."""
        if self._thread.on_event_loop:
            self._hand_over()
        else:
            while self._step():
                self.deliver()
        self.deliver()

    def _hand_over(self) -> None:
        """An actor's event loop must not run other work, it might wait for that very actor; a thread of ours does."""
        with self._condition:
            if not self._schedule.ready:
                return
            if self._helper is None:
                self._helper = threading.Thread(target=self._help, name="shoal-inline", daemon=True)
                self._helper.start()
            self._help_wanted = True
            self._condition.notify_all()

    def _help(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._help_wanted or self._closed)  # as long as the session lasts
                if self._closed:
                    return
                self._help_wanted = False
            self.run_ready()

    def _step(self) -> bool:
        """Run one piece of work; False when none is ready."""
        with self._interrupts:  # SIGINT strikes within user code, between `open` and `shut`, or afterwards
            with self.changing():
                work = self._schedule.take()
                if work is None:
                    return False
                lanes = work.actor.lanes if work.actor is not None and work.is_call else None
                counted = lanes is not None or not self._thread.counted
                self._active += counted
            call = _LaneCall(self, work)
            if lanes is None:
                outcome = self._run_here(work)
            else:
                try:
                    with self._starting:
                        lanes.start(work.group, call)
                    return True
                except KeyError:
                    error = ValueError(f"{work.name}(): the actor has no concurrency group {work.group!r}")
                    outcome = Outcome(error=error, ran=True)
            interruption = outcome.error if isinstance(outcome.error, KeyboardInterrupt) else None
            self.finished(work, call.attempt, outcome, counted=counted)
        if interruption is not None:
            raise interruption
        return True

    def _run_here(self, work: Work) -> Outcome:
        was_counted, self._thread.counted = self._thread.counted, True
        try:
            self._interrupts.open()
            return self._runs.carry_out(work)
        except KeyboardInterrupt as error:  # it struck between two lines of ours
            return Outcome(error=error)
        finally:
            self._interrupts.shut()
            self._thread.counted = was_counted

    def run_in_lane(self, work: Work) -> Outcome:
        """In a thread of an actor."""
        self._thread.counted = True
        return self._runs.carry_out(work)

    async def run_on_event_loop(self, work: Work) -> Outcome:
        """On the event loop of an actor."""
        self._thread.on_event_loop = True  # for good: the thread is the loop's
        return await self._runs.perform(work, on_event_loop=True)

    def finished(self, work: Work, attempt: int, outcome: Outcome, *, counted: bool) -> None:
        """A run has come to its end. In any thread.

        Args:
          counted: it was counted in `_active`.
        """
        failure = self._tables.failure_of(work, outcome)
        with self.changing():
            self._active -= counted
            self._tables.over(work, attempt, outcome, failure)
            self._condition.notify_all()
        outcome.error = None  # it holds the frames that hold the outcome: arguments would live until the collector runs

    def leave_lane(self) -> None:
        """The thread of an actor goes on: it runs what its call has made possible."""
        self._thread.counted = False
        self.run_ready()

    # ---- waiting

    def wait_until(
        self,
        verb: str,
        done: Callable[[], bool],
        timeout_s: float | None,
        missing: Callable[[], list[ObjectRef]],
    ) -> bool:
        """Wait until `done`; False when `timeout_s` has passed.

        Raises:
          SessionError: there is no time-out, and nothing that is left could make one of the `missing`.
        """
        thread, ends = self._thread, None if timeout_s is None else time.monotonic() + timeout_s
        stops_counting = thread.counted and timeout_s is None
        with self._condition:
            self._active -= stops_counting
            thread.counted = thread.counted and not stops_counting
            self._condition.notify_all()
        task = context.current()
        number = 0 if done() else self._history.begin_wait(verb, task.task_id if task else b"", ())
        try:
            while True:
                self.run_ready()
                with self.changing():
                    if done():
                        return True
                    if self._closed:
                        raise SessionError("shoal has been shut down")
                    if not self._schedule.ready or thread.on_event_loop:
                        if ends is None and not self._active:
                            raise SessionError(self._stuck(missing()))
                        left_s = _LOOK_S if ends is None else min(_LOOK_S, ends - time.monotonic())
                        if left_s <= 0:
                            return False
                        self._sleep(left_s)
        finally:
            if number:
                self._history.end_wait(number)
            with self._condition:
                self._active += stops_counting
                thread.counted = thread.counted or stops_counting

    def _sleep(self, timeout_s: float) -> None:
        """Until something has changed, or `timeout_s`."""
        self._interrupts.open()
        try:
            self._condition.wait(timeout_s)
        finally:
            self._interrupts.shut()

    def _stuck(self, missing: list[ObjectRef]) -> str:
        """Why a wait would never end."""
        ref = missing[0]
        work = self._schedule.maker(ref.binary())
        maker = "nobody" if work is None else f"{work.name}(), which {self._schedule.reason(work)}"
        return f"this wait would never end: {ref!r} is made by {maker}, and no thread is left that could change it"

    def deliver(self) -> None:
        """Fulfil futures and drop dead actors: user code, which must not run while tables change."""
        while self._tables.graveyard:
            _, lanes = self._tables.graveyard.pop()
            if lanes is not None:
                lanes.close()
        while self._due:
            try:
                future, ref, loaded = self._due.popleft()
            except IndexError:
                return  # another thread has taken the last
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = self._runs.load(ref) if loaded else None
            except BaseException as error:  # noqa: BLE001  whatever get() would raise belongs to the future
                future.set_exception(error)
            else:
                future.set_result(value)

    def future(self, ref: ObjectRef, *, loaded: bool = True) -> Future[Any]:
        """A future of the ref's value, or, if not `loaded`, of None: done, as a rule. Callbacks run in the thread that
        makes it so, and may use the API.
        """
        future: Future[Any] = Future()

        def ready() -> None:
            self._due.append((future, ref, loaded))

        with self.changing():
            if not self._tables.objects.watch(ref.binary(), ready):
                ready()
        self.deliver()
        return future


class _LaneCall:
    """One run of a call in one of an actor's lanes (`concurrency.Call`)."""

    def __init__(self, turns: Turns, work: Work) -> None:
        self._turns = turns
        self._work = work
        self.key = work.task_id
        self.attempt = work.attempt

    def cancelled(self) -> None:
        """Before it began."""
        self._end(Outcome(error=CancelledError()))

    def run(self) -> None:
        """In a thread."""
        self._end(self._turns.run_in_lane(self._work))

    async def run_async(self) -> None:
        """On the event loop."""
        self._end(await self._turns.run_on_event_loop(self._work))

    def _end(self, outcome: Outcome) -> None:
        self._turns.finished(self._work, self.attempt, outcome, counted=True)
        self._turns.leave_lane()
