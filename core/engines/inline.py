"""The inline engine: a session without processes, for debugging and for fast tests (``init(engine="inline")``).

Work runs in the thread that submits it, before ``.remote()`` returns: a traceback and a debugger show who asked for it,
and the same program does the same things in the same order every time. Everything else is as on native: what goes in
and out passes through the same serialiser (fresh containers, read-only arrays, functions frozen when first submitted),
and errors, names, counts of refs, ends of actors and demands that cannot be met come out the same.

    .remote() -> pack -> Schedule (inline_work.py) -> take, run, resolve -> take the next that has become possible, ...
    get, wait -> the value is there, as a rule. If not: help, wait for other threads, or say that nobody can make it

Where one process shows: only work that waits for a busy actor (called from inside its own method), for resources that
actors hold, or for other threads is ever pending. A task or call that would end its process by SystemExit ends as
native's would; one that really kills the process kills all. A killed actor's running method cannot be stopped: it goes
on, and its result is dropped. KeyboardInterrupt fails the work that it strikes and goes on to who submitted it.

Invariants: tables change only under `_changing`, where SIGINT waits; user code, which includes loading and dropping
values, never runs there, so it may use the API freely. Whenever the lock is free, unfinished work is ready, running in
some thread, or stuck behind something else; hence who waits without a time-out, while nothing is ready and every
running thread waits likewise, would wait for ever, and gets a SessionError that says for what.
"""

from __future__ import annotations

import inspect
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from .. import ids, refs
from ..errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorHandleNotFoundError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    ObjectLostError,
    OwnerDiedError,
    SessionError,
    TaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ..options import ActorOptions, TaskOptions
from ..protocol.specs import WireMethod
from ..refs import ObjectRef
from ..resources import ResourceSet
from ..runtime import context
from ..runtime.arguments import Packed, pack, unpack
from ..runtime.concurrency import DEFAULT, Lanes, lanes_for
from ..runtime.context import TaskContext
from ..serialization import values
from ..serialization.failures import serialize_error, serialize_failure
from ..serialization.functions import ExportedFunction, FunctionExporter, FunctionTable
from ..serialization.values import FAILURE, Serialized
from ..transport.interrupts import Interrupts
from .base import ActorIdentity, NodeDescription, Place
from .inline_objects import InlineObjects
from .inline_work import WORK, Actor, Schedule, Work

#: A waiting thread looks this often whether refs have died meanwhile: their end can tell nobody (`refs.py`).
_LOOK_S = 0.05


class _Thread(threading.local):
    """What the engine knows of the calling thread: whether it counts as one that can still make something."""

    counted = False
    on_event_loop = False


class InlineEngine:
    """The session. `base.Engine` and, for the refs of this process, `refs.RefEvents`."""

    def __init__(
        self, total: Mapping[str, int], *, namespace: str, job_id: bytes, store_bytes: int, inline_bytes: int
    ) -> None:
        """
        Args:
          total: resources of the session, in 1/10_000.
          store_bytes: room for values above `inline_bytes`, together.
        """
        self._me = ids.new_worker_id()
        self._task_worker = ids.new_worker_id()  # where tasks say that they run; what they make is the driver's
        self._node_id = ids.new_node_id()
        self._job = ids.JobID(job_id)
        self._ids = ids.IdSource(self._me, self._job)
        self._namespace = namespace
        self._pid = os.getpid()
        self._interrupts = Interrupts()
        self._condition = threading.Condition(threading.RLock())
        self._schedule = Schedule(ResourceSet(total))
        self.objects = InlineObjects(
            self._me, store_bytes=store_bytes, inline_bytes=inline_bytes, on_free=self._object_freed
        )
        self.released = self.objects.released
        self._exporter = FunctionExporter()
        self._functions = FunctionTable()
        #: The actor that lives as long as refs to an object do.
        self._guarded: dict[bytes, Actor] = {}
        #: Threads that run work and do not wait for others without a time-out.
        self._active = 0
        self._thread = _Thread()
        self._due: deque[tuple[Future[Any], ObjectRef]] = deque()
        #: Instances of dead actors: dropped where no table is changing, since their ``__del__`` is the user's code.
        self._graveyard: list[tuple[Any, Lanes | None]] = []
        self._helper: threading.Thread | None = None
        self._help_wanted = False
        self._closed = False
        self._interrupts.install()
        refs.connect(self)

    # ---- base.Engine

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> list[ObjectRef]:
        exported = self._exporter.export(function)
        name = options.name or function.__name__
        demand = ResourceSet(options.resources)
        with self._changing():
            work = self._work(name, exported, pack(args, kwargs), demand=demand)
            work.retries, work.retry_on = options.max_retries, options.retry_on
            made = self._make_returns(work, options.num_returns)
            if demand.fits(self._schedule.total):
                self._enter(work)
            else:
                why = f"{name}() can never run: it {demand.shortage(self._schedule.total)} in all"
                self._resolve(work, [serialize_error(TaskUnschedulableError(why))])
        self._run_ready()
        return made

    def create_actor(
        self,
        cls: type,
        methods: Mapping[str, WireMethod],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: ActorOptions,
    ) -> ActorIdentity:
        exported = self._exporter.export(cls)
        packed = pack(args, kwargs)
        namespace = options.namespace or self._namespace
        with self._changing():
            existing = self._schedule.named(options.name, namespace) if options.name else None
            if existing is not None:
                if options.get_if_exists:
                    return _weak(existing)
                raise ActorAlreadyExistsError(
                    f"the name {options.name!r} (namespace {namespace!r}) is already taken; "
                    "use another, get_actor, or get_if_exists=True"
                )
            actor = self._new_actor(cls.__name__, methods, namespace, options)
            handle_id = ids.object_id(self._id_source().task(), 0)
            self.objects.expect(handle_id)
            self._guarded[handle_id] = actor
            demand, total = ResourceSet(options.required), self._schedule.total
            work = self._work(f"{cls.__name__}.__init__", exported, packed, demand=demand)
            work.actor = actor
            if options.max_restarts:
                actor.creation = work
            lacking = next((d for d in (ResourceSet(options.placement), demand) if not d.fits(total)), None)
            if lacking is None:
                self._enter(work)
            else:
                why = f"{actor.description} can never be placed: it {lacking.shortage(total)} in all"
                self._bury(actor, serialize_error(ActorUnschedulableError(why)))
            ref: ObjectRef = ObjectRef(handle_id, ids.creator_of(handle_id))
        self._run_ready()
        return ActorIdentity(actor.actor_id, actor.class_name, actor.methods, ref)

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> list[ObjectRef]:
        num_returns, retries, retry_exceptions, group = how
        packed = pack(args, kwargs)
        with self._changing():
            work = self._work(f"{actor.class_name}.{method}", None, packed, demand=ResourceSet())
            made = self._make_returns(work, num_returns)
            if actor.ref is not None:
                work.refs.append(actor.ref)  # the actor lives at least until the answer
            callee = work.actor = self._schedule.actors.get(actor.actor_id)
            work.method, work.group = method, group
            work.retries, work.retry_on = retries, (Exception,) if retry_exceptions else ()
            if callee is None:
                why = f"actor {actor.actor_id.hex()} is not known to this session"
                self._resolve(work, [serialize_error(ActorDiedError(why, actor_id=actor.actor_id.hex()))])
            elif callee.failure is not None:
                self._resolve(work, [callee.failure])
            else:
                self._enter(work)
        self._run_ready()
        return made

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        objects = self.objects

        def failed() -> ObjectRef | None:
            found = [(ref, objects.value(ref.binary())) for ref in refs]
            return next((ref for ref, value in found if value is not None and value.kind == FAILURE), None)

        def pending() -> list[ObjectRef]:
            return [ref for ref in refs if objects.value(ref.binary()) is None and ref.binary() in objects]

        if not self._await(lambda: not pending() or failed() is not None, timeout_s, pending):
            missing = pending()
            raise GetTimeoutError(
                f"{len(missing)} of {len(refs)} objects were not ready within {timeout_s:g} s, "
                f"the first is {missing[0]}"
            )
        broken = failed()
        if broken is not None:
            self._load(broken)
        return [self._load(ref) for ref in refs]

    def put(self, value: Any) -> ObjectRef:
        serialized = values.serialize(value)
        with self._changing():
            source = self._id_source()
            serialized = self.objects.owned(serialized)
            object_id = ids.object_id(source.task(), 0)
            self.objects.expect(object_id)
            self.objects.resolve(object_id, serialized)
            ref: ObjectRef = ObjectRef(object_id, ids.creator_of(object_id))
        self._run_ready()
        return ref

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        objects = self.objects

        def is_ready(ref: ObjectRef) -> bool:
            return objects.value(ref.binary()) is not None or ref.binary() not in objects

        self._await(
            lambda: sum(map(is_ready, refs)) >= num_returns,
            timeout_s,
            lambda: [ref for ref in refs if not is_ready(ref)],
        )
        ready: list[ObjectRef] = []
        rest: list[ObjectRef] = []
        for ref in refs:
            (ready if len(ready) < num_returns and is_ready(ref) else rest).append(ref)
        return ready, rest

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None:
        with self._changing():
            found = self._schedule.actors.get(actor.actor_id)
            if found is None:
                raise ActorHandleNotFoundError(
                    f"{actor.class_name} (actor {actor.actor_id.hex()}) is not known to this session: "
                    "was it created before shutdown() and another init()?"
                )
            if no_restart and not found.is_dead:
                self._bury_because(found, "it was killed by kill()")
            elif not found.is_dead and found.life.state != "PENDING":
                self._lost(found, "kill(no_restart=False)")
        self._run_ready()

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None:
        with self._changing():
            found = self._schedule.named(name, namespace or self._namespace)
            return None if found is None else _weak(found)

    def place(self) -> Place:
        task = context.current()
        actor = self._schedule.actors.get(task.actor_id) if task else None
        return Place(
            job_id=self._job,
            node_id=self._node_id,
            worker_id=actor.worker_id if actor else self._task_worker if task else self._me,
            task_id=task.task_id if task else b"",
            task_name=task.name if task else "",
            actor_id=task.actor_id if task else b"",
            namespace=self._namespace,
        )

    def describe(self) -> NodeDescription:
        with self._changing():
            schedule = self._schedule
            total, available = schedule.total.parts(), schedule.available.parts()
        return NodeDescription(self._node_id, socket.gethostname(), total, available)

    def shutdown(self) -> None:
        """Everything that waits fails; actors are dropped; refs of this session count no more."""
        refs.connect(None)
        with self._changing():
            self._closed = True
            over = serialize_error(SessionError("shoal has been shut down"))
            for object_id in self.objects.pending():
                self.objects.resolve(object_id, over)
            for actor in self._schedule.actors.values():
                self._drop(actor)
            self._condition.notify_all()
        self._deliver()
        self._interrupts.remove()

    # ---- refs.RefEvents; `released` is the objects'

    def received(self, object_id: bytes, owner: bytes) -> None:
        self.objects.received(object_id)

    def escaped(self, ref: ObjectRef) -> None:
        """Pickled by a foreign pickler: nobody can count the copies, so the object stays, as in Ray."""
        self.objects.received(ref.binary())

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future of the ref's value: done, as a rule. Callbacks run in the thread that makes it so, and may use the
        API.
        """
        future: Future[Any] = Future()

        def ready() -> None:
            self._due.append((future, ref))

        with self._changing():
            if not self.objects.watch(ref.binary(), ready):
                ready()
        self._deliver()
        return future

    # ---- submitting, under `_changing`

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._interrupts, self._condition:
            self.objects.settle()
            yield

    def _id_source(self) -> ids.IdSource:
        """Of the process that native would run the caller in: an actor, or the driver. (Native keeps a worker of tasks
        as long as something that it owns is needed, so that tasks may count as the driver here.)
        """
        task = context.current()
        actor = self._schedule.actors.get(task.actor_id) if task is not None else None
        return self._ids if actor is None else actor.id_source

    def _work(self, name: str, function: ExportedFunction | None, packed: Packed, *, demand: ResourceSet) -> Work:
        task_id = self._id_source().task()
        arguments = None if packed.serialized is None else self.objects.owned(packed.serialized)
        slots = packed.refs[: len(packed.dependencies)]
        owner = ids.creator_of(task_id)
        return Work(task_id, name, owner, function, arguments, slots, list(packed.refs), [], demand)

    def _make_returns(self, work: Work, count: int) -> list[ObjectRef]:
        work.returns = [ids.object_id(work.task_id, index) for index in range(count)]
        for object_id in work.returns:
            self.objects.expect(object_id)
        return [ObjectRef(object_id, work.owner) for object_id in work.returns]

    def _enter(self, work: Work) -> None:
        def arrived() -> None:
            self._schedule.argument_ready(work)

        work.missing = sum(self.objects.watch(ref.binary(), arrived) for ref in work.slots)
        self._schedule.enter(work)

    def _new_actor(
        self, class_name: str, methods: Mapping[str, WireMethod], namespace: str, options: ActorOptions
    ) -> Actor:
        creator = self._id_source()
        actor_id, worker_id = creator.actor(), ids.new_worker_id()
        actor = Actor(
            actor_id,
            worker_id,
            ids.creator_of(actor_id),
            class_name,
            dict(methods),
            options.name or "",
            namespace,
            options,
            ids.IdSource(worker_id, self._job),
        )
        self._schedule.add(actor)
        return actor

    # ---- running

    def _run_ready(self) -> None:
        """Run what can be run, until there is nothing more."""
        if self._thread.on_event_loop:
            self._hand_over()
        else:
            while self._step():
                self._deliver()
        self._deliver()

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
            self._run_ready()

    def _step(self) -> bool:
        """Run one piece of work; False when none is ready."""
        interruption: BaseException | None = None
        with self._interrupts:  # SIGINT strikes within user code, between `open` and `shut`, or afterwards
            with self._changing():
                work = self._schedule.take()
                if work is None:
                    return False
                lanes = work.actor.lanes if work.actor is not None and work.is_call else None
                self._active += 1
                if self._thread.counted:
                    self._active -= lanes is None
            call = LaneCall(self, work)
            if lanes is None:
                was_counted, self._thread.counted = self._thread.counted, True
                try:
                    self._interrupts.open()
                    outcome = call.carry_out()
                except KeyboardInterrupt as struck:  # between two lines of ours
                    outcome = Outcome(error=struck)
                finally:
                    self._interrupts.shut()
                self._thread.counted = was_counted
                self.finished(work, call.attempt, outcome, counted=not was_counted)
                if isinstance(outcome.error, KeyboardInterrupt):
                    interruption = outcome.error
            else:
                try:
                    lanes.start(work.group, call)
                except KeyError:
                    why = ValueError(f"{work.name}(): the actor has no concurrency group {work.group!r}")
                    self.finished(work, call.attempt, Outcome(error=why, ran=True), counted=True)
        if interruption is not None:
            raise interruption
        return True

    def go_on(self) -> None:
        """After a call in a lane: run what it has made possible."""
        self._thread.counted = False
        self._run_ready()

    def perform(self, work: Work, *, on_event_loop: bool) -> Coroutine[Any, Any, Outcome]:
        """What becomes of work; a coroutine only so that calls on an event loop can be awaited."""
        if on_event_loop:
            self._thread.on_event_loop = True  # for good: the thread is the loop's
        self._thread.counted = True
        return self._perform(work, on_event_loop=on_event_loop)

    async def _perform(self, work: Work, *, on_event_loop: bool) -> Outcome:
        actor, before = work.actor, context.current()
        actor_id = b"" if actor is None else actor.actor_id
        context.enter(TaskContext(work.task_id, work.name, actor_id, releases_cpu=actor is None))
        outcome = Outcome()
        try:
            args, kwargs = self._arguments(work)
            function = self._function(work, outcome)
            outcome.ran = True
            result = function(*args, **kwargs)
            if on_event_loop and inspect.isawaitable(result):
                result = await result
            if work.actor is None or work.is_call:
                outcome.results = [self.objects.owned(part) for part in _parts(result, len(work.returns))]
            else:
                outcome.instance = result
        except BaseException as error:  # noqa: BLE001  whatever user code raises is the work's result
            outcome.error = error
        finally:
            context.enter(before)
        if os.getpid() != self._pid:
            _end_fork(outcome.error)
        return outcome

    def _function(self, work: Work, outcome: Outcome) -> Callable[..., Any]:
        """What the work wants called."""
        actor = work.actor
        if work.is_call:
            assert actor is not None, "a call has an actor"
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
        return unpack(packed, [self._load(ref) for ref in work.slots])

    def _load(self, ref: ObjectRef) -> Any:
        """The Python value of a ref that is not pending; raises the error that it is instead."""
        value = self.objects.value(ref.binary())
        if value is None:
            raise ObjectLostError(
                f"{ref!r} was freed: every ref to it that this process knew of had gone"
                if ref.owner
                else f"{ref!r} was made by hand from an id: nobody knows its owner",
                object_ref_hex=ref.hex(),
            )
        result = self.objects.load(ref.binary(), value)
        if value.kind == FAILURE:
            assert isinstance(result, BaseException), "a FAILURE holds an exception"
            raise result
        return result

    def finished(self, work: Work, attempt: int, outcome: Outcome, *, counted: bool) -> None:
        """A run has come to its end. In any thread.

        Args:
          counted: it was counted in `_active`.
        """
        failure = None if outcome.error is None else self._failure(work, outcome)
        with self._changing():
            self._active -= counted
            if work.attempt != attempt or work.life.is_over:
                self._bury_remains(outcome.instance, outcome.lanes)
            elif failure is None:
                self._succeeded(work, outcome)
            else:
                self._failed(work, outcome, failure)
            if work.life.is_over and (work.actor is None or work is not work.actor.creation):
                work.refs.clear()
                work.slots.clear()
            self._condition.notify_all()

    def _failure(self, work: Work, outcome: Outcome) -> Serialized:
        assert outcome.error is not None, "the caller has checked"
        actor = work.actor.class_name if work.actor is not None and outcome.ran else None
        return serialize_failure(outcome.error, name=work.name, pid=self._pid, actor=actor, ran=outcome.ran)

    def _succeeded(self, work: Work, outcome: Outcome) -> None:
        actor = work.actor
        self._resolve(work, outcome.results)
        self._schedule.ended(work, work.attempt)
        if actor is not None:
            if not work.is_call:
                actor.instance, actor.lanes = outcome.instance, outcome.lanes
                self._schedule.created(actor)
            self._leave_if_done(actor)

    def _failed(self, work: Work, outcome: Outcome, failure: Serialized) -> None:
        """Its code raised, or its arguments could not be had, or it left by SystemExit, which ends a process."""
        actor, error = work.actor, outcome.error
        left = isinstance(error, SystemExit)
        if left and actor is not None:
            self._lost(actor, _ending(error))
            return
        cause = error.cause if isinstance(error, TaskError) else error
        if (left or (outcome.ran and isinstance(cause, work.retry_on))) and work.use_retry():
            self._schedule.again(work)
            return
        if left:
            why = f"{work.name}() did not finish: its worker ended with {_ending(error)}, and no retries are left"
            failure = serialize_error(WorkerCrashedError(why))
        if actor is None or work.is_call:
            self._resolve(work, [failure])
            self._schedule.ended(work, work.attempt)
            if actor is not None:
                self._leave_if_done(actor)
        else:
            # An argument's failure is told as it is, an error of ``__init__`` as the death that it is.
            self._bury_remains(None, outcome.lanes)
            self._bury(actor, _init_failed(actor, failure) if outcome.ran else failure)

    def _resolve(self, work: Work, results: list[Serialized]) -> None:
        """What it makes is there: each its own value, or one failure for all."""
        failed = len(results) == 1 and results[0].kind == FAILURE
        for index, object_id in enumerate(work.returns):
            self.objects.resolve(object_id, results[0] if failed else results[index])

    # ---- ends of actors, under `_changing`

    def _object_freed(self, object_id: bytes) -> None:
        """No ref is left: to an actor's handle, perhaps."""
        actor = self._guarded.pop(object_id, None)
        if actor is not None and not actor.detached:
            actor.leaving = True
            self._leave_if_done(actor)

    def _leave_if_done(self, actor: Actor) -> None:
        waits = actor.life.state == "PENDING" or not actor.under_way
        if actor.leaving and waits and not (actor.is_dead or actor.line):
            self._bury_because(actor, "its last handle went out of scope")

    def _lost(self, actor: Actor, cause: str) -> None:
        """What stands for its process has ended: restart it, or let it end."""
        creation = actor.creation
        if creation is None or not actor.may_restart:
            self._bury_because(actor, f"its process ended with {cause}")
            return
        why = f"{actor.description} is being restarted: its process ended with {cause}. This call may have run or not."
        failure = serialize_error(ActorUnavailableError(why, actor_id=actor.actor_id.hex()))
        creation = actor.creation = replace(creation, life=WORK.begin(), attempt=creation.attempt + 1)
        self._drop(actor)
        for work in self._schedule.restarted(actor, creation):
            self._resolve(work, [failure])
        actor.worker_id = ids.new_worker_id()
        actor.id_source = ids.IdSource(actor.worker_id, self._job)
        self._condition.notify_all()

    def _bury_because(self, actor: Actor, why: str) -> None:
        if actor.restarts:
            why += f", after {actor.restarts} restarts"
        hexed = actor.actor_id.hex()
        self._bury(actor, serialize_error(ActorDiedError(f"{actor.description} is dead: {why}", actor_id=hexed)))

    def _bury(self, actor: Actor, failure: Serialized) -> None:
        """It is dead, and so are all calls to it."""
        actor.failure = failure
        for work in self._schedule.died(actor):
            self._resolve(work, [failure])
        self._drop(actor)
        self._condition.notify_all()

    def _drop(self, actor: Actor) -> None:
        """What goes with a process: its state, the objects that it owns, the tasks that it waits for, its actors."""
        self._bury_remains(actor.instance, actor.lanes)
        actor.instance = actor.lanes = None
        for work in self._schedule.submitted_by(actor.worker_id):
            if work.life.state == "WAITING" and work.actor is None:
                self._schedule.failed(work)
        self.objects.lose(actor.worker_id, _owner_died)
        for child in self._schedule.created_by(actor.worker_id):
            if not child.is_dead:
                self._bury_because(child, "the process that created it has died")

    def _bury_remains(self, instance: Any, lanes: Lanes | None) -> None:
        """Drop an instance and its threads, soon."""
        self._graveyard.append((instance, lanes))

    # ---- waiting

    def _await(self, done: Callable[[], bool], timeout_s: float | None, missing: Callable[[], list[ObjectRef]]) -> bool:
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
        try:
            while True:
                self._run_ready()
                with self._changing():
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

    def _deliver(self) -> None:
        """Fulfil futures and drop dead actors: user code, which must not run while tables change."""
        while self._graveyard:
            _, lanes = self._graveyard.pop()
            if lanes is not None:
                lanes.start(DEFAULT, LastCall())
        while self._due:
            try:
                future, ref = self._due.popleft()
            except IndexError:
                return  # another thread has taken the last
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = self._load(ref)
            except BaseException as error:  # noqa: BLE001  whatever get() would raise belongs to the future
                future.set_exception(error)
            else:
                future.set_result(value)


class LaneCall:
    """One run of a piece of work: here and now, or in one of an actor's lanes (`concurrency.Call`)."""

    def __init__(self, engine: InlineEngine, work: Work) -> None:
        self._engine = engine
        self._work = work
        self.attempt = work.attempt

    def carry_out(self) -> Outcome:
        """Run it without an event loop."""
        try:
            self._engine.perform(self._work, on_event_loop=False).send(None)
        except StopIteration as over:
            outcome: Outcome = over.value
            return outcome
        raise RuntimeError(f"{self._work.name}() runs outside an event loop and has awaited something")

    def run(self) -> None:
        """In a thread of the actor."""
        self._end(self.carry_out())

    async def run_async(self) -> None:
        """On the actor's event loop."""
        self._end(await self._engine.perform(self._work, on_event_loop=True))

    def _end(self, outcome: Outcome) -> None:
        self._engine.finished(self._work, self.attempt, outcome, counted=True)
        self._engine.go_on()


class LastCall:
    """Ends the event loop of a dead actor. (Threads end by themselves when nobody can give them work any more.)"""

    def run(self) -> None: ...

    async def run_async(self) -> None:
        import asyncio  # only actors with coroutines come here

        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)


@dataclass(slots=True)
class Outcome:
    """What a run has come to: results, a new actor, or an error. `ran`: it had its arguments and was begun."""

    results: list[Serialized] = field(default_factory=list)
    instance: Any = None
    lanes: Lanes | None = None
    error: BaseException | None = None
    ran: bool = False


def _ending(error: BaseException | None) -> str:
    """How the process would have ended, in native's words."""
    assert isinstance(error, SystemExit), "nothing else ends a process here"
    return f"exit code {_exit_code(error) & 0xFF}"


def _exit_code(leaving: SystemExit) -> int:
    return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1


def _parts(result: Any, count: int) -> list[Serialized]:
    """What a piece of work returned, as `count` values."""
    if count == 1:
        return [values.serialize(result)]
    if count == 0:
        return []
    try:
        parts = list(result)
    except TypeError:
        raise ValueError(f"num_returns={count}, but the task returned one {type(result).__name__}") from None
    if len(parts) != count:
        raise ValueError(f"num_returns={count}, but the task returned {len(parts)} values")
    return [values.serialize(part) for part in parts]


def _init_failed(actor: Actor, failure: Serialized) -> Serialized:
    error = values.deserialize(failure.kind, failure.data, failure.buffers)
    assert isinstance(error, TaskError), "serialize_failure makes nothing else"
    died = ActorDiedError(
        f"{actor.description} is dead: its __init__ raised\n{error.traceback_str}",
        actor_id=actor.actor_id.hex(),
        actor_init_failed=True,
    )
    died.__cause__ = error.cause
    return serialize_error(died)


def _owner_died(object_id: bytes) -> Serialized:
    return serialize_error(
        OwnerDiedError(
            f"ObjectRef({object_id.hex()}) is lost: the actor that owned it "
            f"(worker {ids.creator_of(object_id).hex()}) has died",
            object_ref_hex=object_id.hex(),
        )
    )


def _weak(actor: Actor) -> ActorIdentity:
    """Of an actor that was looked up: nothing in it keeps the actor alive."""
    return ActorIdentity(actor.actor_id, actor.class_name, actor.methods, None)


def _end_fork(error: BaseException | None) -> NoReturn:
    """End a process that user code has forked and that has come back here: what follows is its parent's program.

    Its exit code is what it would have been in a script of its own.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = _exit_code(error)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
