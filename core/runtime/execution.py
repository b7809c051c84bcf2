"""The worker's side of a task: take it from the queue, load function and arguments, run it, answer.

    RunTask, CallMethod, StartActor --> queue --> main thread --> TaskDone / ActorStarted
                                          |
                                          +-- the running task blocks or takes long: those behind it go back

The main thread runs user code; between two tasks, and while it has none, it drives the process's loop. One at a time
and in order of arrival, which for the calls of one caller to an actor is the order of submission. The calls of an actor
that runs several at once go to its lanes instead (concurrency.py).

Not here: where refs are counted (holdings.py), how user code submits more work (submitting.py).
"""

from __future__ import annotations

import inspect
import os
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from ..errors import ActorDiedError, TaskCancelledError
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, Value, WireRef, WireValue, take_value
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.failures import serialize_failure
from ..serialization.values import FAILURE
from ..transport.loop import Loop
from . import context
from .arguments import unpack
from .concurrency import Lanes, lanes_for
from .context import TaskContext
from .equipment import BARE, Equipment, show_gpus
from .history import History
from .holdings import Holdings, failure_value
from .interruption import Interruption
from .outcomes import end_fork, parts_of, stillborn
from .special_methods import SPECIAL_METHODS, ActorExit
from .yielding import YieldedItems

Request: TypeAlias = "m.RunTask | m.CallMethod | m.StartActor"

#: Replies of short tasks gather for this long before they are sent.
_REPLY_S = 0.001


@dataclass(slots=True)
class Outcome:
    """What a piece of work has come to, on its way to whoever asked for it."""

    request: Request
    peer: bytes
    failed: bool
    results: list[Value]
    #: The refs inside the results: alive until the owners know of their new holder.
    refs: list[ObjectRef]
    duration_s: float
    #: What a generator has yielded: it goes first.
    items: YieldedItems | None = None


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
        cancel_children: Callable[[bytes, bool], None],
        retire: Callable[[bytes], None],
        on_actor: Callable[[str, object], None],
    ) -> None:
        """
        Args:
          history: is told of what runs and has run.
          fetch_function: the exported function of a key; may block.
          head: whom to tell about an actor's start.
          cancel_children: (task id, force): cancel what a task has submitted.
          retire: this actor ends by its own wish; returns when the head knows of it.
          on_actor: called with class name and actor when this process has become one.
        """
        self._loop = loop
        self._holdings = holdings
        self._history = history
        self._numbers = count(1)
        self._fetch_function = fetch_function
        self._head = head
        self._cancel_children = cancel_children
        self._retire = retire
        self._interruption = Interruption(
            is_open=lambda: loop.is_open, runs_user_code=Executor.carry_out.__code__
        )
        self._interruption.install()
        #: What runs in the main thread: a task or call, or empty.
        self._running = b""
        #: Cancelled when the main thread had taken them from the queue and not begun.
        self._not_to_begin: set[bytes] = set()
        #: Calls in the lanes that have not been answered.
        self._in_lanes: set[bytes] = set()
        #: Calls under way that have been told of their cancellation.
        self._told: set[bytes] = set()
        #: Work under way that was cancelled with all that it has submitted: its id -> force.
        self._families: dict[bytes, bool] = {}
        #: Generators under way.
        self._generators: dict[bytes, YieldedItems] = {}
        #: Of functions with `max_calls`: how often this process may still run them.
        self._calls_left: dict[bytes, int] = {}
        self._retiring = False
        self._on_actor = on_actor
        self._queue: deque[tuple[bytes, Request]] = deque()
        self._leaving = False
        self._flushed_at = 0.0
        self._pid = os.getpid()
        self._running_since = 0.0  # 0: nothing runs
        self._run_number = 0
        self._stalled_run = -1  # the run that has had the tasks behind it returned
        self._lanes: Lanes | None = None  # of an actor that runs several calls at once
        self._exit_code: Any = None  # of a SystemExit in one of the lanes
        self._actor: Any = None
        self._actor_id = b""
        self._actor_name = ""
        self._equipment = BARE
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
                self._not_to_begin.clear()
                self._loop.drive_until(lambda: queue or self._may_leave())
                if not queue:
                    break
            elif time.monotonic() - self._flushed_at > _REPLY_S:
                self._loop.flush()
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
                    self._retire(self._actor_id)
                raise
        if self._exit_code is not None:
            raise SystemExit(self._exit_code)

    def let_actor_go(self) -> None:
        """Its ``__del__`` runs while the API still works."""
        self._actor = None
        self._loop.flush()

    def _may_leave(self) -> bool:
        """Told to, and no call is under way; nor does anybody need what a worker owns that has run its last task."""
        if not self._leaving or (self._retiring and self._holdings.owns_anything):
            return False
        return self._exit_code is not None or self._lanes is None or not self._lanes.busy

    def _run(self, peer: bytes, request: Request) -> None:
        """Carry out one request, here and now."""
        self._run_number += 1
        self._running_since = time.monotonic()
        self._running = request.actor_id if isinstance(request, m.StartActor) else request.task_id
        try:
            self._interruption.begin(self._running)
            outcome = _without_waiting(self.carry_out(peer, request, on_event_loop=False))
            self._interruption.end()
        except KeyboardInterrupt:  # not by a strike; user code can have put its own handler in place of ours
            self._interruption.end()
            items = self._generators.get(self._running)
            outcome = Outcome(request, peer, True, [self._cancelled(request)], [], 0.0, items)
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

    async def carry_out(self, peer: bytes, request: Request, *, on_event_loop: bool) -> Outcome:
        """What becomes of a request. In any thread; a coroutine only so that calls on an event loop can be awaited.

        Raises:
          SystemExit: user code wants the process to end.
        """
        name = self._name(request)
        owner = request.creator if isinstance(request, m.StartActor) else peer
        if isinstance(request, m.StartActor):
            task_id, self._actor_id = b"", request.actor_id
        else:
            task_id = request.task_id
        is_task = type(request) is m.RunTask
        context.enter(TaskContext(task_id, name, self._actor_id, is_task, self._equipment))
        started = loaded = ended = time.perf_counter()
        refs: list[ObjectRef] = []
        ran = failed = False
        raised = ""
        result = items = None
        number = next(self._numbers)
        self._history.running[number] = (task_id, name, self._actor_id, owner, started)
        try:
            if self._not_to_begin and task_id in self._not_to_begin:
                raise KeyboardInterrupt
            args, kwargs = self._arguments(owner, request)
            function = self._function(request)
            ran = True
            loaded = time.perf_counter()
            self._interruption.called = True
            result = function(*args, **kwargs)
            self._interruption.called = False
            if on_event_loop and inspect.isawaitable(result):
                result = await result
            if not isinstance(request, m.StartActor) and request.num_returns < 0:
                items = self._generators[task_id] = YieldedItems(
                    self._loop,
                    self._holdings,
                    owner=peer,
                    task_id=task_id,
                    backpressure=request.backpressure,
                    on_wait=self.return_queue,
                )
                await items.emit_all(result, on_event_loop=on_event_loop)
                result = None
            ended = time.perf_counter()
            results = self._keep(result, request, owner, refs)
        except BaseException as error:  # whatever user code raises, KeyboardInterrupt too, is the task's result
            self._interruption.called = False
            if os.getpid() != self._pid:
                end_fork(error)
            if isinstance(error, SystemExit):
                raise
            failed = True
            raised = type(error).__name__
            if isinstance(error, (KeyboardInterrupt, CancelledError)) and task_id:
                results = [self._cancelled(request)]
            else:
                results = [self._failure(name, error, refs, ran=ran)]
        finally:
            args = kwargs = result = None  # type: ignore[assignment]  # their refs go before the answer is put together
            context.enter(None)
            del self._history.running[number]
        if os.getpid() != self._pid:
            end_fork(None)
        if self._told and task_id in self._told and not failed:
            for value in results:  # what it returned then is of no use
                self._holdings.free_place(value)
            failed, results = True, [self._cancelled(request)]
        stored = time.perf_counter()
        self._history.finished.append((task_id, name, self._actor_id, owner, started, loaded, ended, stored, raised))
        return Outcome(request, peer, failed, results, refs, stored - started, items)

    def _function(self, request: Request) -> Callable[..., Any]:
        """What the request wants called."""
        if isinstance(request, m.RunTask):
            return self._fetch_function(request.function)
        if isinstance(request, m.StartActor):
            return lambda *args, **kwargs: self._become(request, args, kwargs)
        if request.actor_id != self._actor_id:
            hexed = request.actor_id.hex()
            raise ActorDiedError(f"actor {hexed} does not live in this process", actor_id=hexed)
        if request.group and self._lanes is None:
            raise _no_group(self._actor_name, request.group)
        special = SPECIAL_METHODS.get(request.method)
        if special is not None:
            return lambda *args, **kwargs: special(self._actor, *args, **kwargs)
        method: Callable[..., Any] = getattr(self._actor, request.method)
        return method

    def _become(self, request: m.StartActor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Become the actor."""
        self._actor_name = request.class_name
        cls: Any = self._fetch_function(request.class_key)
        self._lanes = lanes_for(cls, request.max_concurrency, request.groups)
        if self._lanes is None:
            self._actor = cls(*args, **kwargs)
        else:
            self._actor = self._lanes.construct(lambda: cls(*args, **kwargs))
        self._on_actor(request.class_name, self._actor)

    def _keep(self, result: Any, request: Request, owner: bytes, refs: list[ObjectRef]) -> list[Value]:
        """Results as values that last; the refs inside go to `refs`."""
        if isinstance(request, m.StartActor):
            return []
        parts = parts_of(result, 1 if request.num_returns < 0 else request.num_returns)
        kept: list[Value] = []
        try:
            for part in parts:
                refs += part.refs
                kept.append(self._holdings.keep(part, owner))
        except BaseException:  # no room for all of them
            for value in kept:
                self._holdings.free_place(value)
            raise
        return kept

    def _arguments(self, owner: bytes, request: Request) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if request.arguments == NO_VALUE:
            return (), {}
        frames = request.buffers
        load = self._holdings.load_value
        packed = load(request.arguments_object, owner, take_value(request.arguments, frames), guard=owner)
        slots = []
        for object_id, slot_owner, wire in request.slots:
            slots.append(load(object_id, slot_owner, take_value(wire, frames), guard=owner))
        return unpack(packed, slots)

    def _failure(self, name: str, error: BaseException, refs: list[ObjectRef], *, ran: bool) -> Value:
        serialized = serialize_failure(error, name=name, pid=os.getpid(), actor=self._actor_name or None, ran=ran)
        refs[:] = serialized.refs
        return Value(
            FAILURE, serialized.data, list(serialized.buffers), [(ref.binary(), ref.owner) for ref in serialized.refs]
        )

    def _cancelled(self, request: Request) -> Value:
        assert not isinstance(request, m.StartActor), "creations are not cancelled"
        why = f"{self._name(request)}() was cancelled while it ran (pid={self._pid})"
        return failure_value(TaskCancelledError(why, task_id=request.task_id.hex()))

    def _name(self, request: Request) -> str:
        if isinstance(request, m.RunTask):
            return request.name
        if isinstance(request, m.StartActor):
            return f"{request.class_name}.__init__"
        return f"{self._actor_name}.{request.method}"

    # ---- the loop's driver

    def _equip(self, peer: bytes, message: m.Equip) -> None:
        # At once and not in the queue's order: whoever had the worker before has had all its answers.
        self._equipment = Equipment(message.shape, message.gpus, message.captures)
        show_gpus(message.gpus)

    def _enqueue(self, peer: bytes, request: Request) -> None:
        stalled = self._running_since and self._stalled_run == self._run_number
        if stalled and isinstance(request, m.RunTask):
            self._loop.send(peer, m.TasksReturned([request.task_id]))  # it crossed with the others that went back
        elif self._lanes is not None and isinstance(request, m.CallMethod):
            self._start(self._lanes, peer, request)
        else:
            self._queue.append((peer, request))

    def _start(self, lanes: Lanes, peer: bytes, request: m.CallMethod) -> None:
        self._in_lanes.add(request.task_id)
        try:
            lanes.start(request.group, ConcurrentCall(self, peer, request))
        except KeyError:
            error = _no_group(self._actor_name, request.group)
            refs: list[ObjectRef] = []
            failure = self._failure(self._name(request), error, refs, ran=True)
            self._answer(Outcome(request, peer, True, [failure], refs, 0.0))

    def finished(self, outcome: Outcome) -> None:
        """A call in one of the lanes has come to an end. In any thread."""
        self._loop.submit(self._answer, outcome)

    def is_canceled(self, task_id: bytes) -> bool:
        """Whether a call that runs has been cancelled. In any thread."""
        return task_id in self._told

    def exit_from_lane(self, leaving: SystemExit) -> None:
        """User code in one of the lanes wants the process to end. In any thread."""
        if isinstance(leaving, ActorExit):
            self._retire(self._actor_id)
        self._exit_code = leaving.code if leaving.code is not None else 0
        self._loop.submit(lambda _: self.leave(), None)

    def _cancel(self, peer: bytes, message: m.CancelTask) -> None:
        task_id = message.task_id
        runs = self._running == task_id or task_id in self._in_lanes
        if message.recursive:
            if runs:
                self._families[task_id] = message.force  # it may submit more before the news reaches it
            self._cancel_children(task_id, message.force)
        items = self._generators.get(task_id)
        if items is not None:
            items.cancel()
        if self._running == task_id and self._actor_id:
            self._told.add(task_id)
        elif self._running == task_id and message.force:
            self._loop.after(0.0, lambda: os._exit(1))  # after this tick has told the children's workers
        elif self._running == task_id:
            self._interruption.strike(task_id)
        elif self._lanes is not None:
            if runs:  # else it has been answered
                self._told.add(task_id)
                self._lanes.cancel(task_id)
        elif not self._take_from_queue(peer, task_id):
            # The main thread may hold it, and be about to begin. If it has answered already, this is no matter.
            self._not_to_begin.add(task_id)
            self._interruption.strike(task_id)

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
        why = f"{self._name(request)}() was cancelled before it began"
        failure = failure_value(TaskCancelledError(why, task_id=request.task_id.hex()))
        self._loop.submit(self._answer, Outcome(request, peer, True, [failure], [], 0.0))

    def _items_taken(self, peer: bytes, message: m.ItemsTaken) -> None:
        items = self._generators.get(message.task_id)
        if items is not None:
            items.taken(message.count)

    def process_died(self, worker_id: bytes) -> None:
        """Nobody takes the items of generators that it wanted."""
        for items in list(self._generators.values()):  # calls in the lanes begin and end meanwhile
            if items.owner == worker_id:
                items.taken(-1)

    def _exit(self, peer: bytes, message: m.Exit) -> None:
        self.leave()

    def leave(self) -> None:
        """End when the queue is empty."""
        self._leaving = True

    def return_if_stalled(self, stall_s: float) -> None:
        """`return_queue`, if one task has been running for that long."""
        if self._running_since and time.monotonic() - self._running_since >= stall_s:
            self.return_queue()

    def return_queue(self) -> None:
        """The running task blocks or takes long: give the tasks behind it back. An actor's calls stay: they must run
        here.
        """
        # The number is what is compared later: a run that ends at this moment takes its stall with it.
        self._stalled_run = self._run_number
        returned: dict[bytes, list[bytes]] = {}
        while self._queue and not self._actor_id:
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
            self._generators.pop(request.task_id, None)
            items.close(lambda: self._answer(outcome))
            return
        if not isinstance(request, m.StartActor):
            self._forget(request.task_id)
        if self._holdings.is_dead(outcome.peer):
            self._holdings.drop_results(outcome.results)
            return
        contained = [ref for value in outcome.results for ref in value.contained]
        if isinstance(request, m.StartActor):
            self._holdings.hand_over(self._head, contained, lambda mine: self._send_started(request, outcome))
        else:
            self._holdings.hand_over(outcome.peer, contained, lambda mine: self._send_done(request, outcome, mine))

    def _forget(self, task_id: bytes) -> None:
        """It has come to its end: nothing about it is to be remembered."""
        if self._told:
            self._told.discard(task_id)
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

    def __init__(self, executor: Executor, peer: bytes, request: m.CallMethod) -> None:
        self._executor = executor
        self._peer = peer
        self._request = request
        self.key = request.task_id

    def run(self) -> None:
        """In a thread."""
        try:
            outcome = _without_waiting(self._executor.carry_out(self._peer, self._request, on_event_loop=False))
        except SystemExit as leaving:
            self._executor.exit_from_lane(leaving)
        else:
            self._executor.finished(outcome)

    async def run_async(self) -> None:
        """On the event loop."""
        try:
            outcome = await self._executor.carry_out(self._peer, self._request, on_event_loop=True)
        except SystemExit as leaving:
            self._executor.exit_from_lane(leaving)
        else:
            self._executor.finished(outcome)

    def cancelled(self) -> None:
        """Before it began."""
        self._executor.cancelled(self._peer, self._request)


def _no_group(actor: str, group: str) -> ValueError:
    return ValueError(f"{actor} has no concurrency group {group!r}")


def _without_waiting(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """The result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as over:
        outcome: Outcome = over.value
        return outcome
    raise RuntimeError("a call outside an event loop has awaited something")
