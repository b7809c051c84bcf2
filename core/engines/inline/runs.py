"""One run of a piece of work in an inline session: arguments out of their bytes, the user's code, results into bytes.

    Work --perform--> Outcome: results | a new actor and its lanes | an error

Everything that the user's code sees has been through the serialiser, as if it came from another process. Not here: what
follows from an outcome (session.py); in which thread it runs, and when (turns.py). Holds no lock.
"""

from __future__ import annotations

import inspect
import os
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ...environments.resolved import applied
from ...errors import ObjectLostError
from ...refs import ObjectRef
from ...runtime import context
from ...runtime.arguments import unpack
from ...runtime.concurrency import Lanes, lanes_for
from ...runtime.context import TaskContext
from ...runtime.equipment import visible
from ...runtime.history import History
from ...runtime.outcomes import end_fork, exit_code, parts_of
from ...runtime.special_methods import SPECIAL_METHODS, ActorExit
from ...serialization import values
from ...serialization.functions import FunctionTable
from ...serialization.values import FAILURE, Serialized
from .objects import InlineObjects
from .work import Work


@dataclass(slots=True)
class Outcome:
    """What a run has come to: results, a new actor, or an error. `ran`: it had its arguments and was begun."""

    results: list[Serialized] = field(default_factory=list)
    items: list[Serialized] = field(default_factory=list)  #: of a generator
    instance: Any = None
    lanes: Lanes | None = None
    error: BaseException | None = None
    ran: bool = False

    @property
    def ending(self) -> str:
        """How native's process would have ended, in its words; empty if it would live."""
        if isinstance(self.error, ActorExit):
            return "exit_actor()"
        return f"exit code {exit_code(self.error) & 0xFF}" if isinstance(self.error, SystemExit) else ""


class Runs:
    """Runs work, in whatever thread asks for it."""

    def __init__(
        self, objects: InlineObjects, history: History, *, is_cancelled: Callable[[Work], bool]
    ) -> None:
        """
        Args:
          is_cancelled: whether work that runs has been cancelled. Any thread.
        """
        self._is_cancelled = is_cancelled
        self._objects = objects
        self._history = history
        self._functions = FunctionTable()
        self._pid = os.getpid()
        #: Of the work that the calling thread or coroutine runs; empty for none.
        self.environment: ContextVar[bytes] = ContextVar("shoal inline environment", default=b"")

    def carry_out(self, work: Work) -> Outcome:
        """`perform` without an event loop."""
        try:
            self.perform(work, on_event_loop=False).send(None)
        except StopIteration as over:
            outcome: Outcome = over.value
            return outcome
        raise RuntimeError(f"{work.name}() runs outside an event loop and has awaited something")

    async def perform(self, work: Work, *, on_event_loop: bool) -> Outcome:
        """What becomes of work; a coroutine only so that calls on an event loop can be awaited."""
        actor, before = work.actor, context.current()
        actor_id = b"" if actor is None else actor.actor_id
        equipment = work.equipment if actor is None else actor.equipment
        context.enter(TaskContext(work.task_id, work.name, actor_id, actor is None, equipment))
        outcome = Outcome()
        task_id = work.task_id if actor is None or work.is_call else b""
        run = self._history.begin(task_id, work.name, actor_id, work.owner)
        was_in = self.environment.set(work.environment)
        try:
            with applied(work.environment), visible(equipment.gpus):
                args, kwargs = self._arguments(work)
                function = self._function(work, outcome)
                outcome.ran = True
                run.loaded()
                result = function(*args, **kwargs)
                if on_event_loop and inspect.isawaitable(result):
                    result = await result
                run.ended()
                if work.num_returns < 0:
                    await self._take_all(work, result, outcome.items)
                    outcome.results = [self._objects.owned(part) for part in parts_of(None, 1)]
                elif work.actor is None or work.is_call:
                    outcome.results = [self._objects.owned(part) for part in parts_of(result, len(work.returns))]
                else:
                    outcome.instance = result
        except BaseException as error:  # noqa: BLE001  whatever user code raises is the work's result
            outcome.error = error
        finally:
            context.enter(before)
            run.over(outcome.error)
            self.environment.reset(was_in)
        if os.getpid() != self._pid:
            end_fork(outcome.error)
        return outcome

    async def _take_all(self, work: Work, generator: Any, items: list[Serialized]) -> None:
        """Run a generator to its end, or to its next yield when it is cancelled; what it has yielded before it raises
        stays in `items`.
        """

        def keep(item: Any) -> None:
            items.append(self._objects.owned(values.serialize(item)))
            if self._is_cancelled(work):
                raise CancelledError

        if inspect.isasyncgen(generator):
            try:
                async for item in generator:
                    keep(item)
            finally:
                await generator.aclose()
        elif hasattr(generator, "__next__"):
            try:
                for item in generator:
                    keep(item)
            finally:
                if inspect.isgenerator(generator):
                    generator.close()
        else:
            raise ValueError(f"the task returned one {type(generator).__name__}, but its items were to be streamed")

    def _function(self, work: Work, outcome: Outcome) -> Callable[..., Any]:
        """What the work wants called."""
        actor = work.actor
        if work.is_call:
            assert actor is not None, "a call has an actor"
            if work.group and actor.lanes is None:
                raise ValueError(f"{work.name}(): the actor has no concurrency group {work.group!r}")
            special = SPECIAL_METHODS.get(work.method)
            if special is not None:
                return lambda *args, **kwargs: special(actor.instance, *args, **kwargs)
            method: Callable[..., Any] = getattr(actor.instance, work.method)
            return method
        assert work.function is not None, "only calls have no function"
        function = self._functions.load(work.function.key, work.function.blob)
        if actor is None:
            return function
        cls: Any = function
        lanes = outcome.lanes = lanes_for(cls, actor.options.max_concurrency, actor.options.concurrency_groups)
        if lanes is None:
            return function
        return lambda *args, **kwargs: lanes.construct(lambda: cls(*args, **kwargs))

    def _arguments(self, work: Work) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if work.arguments is None:
            return (), {}
        packed = values.deserialize(work.arguments.kind, work.arguments.data, work.arguments.buffers)
        return unpack(packed, [self.load(ref) for ref in work.slots])

    def load(self, ref: ObjectRef) -> Any:
        """The Python value of a ref that is not pending; raises the error that it is instead."""
        value = self._objects.value(ref.binary())
        if value is None:
            raise ObjectLostError(
                f"{ref!r} was freed: every ref to it that this process knew of had gone"
                if ref.owner
                else f"{ref!r} was made by hand from an id: nobody knows its owner",
                object_ref_hex=ref.hex(),
            )
        result = self._objects.load(ref.binary(), value)
        if value.kind == FAILURE:
            value.seen = True
            assert isinstance(result, BaseException), "a FAILURE holds an exception"
            raise result
        return result
