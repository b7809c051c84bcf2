"""The tables of an inline session, and how they change when work is submitted, when a run ends, when an actor dies.

    submit, create, call --enter--> Schedule
    a run ends           --over---> objects resolved (results.py), work retried, the actor idle, restarted or buried
    last ref to a handle --freed--> the actor leaves when it has nothing left to do

An actor stands for the process that native would give it: it owns what it makes, so its objects are lost, its tasks
dropped and its actors buried with it. Tasks count as the driver in this, for native keeps the worker of a task as long
as something is needed that it owns.

Invariants: called by one thread at a time, with SIGINT held back (turns.py sees to it). No user code runs here: dead
actors' instances and threads go to `graveyard`, for others to drop.
"""

from __future__ import annotations

import os
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from ... import ids
from ...errors import ShoalError, TaskError
from ...node.stock import Infeasible
from ...options import ActorOptions
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from ...resources import ResourceSet
from ...runtime import context
from ...runtime.arguments import Packed
from ...runtime.concurrency import Lanes
from ...runtime.special_methods import ActorExit
from ...scheduling import bundles
from ...serialization.failures import serialize_error, serialize_failure
from ...serialization.functions import ExportedFunction
from ...serialization.values import FAILURE, Serialized
from ..base import Returns
from . import causes
from .groups import InlineGroups, new_spec, removed
from .objects import InlineObjects
from .results import Results, owned_ref
from .runs import Outcome
from .streams import WaitForRefs
from .work import WORK, Actor, Schedule, Work


class InlineSession:
    """Work, actors and objects."""

    def __init__(
        self,
        total: Mapping[str, int],
        *,
        job_id: bytes,
        store_bytes: int,
        inline_bytes: int,
        report_unhandled: bool,
        wait: WaitForRefs,
        settled: Callable[[ObjectRef], Future[Any]],
        gpus: Sequence[str] = (),
    ) -> None:
        """
        Args:
          total: resources, in 1/10_000.
          gpus: ids of the GPUs among them.
          store_bytes: room for values above `inline_bytes`, together.
          report_unhandled: log the exceptions of work whose refs go before anybody has asked for them.
          wait, settled: for the consumers of generators.
        """
        self.me = ids.new_worker_id()
        self.job_id = ids.JobID(job_id)
        self.schedule = Schedule(ResourceSet(total), gpus)
        self.objects = InlineObjects(
            self.me,
            store_bytes=store_bytes,
            inline_bytes=inline_bytes,
            on_free=self._freed,
            report_unhandled=report_unhandled,
        )
        self._results = Results(self.objects, wait=wait, settled=settled)
        #: Calls under way that have been told of their cancellation.
        self.told: set[bytes] = set()
        self.groups = InlineGroups(self.schedule, self.objects)
        self.schedule.reason_in_group = self.groups.shortage
        self.graveyard: list[tuple[Any, Lanes | None]] = []
        self._ids = ids.IdSource(self.me, self.job_id)
        self._pid = os.getpid()
        #: The actor that lives as long as refs to an object do.
        self._guarded: dict[bytes, Actor] = {}

    # ---- objects

    def put(self, value: Serialized) -> ObjectRef:
        """Raises ObjectStoreFullError."""
        source = self._id_source()
        value = self.objects.owned(value)
        object_id = ids.object_id(source.task(), 0)
        self.objects.expect(object_id)
        self.objects.resolve(object_id, value)
        return owned_ref(object_id)

    # ---- submitting; each returns at once, with new work in the schedule

    def submit(
        self,
        name: str,
        function: ExportedFunction,
        packed: Packed,
        *,
        num_returns: int,
        demand: ResourceSet,
        retries: int,
        retry_on: tuple[type[BaseException], ...],
        environment: bytes,
        captures: bool = False,
        refused: str = "",
    ) -> Returns:
        """A task; one that no resources will ever suffice for has failed already, and so has one that no node suits."""
        work = self._work(name, function, packed)
        work.demand, work.retries, work.retry_on, work.environment = demand, retries, retry_on, environment
        work.captures = captures
        made = self._results.expected(work, num_returns)
        gone = self.groups.is_gone(demand.parts())
        why = refused or self._lacking(demand)
        if gone:
            self._results.resolve(work, [removed(gone)])
        elif why:
            self._results.resolve(work, [causes.never_runs(name, why)])
        else:
            self._enter(work)
        return made

    def _lacking(self, demand: ResourceSet) -> str:
        """Why a demand can never be met; empty if it can."""
        try:
            self.schedule.stock.check(demand.parts())
        except Infeasible as why:
            return str(why)
        return ""

    def create_actor(
        self,
        function: ExportedFunction,
        methods: Mapping[str, WireMethod],
        packed: Packed,
        namespace: str,
        options: ActorOptions,
        environment: bytes,
        refused: str = "",
    ) -> tuple[Actor, ObjectRef]:
        """An actor, and the ref that stands for its life; its name, if any, is free."""
        creator = self._id_source()
        actor_id, worker_id = creator.actor(), ids.new_worker_id()
        actor = Actor(
            actor_id,
            worker_id,
            ids.creator_of(actor_id),
            function.name,
            dict(methods),
            options.name or "",
            namespace,
            options,
            ids.IdSource(worker_id, self.job_id),
        )
        work = self._work(f"{actor.class_name}.__init__", function, packed)
        work.actor, work.demand = actor, ResourceSet(options.required)
        work.environment = actor.environment = environment
        if options.max_restarts:
            actor.creation = work
        self.schedule.add(actor)
        handle_id = ids.object_id(creator.task(), 0)
        self.objects.expect(handle_id)
        self._guarded[handle_id] = actor
        why = refused or self._lacking(ResourceSet(options.placement)) or self._lacking(work.demand)
        if self.groups.is_gone(options.required):
            self._bury(actor, causes.group_gone(actor))
        elif why:
            self._bury(actor, causes.never_placed(actor, why))
        else:
            self._enter(work)
        return actor, owned_ref(handle_id)

    def call(
        self, actor_id: bytes, class_name: str, method: str, packed: Packed, how: WireMethod, handle: ObjectRef | None
    ) -> Returns:
        """A call; one to a dead or unknown actor has failed already. `handle` lives until the answer."""
        num_returns, retries, retry_exceptions, group, _ = how  # nobody is ahead of a consumer here
        work = self._work(f"{class_name}.{method}", None, packed)
        work.method, work.group = method, group
        work.retries, work.retry_on = retries, (Exception,) if retry_exceptions else ()
        if handle is not None:
            work.refs.append(handle)
        made = self._results.expected(work, num_returns)
        actor = work.actor = self.schedule.actors.get(actor_id)
        work.environment = b"" if actor is None else actor.environment
        if actor is None:
            self._results.resolve(work, [causes.unknown_actor(actor_id)])
        elif actor.failure is not None:
            self._results.resolve(work, [actor.failure])
        else:
            self._enter(work)
        return made

    # ---- placement groups

    def create_group(
        self, bundles_wanted: Sequence[Mapping[str, int]], *, strategy: str, name: str, namespace: str, detached: bool
    ) -> ids.PlacementGroupID | None:
        """A new group; None when its name is taken."""
        task = context.current()
        creator = self.schedule.actors.get(task.actor_id) if task is not None else None
        holder = creator.actor_id if creator is not None and creator.detached and not detached else b""
        group_id = self._id_source().group()
        spec = new_spec(group_id, bundles_wanted, strategy=strategy, name=name, namespace=namespace, detached=detached)
        return group_id if self.groups.create(spec, holder=holder) else None

    def group_ready(self, group_id: bytes, value: Serialized) -> ObjectRef:
        """A ref to `value`, there when the group is."""
        object_id = ids.object_id(self._id_source().task(), 0)
        self.objects.expect(object_id)
        self.groups.ready(group_id, object_id, value)
        return owned_ref(object_id)

    def remove_group(self, group_id: bytes) -> None:
        """End a group and what is inside."""
        if not self.groups.remove(group_id):
            return
        group = group_id.hex()
        for work in self.schedule.unfinished():
            if work.actor is None and bundles.group_of(work.demand.parts()) == group:
                self._results.resolve(work, [removed(group)])
                self.schedule.failed(work)
        for actor in self.schedule.living():
            if bundles.group_of(actor.options.required) == group:
                self._bury(actor, causes.group_gone(actor))
        self.schedule.resources_freed()
        self.groups.settle()

    def _id_source(self) -> ids.IdSource:
        """Of what makes things now: an actor, or the driver."""
        task = context.current()
        actor = self.schedule.actors.get(task.actor_id) if task is not None else None
        return self._ids if actor is None else actor.id_source

    def _work(self, name: str, function: ExportedFunction | None, packed: Packed) -> Work:
        task_id = self._id_source().task()
        arguments = None if packed.serialized is None else self.objects.owned(packed.serialized)
        slots = packed.refs[: len(packed.dependencies)]
        return Work(task_id, name, ids.creator_of(task_id), function, arguments, slots, list(packed.refs), [])

    def _enter(self, work: Work) -> None:
        def arrived() -> None:
            self.schedule.argument_ready(work)

        work.missing = sum(self.objects.watch(ref.binary(), arrived) for ref in work.slots)
        self.schedule.enter(work)

    # ---- ends of runs

    def over(self, work: Work, attempt: int, outcome: Outcome, failure: Serialized | None) -> None:
        """A run has ended, `failure` is its error as bytes. What a run that was given up has come to is dropped."""
        if failure is None and work.task_id in self.told:
            failure = causes.cancelled_while_it_ran(work, self._pid)  # what it returned then is of no use
        if work.attempt != attempt or work.life.is_over:
            self._bury_remains(outcome.instance, outcome.lanes)
        elif failure is None:
            self._succeeded(work, outcome)
        else:
            self._failed(work, outcome, failure)
        self.told.discard(work.task_id)
        if work.life.is_over and (work.actor is None or work is not work.actor.creation):
            work.refs.clear()
            work.slots.clear()

    def failure_of(self, work: Work, outcome: Outcome) -> Serialized | None:
        """The error of a run as bytes. Runs code of its class; changes nothing."""
        if outcome.error is None:
            return None
        if isinstance(outcome.error, (KeyboardInterrupt, CancelledError)) and (work.actor is None or work.is_call):
            return causes.cancelled_while_it_ran(work, self._pid)
        actor = work.actor.class_name if work.actor is not None and outcome.ran else None
        return serialize_failure(outcome.error, name=work.name, pid=self._pid, actor=actor, ran=outcome.ran)

    def _succeeded(self, work: Work, outcome: Outcome) -> None:
        actor = work.actor
        if work.num_returns < 0:
            self._results.resolve_items(work, outcome.items, None)
        else:
            self._results.resolve(work, outcome.results)
        self.schedule.ended(work)
        if actor is not None:
            if not work.is_call:
                actor.instance, actor.lanes = outcome.instance, outcome.lanes
                self.schedule.created(actor)
            self._leave_if_done(actor)

    def _failed(self, work: Work, outcome: Outcome, failure: Serialized) -> None:
        """Its code raised, or its arguments could not be had, or it left by SystemExit, which ends a process."""
        actor, error, left = work.actor, outcome.error, bool(outcome.ending)
        if isinstance(error, ActorExit) and actor is not None:
            self._bury_remains(None, outcome.lanes)
            self._bury_because(actor, "it left by exit_actor()")
            return
        if left and actor is not None:
            self._bury_remains(None, outcome.lanes)
            self.lose(actor, outcome.ending)
            return
        cause = error.cause if isinstance(error, TaskError) else error
        if (left or (outcome.ran and isinstance(cause, work.retry_on))) and work.use_retry():
            self.schedule.again(work)
            return
        if left:
            failure = causes.process_ended(work, outcome.ending)
        if actor is None or work.is_call:
            if work.num_returns < 0:
                self._results.resolve_items(work, outcome.items, failure)
            else:
                self._results.resolve(work, [failure])
            self.schedule.ended(work)
            if actor is not None:
                self._leave_if_done(actor)
        else:
            self._bury_remains(None, outcome.lanes)
            self._bury(actor, causes.stillborn(actor, failure, ran=outcome.ran))

    def cancel(self, object_id: bytes, *, force: bool) -> None:
        """Cancel the work that makes an object, if it has not begun; tell it otherwise, if it is a call.

        Raises:
          ValueError: `force` on a call.
        """
        work = self.schedule.maker(object_id)
        if work is None:
            return
        if force and work.is_call:
            raise ValueError(
                f"{work.name}() is a call of an actor, which force=True would end: "
                "cancel it without force, or kill() the actor"
            )
        if work.life.state == "WAITING":
            self.cancelled(work)
        elif work.is_call and work.actor is not None:
            self.told.add(work.task_id)
            if work.actor.lanes is not None:
                work.actor.lanes.cancel(work.task_id)

    def cancelled(self, work: Work) -> None:
        """It ends before it has begun."""
        self.schedule.cancel(work)
        self._results.resolve(work, [causes.cancelled_before(work)])

    # ---- ends of actors

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        """End an actor at once, unless it is dead; to be restarted, it must be there."""
        if actor.is_dead:
            return
        if no_restart:
            self._bury_because(actor, "it was killed by kill()")
        elif actor.life.state != "PENDING":
            self.lose(actor, "kill(no_restart=False)")

    def lose(self, actor: Actor, cause: str) -> None:
        """What stands for its process has ended: restart it, or let it end."""
        creation = actor.creation
        if creation is None or not actor.may_restart:
            self._bury_because(actor, f"its process ended with {cause}")
            return
        failure = causes.being_restarted(actor, cause)
        creation = actor.creation = replace(creation, life=WORK.begin(), attempt=creation.attempt + 1)
        self._drop(actor)
        for work in self.schedule.restarted(actor, creation):
            self._results.resolve(work, [failure])
        actor.worker_id = ids.new_worker_id()
        actor.id_source = ids.IdSource(actor.worker_id, self.job_id)

    def close(self, error: ShoalError) -> None:
        """The session ends: everything that waits fails with `error`, every actor is dropped."""
        for object_id in self.objects.pending():
            self.objects.resolve(object_id, serialize_error(error))
        for actor in self.schedule.living():
            self._bury_remains(actor.instance, actor.lanes)
            actor.instance = actor.lanes = None

    def reason(self, ref: ObjectRef) -> str:
        """What a ref is waiting for, in words: the deepest reason of its chain."""
        value = self.objects.value(ref.binary())
        if value is not None:
            return f"{ref!r} is there" + (": it is an error, which get raises" if value.kind == FAILURE else "")
        if ref.binary() not in self.objects:
            return f"{ref!r} was freed, or made by hand from an id: get raises"
        work = self.schedule.maker(ref.binary())
        ready = self.groups.reason(ref.binary())
        if ready:
            return f"{ref!r} {ready}"
        if work is None:
            return f"{ref!r} stands for an actor and has no value"
        argument = next((slot for slot in work.slots if self.objects.value(slot.binary()) is None), None)
        if work.life.state == "WAITING" and argument is not None:
            return f"{work.name}() waits for its argument {argument!r}; {self.reason(argument)}"
        return f"{work.name}() {self.schedule.reason(work)}"

    def is_handle(self, object_id: bytes) -> bool:
        """Whether an object stands for an actor."""
        return object_id in self._guarded

    def _freed(self, object_id: bytes) -> None:
        """No ref is left: to an actor's handle, perhaps."""
        actor = self._guarded.pop(object_id, None)
        if actor is not None and not actor.detached:
            actor.leaving = True
            self._leave_if_done(actor)

    def _leave_if_done(self, actor: Actor) -> None:
        waits = actor.life.state == "PENDING" or not actor.under_way
        if actor.leaving and waits and not (actor.is_dead or actor.line):
            self._bury_because(actor, "its last handle went out of scope")

    def _bury_because(self, actor: Actor, why: str) -> None:
        self._bury(actor, causes.dead(actor, why))

    def _bury(self, actor: Actor, failure: Serialized) -> None:
        """It is dead, and so are all calls to it."""
        actor.failure = failure
        for work in self.schedule.died(actor):
            self._results.resolve(work, [failure])
        self._drop(actor)
        for group_id in self.groups.held_by(actor.actor_id):
            self.remove_group(group_id)
        self.groups.settle()

    def _drop(self, actor: Actor) -> None:
        """What goes with a process: its state, the objects that it owns, the tasks that it waits for, its actors."""
        self._bury_remains(actor.instance, actor.lanes)
        actor.instance = actor.lanes = None
        for work in self.schedule.submitted_by(actor.worker_id):
            if work.life.state == "WAITING" and work.actor is None:
                self.schedule.failed(work)
        self.objects.lose(actor.worker_id, causes.owner_died)
        for child in self.schedule.created_by(actor.worker_id):
            if not child.is_dead:
                self._bury_because(child, "the process that created it has died")

    def _bury_remains(self, instance: Any, lanes: Lanes | None) -> None:
        if instance is not None or lanes is not None:
            self.graveyard.append((instance, lanes))
