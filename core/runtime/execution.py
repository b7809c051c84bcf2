"""The worker's side of a task: take it from the queue, have it run (host.py), answer.

    RunTask, CallMethod, StartActor --> queue --> main thread --> TaskDone / ActorStarted
                                          |
                                          +-- the running task blocks or takes long: those behind it go back

The main thread runs user code; between two tasks, and while it has none, it drives the process's loop. One at a time
and in order of arrival, which for the calls of one caller to an actor is the order of submission. The calls of an actor
that runs several at once go to its lanes instead (concurrency.py).

Not here: where refs are counted (holdings.py), how user code submits more work (submitting.py).
"""

from __future__ import annotations

import math
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import TaskCancelledError
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, WireRef, WireValue
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.values import FAILURE
from ..transport.loop import Loop
from .concurrency import Lanes
from .equipment import Equipment, show_gpus
from .history import History
from .holdings import Holdings, failure_value
from .host import Host, Outcome, Request, no_group
from .outcomes import stillborn
from .special_methods import ActorExit

#: Replies of short tasks gather for this long before they are sent.
_REPLY_S = 0.001
#: How often a main thread that only waits looks up for signals.
_SIGNAL_CHECK_S = 1.0
#: How long it waits for the lanes to let go of the drive; they need one turn.
_HAND_OVER_S = 1.0


class Executor:
    """Runs what arrives: in the main thread, or in the actor's lanes."""

    def __init__(
        self,
        loop: Loop,
        holdings: Holdings,
        history: History,
        *,
        fetch_function: Callable[[bytes], Callable[..., Any]],
        head: bytes,
        stall_s: float,
        cancel_children: Callable[[bytes, bool], None],
        retire: Callable[[bytes], None],
        on_actor: Callable[[str, object], None],
    ) -> None:
        """
        Args:
          history: is told of what runs and has run.
          fetch_function: the exported function of a key; may block.
          head: whom to tell about an actor's start.
          stall_s: a task that runs for this long has those behind it given back.
          cancel_children: (task id, force): cancel what a task has submitted.
          retire: this actor ends by its own wish; returns when the head knows of it.
          on_actor: called with class name and actor when this process has become one.
        """
        self._loop = loop
        self._holdings = holdings
        self._head = head
        self._stall_s = stall_s
        self._cancel_children = cancel_children
        self._retire = retire
        self._host = Host(
            loop,
            holdings,
            history,
            fetch_function=fetch_function,
            on_actor=on_actor,
            on_wait=self.return_queue,
            on_fault=self._fail,
        )
        self._host.interruption.install()
        self._queue: deque[tuple[bytes, Request]] = deque()
        #: What runs in the main thread: a task or call, or empty.
        self._running = b""
        self._running_since = 0.0  # 0: nothing runs
        self._run_number = 0
        self._stalled_run = -1  # the run that has had the tasks behind it returned
        #: Calls in the lanes that have not been answered.
        self._in_lanes: set[bytes] = set()
        #: Work under way that was cancelled with all that it has submitted: its id -> force.
        self._families: dict[bytes, bool] = {}
        #: Of functions with `max_calls`: how often this process may still run them.
        self._calls_left: dict[bytes, int] = {}
        self._retiring = False
        self._leaving = False
        self._exit_code: Any = None  # of a SystemExit in one of the lanes
        self._flushed_at = 0.0
        #: Something is there for a main thread that has stood aside.
        self._called = threading.Event()
        self._fault: BaseException | None = None
        loop.while_user_code_runs(self._stalls_at, self._return_if_stalled)
        loop.on(m.Equip, self._equip)
        for kind in (m.RunTask, m.CallMethod, m.StartActor):
            loop.on(kind, self._enqueue)
        loop.on(m.Exit, self._exit)
        loop.on(m.CancelTask, self._cancel)
        loop.on(m.ItemsTaken, self._items_taken)

    # ---- main thread

    def run(self) -> None:
        """Until the head says Exit, the process is killed, or user code raises SystemExit."""
        queue = self._queue
        while True:
            if not queue:
                self._host.not_to_begin.clear()
                if self._host.lanes is not None and self._host.lanes.drives and not self._leaving:
                    self._stand_aside(self._host.lanes)
                self._loop.drive_until(lambda: queue or self._may_leave())
                if not queue:
                    break
            elif time.monotonic() - self._flushed_at > _REPLY_S:
                self._loop.look_in()
                self._flushed_at = time.monotonic()
            try:
                peer, request = queue.popleft()
            except IndexError:
                continue  # the background thread has just returned it to its owner
            try:
                self._run(peer, request)
            except SystemExit as leaving:
                # The process ends as the user said; who waits for the answer learns it from the exit code.
                if isinstance(leaving, ActorExit):
                    self._retire(self._host.actor_id)
                raise
        if self._exit_code is not None:
            raise SystemExit(self._exit_code)

    def _stand_aside(self, lanes: Lanes) -> None:
        """The actor's lanes drive: wait until there is something for the main thread to do, which drives from then on.

        Raises:
          BaseException: what they have come to, a fault of ours.
        """
        self._loop.flush()  # the answer that the actor has started
        try:
            while not (self._queue or self._leaving or self._fault):
                # A signal that comes just before we wait, or to another thread, is seen a second later.
                self._called.wait(_SIGNAL_CHECK_S)
                self._called.clear()
        finally:  # also when a signal has raised
            lanes.stop_driving()
            self._loop.flush(_HAND_OVER_S)
        if self._fault is not None:
            raise self._fault

    def _fail(self, error: BaseException) -> None:
        self._fault = error
        self._called.set()

    def let_actor_go(self) -> None:
        """Its ``__del__`` runs while the API still works."""
        self._host.actor = None
        self._loop.flush()

    def _may_leave(self) -> bool:
        """Told to, and no call is under way; nor does anybody need what a worker owns that has run its last task."""
        if not self._leaving or (self._retiring and self._holdings.owns_anything):
            return False
        return self._exit_code is not None or self._host.lanes is None or not self._host.lanes.busy

    def _run(self, peer: bytes, request: Request) -> None:
        """Carry out one request, here and now."""
        self._run_number += 1
        self._running_since = time.monotonic()
        self._running = request.actor_id if isinstance(request, m.StartActor) else request.task_id
        if self._loop.posts or (self._queue and not self._host.actor_id):
            # Answers of those before it wait to be sent; those behind it may have to go back, but for an actor's calls.
            self._loop.soon()
        try:
            self._host.interruption.begin(self._running)
            outcome = _without_waiting(self._host.carry_out(peer, request, on_event_loop=False))
            self._host.interruption.end()
        except KeyboardInterrupt:  # not by a strike; user code can have put its own handler in place of ours
            self._host.interruption.end()
            items = self._host.generators.get(self._running)
            outcome = Outcome(request, peer, True, [self._host.cancelled(request)], [], 0.0, items)
        finally:
            self._running_since = 0.0
            self._running = b""
        if isinstance(request, m.RunTask) and request.max_calls:
            self._count_call(peer, request)
        self._loop.post(self._answer, outcome)

    def _count_call(self, peer: bytes, request: m.RunTask) -> None:
        """A function with `max_calls` has run: this process may have to leave."""
        left = self._calls_left.get(request.function, request.max_calls) - 1
        self._calls_left[request.function] = left
        if left <= 0:
            self._retiring = True
            self._loop.post(lambda _: self._loop.send(peer, m.WorkerRetires()), None)  # before the answer

    # ---- the loop's driver

    def _equip(self, peer: bytes, message: m.Equip) -> None:
        # At once and not in the queue's order: whoever had the worker before has had all its answers.
        self._host.equipment = Equipment(message.shape, message.gpus, message.captures)
        show_gpus(message.gpus)

    def _enqueue(self, peer: bytes, request: Request) -> None:
        if self._has_stalled() and isinstance(request, m.RunTask):
            self._loop.send(peer, m.TasksReturned([request.task_id]))  # it crossed with others that go or went back
        elif self._host.lanes is not None and isinstance(request, m.CallMethod):
            self._start(self._host.lanes, peer, request)
        else:
            self._queue.append((peer, request))
            self._called.set()

    def _start(self, lanes: Lanes, peer: bytes, request: m.CallMethod) -> None:
        self._in_lanes.add(request.task_id)
        try:
            lanes.start(request.group, ConcurrentCall(self, self._host, peer, request))
        except KeyError:
            error = no_group(self._host.actor_name, request.group)
            refs: list[ObjectRef] = []
            failure = self._host.failure(self._host.name(request), error, refs, ran=True)
            self._answer(Outcome(request, peer, True, [failure], refs, 0.0))

    def finished(self, outcome: Outcome) -> None:
        """A call in one of the lanes has come to an end. In any thread."""
        self._loop.submit(self._answer, outcome)

    def is_canceled(self, task_id: bytes) -> bool:
        """Whether a call that runs has been cancelled. In any thread."""
        return task_id in self._host.told

    def broken_off(self) -> None:
        """What came out of a call in one of the lanes can be told to nobody: the process ends, as it does where that
        comes out of the main thread. In any thread; in an except clause.
        """
        try:
            traceback.print_exc()
        finally:  # the exception may refuse even that
            self.exit_from_lane(SystemExit(1))

    def exit_from_lane(self, leaving: SystemExit) -> None:
        """User code in one of the lanes wants the process to end. In any thread."""
        if isinstance(leaving, ActorExit):
            self._retire(self._host.actor_id)
        self._exit_code = leaving.code if leaving.code is not None else 0
        self._loop.submit(lambda _: self.leave(), None)

    def _cancel(self, peer: bytes, message: m.CancelTask) -> None:
        task_id = message.task_id
        runs = self._running == task_id or task_id in self._in_lanes
        if message.recursive:
            if runs:
                self._families[task_id] = message.force  # it may submit more before the news reaches it
            self._cancel_children(task_id, message.force)
        items = self._host.generators.get(task_id)
        if items is not None:
            items.cancel()
        if self._running == task_id and self._host.actor_id:
            self._host.told.add(task_id)
        elif self._running == task_id and message.force:
            self._loop.after(0.0, lambda: os._exit(1))  # after this tick has told the children's workers
        elif self._running == task_id:
            self._host.interruption.strike(task_id)
        elif self._host.lanes is not None:
            if runs:  # else it has been answered
                self._host.told.add(task_id)
                self._host.lanes.cancel(task_id)
        elif not self._take_from_queue(peer, task_id):
            # The main thread may hold it, and be about to begin. If it has answered already, this is no matter.
            self._host.not_to_begin.add(task_id)
            self._host.interruption.strike(task_id)

    def _take_from_queue(self, peer: bytes, task_id: bytes) -> bool:
        """Answer a cancelled request that has not begun; False if it is not in the queue."""
        behind: list[tuple[bytes, Request]] = []
        found = None
        while found is None and self._queue:
            try:
                entry = self._queue.pop()  # from this side: the main thread takes from the other meanwhile
            except IndexError:
                break
            if not isinstance(entry[1], m.StartActor) and entry[1].task_id == task_id:
                found = entry[1]
            else:
                behind.append(entry)
        self._queue.extend(reversed(behind))
        if found is not None:
            self.cancelled(peer, found)
        return found is not None

    def cancelled(self, peer: bytes, request: m.RunTask | m.CallMethod) -> None:
        """A request was cancelled before it began. In any thread."""
        why = f"{self._host.name(request)}() was cancelled before it began"
        failure = failure_value(TaskCancelledError(why, task_id=request.task_id.hex()))
        self._loop.submit(self._answer, Outcome(request, peer, True, [failure], [], 0.0))

    def _items_taken(self, peer: bytes, message: m.ItemsTaken) -> None:
        items = self._host.generators.get(message.task_id)
        if items is not None:
            items.taken(message.count)

    def process_died(self, worker_id: bytes) -> None:
        """Nobody takes the items of generators that it wanted."""
        for items in list(self._host.generators.values()):  # calls in the lanes begin and end meanwhile
            if items.owner == worker_id:
                items.taken(-1)

    def _exit(self, peer: bytes, message: m.Exit) -> None:
        self.leave()

    def leave(self) -> None:
        """End when the queue is empty."""
        self._leaving = True
        self._called.set()

    def _stalls_at(self) -> float:
        """When the tasks behind the running one are to go back (monotonic); infinity: there are none. In any thread."""
        since = self._running_since
        return since + self._stall_s if since and self._queue and not self._host.actor_id else math.inf

    def _has_stalled(self) -> bool:
        """Whether what runs has blocked, or takes long."""
        since = self._running_since
        return since > 0.0 and (self._stalled_run == self._run_number or time.monotonic() - since >= self._stall_s)

    def _return_if_stalled(self) -> None:
        if self._has_stalled():
            self.return_queue()

    def return_queue(self) -> None:
        """The running task blocks or takes long: give the tasks behind it back. An actor's calls stay: they must run
        here.
        """
        # The number is what is compared later: a run that ends at this moment takes its stall with it.
        self._stalled_run = self._run_number
        returned: dict[bytes, list[bytes]] = {}
        while self._queue and not self._host.actor_id:
            try:
                peer, request = self._queue.pop()
            except IndexError:
                break  # the main thread has taken it: it is running again
            assert isinstance(request, m.RunTask), "an idle worker gets nothing else together with tasks"
            returned.setdefault(peer, []).insert(0, request.task_id)
        for peer, task_ids in returned.items():
            self._loop.send(peer, m.TasksReturned(task_ids))

    def _answer(self, outcome: Outcome) -> None:
        request = outcome.request
        if outcome.items is not None and not isinstance(request, m.StartActor):
            items, outcome.items = outcome.items, None
            self._host.generators.pop(request.task_id, None)
            items.close(lambda: self._answer(outcome))
            return
        if not isinstance(request, m.StartActor):
            self._forget(request.task_id)
        if self._holdings.is_dead(outcome.peer):
            self._holdings.drop_results(outcome.results)
            return
        contained = [ref for value in outcome.results for ref in value.contained] if outcome.refs else []
        if isinstance(request, m.StartActor):
            self._holdings.hand_over(self._head, contained, lambda mine: self._send_started(request, outcome))
        else:
            self._holdings.hand_over(outcome.peer, contained, lambda mine: self._send_done(request, outcome, mine))

    def _forget(self, task_id: bytes) -> None:
        """It has come to its end: nothing about it is to be remembered."""
        if self._host.told:
            self._host.told.discard(task_id)
        if self._in_lanes:
            self._in_lanes.discard(task_id)
        if self._families and task_id in self._families:
            self._cancel_children(task_id, self._families.pop(task_id))

    def _send_done(self, request: m.RunTask | m.CallMethod, outcome: Outcome, borrows: list[bytes]) -> None:
        buffers: list[Any] = []
        results: list[tuple[WireValue, list[WireRef]]] = [
            (value.wire(buffers), value.contained) for value in outcome.results
        ]
        duration_us = int(outcome.duration_s * 1e6)
        self._loop.send(
            outcome.peer, m.TaskDone(request.task_id, outcome.failed, results, borrows, duration_us, buffers)
        )

    def _send_started(self, request: m.StartActor, outcome: Outcome) -> None:
        if not outcome.failed:
            self._loop.send(self._head, m.ActorStarted(request.actor_id, NO_VALUE, []))
            return
        failure = outcome.results[0]
        error = values.deserialize(FAILURE, failure.payload, failure.buffers)  # type: ignore[arg-type]
        description = f"{request.class_name} (actor {request.actor_id.hex()})"
        died = stillborn(description, request.actor_id, error, ran=True)  # type: ignore[arg-type]
        self._loop.send(self._head, m.ActorStarted(request.actor_id, failure_value(died).wire([]), []))


class ConcurrentCall:
    """A call that runs in one of an actor's lanes (`concurrency.Call`)."""

    __slots__ = ("_executor", "_host", "_peer", "_request", "key")

    def __init__(self, executor: Executor, host: Host, peer: bytes, request: m.CallMethod) -> None:
        self._executor = executor
        self._host = host
        self._peer = peer
        self._request = request
        self.key = request.task_id

    def run(self) -> None:
        """In a thread."""
        try:
            outcome = _without_waiting(self._host.carry_out(self._peer, self._request, on_event_loop=False))
        except SystemExit as leaving:
            self._executor.exit_from_lane(leaving)
        except BaseException:  # noqa: BLE001  an exception that cannot be looked at
            self._executor.broken_off()
        else:
            self._executor.finished(outcome)

    async def run_async(self) -> None:
        """On the event loop."""
        try:
            outcome = await self._host.carry_out(self._peer, self._request, on_event_loop=True)
        except SystemExit as leaving:
            self._executor.exit_from_lane(leaving)
        except BaseException:  # noqa: BLE001  an exception that cannot be looked at
            self._executor.broken_off()
        else:
            self._executor.finished(outcome)

    def cancelled(self) -> None:
        """Before it began."""
        self._executor.cancelled(self._peer, self._request)


def _without_waiting(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """The result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as over:
        outcome: Outcome = over.value
        return outcome
    raise RuntimeError("a call outside an event loop has awaited something")
