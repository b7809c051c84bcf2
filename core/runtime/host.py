"""What a worker is, and how it carries out a request: arguments, the user's code, results.

    request --carry_out--> Outcome: results or a failure, as values that last

A worker runs tasks, or it becomes one actor and runs its calls. In any thread: the main one, or one of the actor's
lanes. Not here: when and in which thread (execution.py), what follows from an outcome (there, too).
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from ..errors import ActorDiedError, TaskCancelledError
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, Value, take_value
from ..refs import ObjectRef
from ..serialization.failures import serialize_failure
from ..serialization.values import FAILURE
from ..transport.loop import Loop
from . import context
from .arguments import unpack
from .concurrency import Lanes, lanes_for
from .context import TaskContext
from .equipment import BARE
from .history import History
from .holdings import Holdings, failure_value
from .interruption import Interruption
from .outcomes import end_fork, parts_of
from .special_methods import SPECIAL_METHODS
from .yielding import YieldedItems

Request: TypeAlias = "m.RunTask | m.CallMethod | m.StartActor"


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


class Host:
    """This worker, as the code that it runs sees it."""

    def __init__(
        self,
        loop: Loop,
        holdings: Holdings,
        history: History,
        *,
        fetch_function: Callable[[bytes], Callable[..., Any]],
        on_actor: Callable[[str, object], None],
        on_wait: Callable[[], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
          history: is told of what runs and has run.
          fetch_function: the exported function of a key; may block.
          on_actor: called with class name and actor when this process has become one.
          on_wait: called when a generator begins to wait for its consumer.
          on_fault: called, in any thread, when lanes that drive the loop have come to a fault of ours.
        """
        self._loop = loop
        self._holdings = holdings
        self._history = history
        self._fetch_function = fetch_function
        self._on_actor = on_actor
        self._on_wait = on_wait
        self._on_fault = on_fault
        self._numbers = count(1)
        self._pid = os.getpid()
        self.interruption = Interruption(is_open=lambda: loop.is_open, runs_user_code=Host.carry_out.__code__)
        #: Cancelled when the main thread had taken them from the queue and not begun.
        self.not_to_begin: set[bytes] = set()
        #: Calls under way that have been told of their cancellation.
        self.told: set[bytes] = set()
        #: Generators under way.
        self.generators: dict[bytes, YieldedItems] = {}
        self.actor: Any = None
        self.actor_id = b""
        self.actor_name = ""
        #: Of an actor that runs several calls at once.
        self.lanes: Lanes | None = None
        self.equipment = BARE

    async def carry_out(self, peer: bytes, request: Request, *, on_event_loop: bool) -> Outcome:
        """What becomes of a request. In any thread; a coroutine only so that calls on an event loop can be awaited.

        Raises:
          SystemExit: user code wants the process to end.
        """
        name = self.name(request)
        owner = request.creator if isinstance(request, m.StartActor) else peer
        if isinstance(request, m.StartActor):
            task_id, self.actor_id = b"", request.actor_id
        else:
            task_id = request.task_id
        is_task = type(request) is m.RunTask
        context.enter(TaskContext(task_id, name, self.actor_id, is_task, self.equipment))
        started = loaded = ended = time.perf_counter()
        refs: list[ObjectRef] = []
        ran = failed = False
        raised = ""
        result = items = None
        number = next(self._numbers)
        self._history.running[number] = (task_id, name, self.actor_id, owner, started)
        try:
            if self.not_to_begin and task_id in self.not_to_begin:
                raise KeyboardInterrupt
            args, kwargs = self._arguments(owner, request)
            function = self._function(request)
            ran = True
            loaded = time.perf_counter()
            self.interruption.called = True
            result = function(*args, **kwargs)
            self.interruption.called = False
            if on_event_loop and inspect.isawaitable(result):
                result = await result
            if not isinstance(request, m.StartActor) and request.num_returns < 0:
                items = self.generators[task_id] = YieldedItems(
                    self._loop,
                    self._holdings,
                    owner=peer,
                    task_id=task_id,
                    backpressure=request.backpressure,
                    on_wait=self._on_wait,
                )
                await items.emit_all(result, on_event_loop=on_event_loop)
                result = None
            ended = time.perf_counter()
            results = self._keep(result, request, owner, refs)
        except BaseException as error:  # whatever user code raises, KeyboardInterrupt too, is the task's result
            self.interruption.called = False
            if os.getpid() != self._pid:
                end_fork(error)
            if isinstance(error, SystemExit):
                raise
            failed = True
            raised = type(error).__name__
            from asyncio import CancelledError  # `import shoal` need not pay for it

            if isinstance(error, (KeyboardInterrupt, CancelledError)) and task_id:
                results = [self.cancelled(request)]
            else:
                results = [self.failure(name, error, refs, ran=ran)]
        finally:
            args = kwargs = result = None  # type: ignore[assignment]  # their refs go before the answer is put together
            context.enter(None)
            del self._history.running[number]
        if os.getpid() != self._pid:
            end_fork(None)
        if self.told and task_id in self.told and not failed:
            for value in results:  # what it returned then is of no use
                self._holdings.free_place(value)
            failed, results = True, [self.cancelled(request)]
        stored = time.perf_counter()
        self._history.finished.append((task_id, name, self.actor_id, owner, started, loaded, ended, stored, raised))
        return Outcome(request, peer, failed, results, refs, stored - started, items)

    def _function(self, request: Request) -> Callable[..., Any]:
        """What the request wants called."""
        if isinstance(request, m.RunTask):
            return self._fetch_function(request.function)
        if isinstance(request, m.StartActor):
            return lambda *args, **kwargs: self._become(request, args, kwargs)
        if request.actor_id != self.actor_id:
            hexed = request.actor_id.hex()
            raise ActorDiedError(f"actor {hexed} does not live in this process", actor_id=hexed)
        if request.group and self.lanes is None:
            raise no_group(self.actor_name, request.group)
        special = SPECIAL_METHODS.get(request.method)
        if special is not None:
            return lambda *args, **kwargs: special(self.actor, *args, **kwargs)
        method: Callable[..., Any] = getattr(self.actor, request.method)
        return method

    def _become(self, request: m.StartActor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Become the actor."""
        self.actor_name = request.class_name
        cls: Any = self._fetch_function(request.class_key)
        self.lanes = lanes_for(cls, request.max_concurrency, request.groups, self._loop, self._on_fault)
        if self.lanes is None:
            self.actor = cls(*args, **kwargs)
        else:
            self.actor = self.lanes.construct(lambda: cls(*args, **kwargs))
        self._on_actor(request.class_name, self.actor)

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

    def failure(self, name: str, error: BaseException, refs: list[ObjectRef], *, ran: bool) -> Value:
        """What user code has raised, as a value; the refs inside go to `refs`."""
        serialized = serialize_failure(error, name=name, pid=os.getpid(), actor=self.actor_name or None, ran=ran)
        refs[:] = serialized.refs
        return Value(
            FAILURE, serialized.data, list(serialized.buffers), [(ref.binary(), ref.owner) for ref in serialized.refs]
        )

    def cancelled(self, request: Request) -> Value:
        """The failure of a request that was cancelled while it ran."""
        assert not isinstance(request, m.StartActor), "creations are not cancelled"
        why = f"{self.name(request)}() was cancelled while it ran (pid={self._pid})"
        return failure_value(TaskCancelledError(why, task_id=request.task_id.hex()))

    def name(self, request: Request) -> str:
        """What it is called in messages."""
        if isinstance(request, m.RunTask):
            return request.name
        if isinstance(request, m.StartActor):
            return f"{request.class_name}.__init__"
        return f"{self.actor_name}.{request.method}"


def no_group(actor: str, group: str) -> ValueError:
    """A call names a concurrency group that its actor has not."""
    return ValueError(f"{actor} has no concurrency group {group!r}")
