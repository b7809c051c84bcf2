"""The owner's side of tasks and actors: from ``.remote()`` to the result, and all that can go wrong in between.

    .remote(), in any thread   pack arguments, make refs, post
    driver                     count refs, wait for arguments
                               -> queue by shape (leasing.py), or line to the actor (calls.py)
                               -> RunTask / CallMethod / CreateActor
                               -> TaskDone: objects resolved, arguments let go
    failures                   an argument failed: the task fails without running, with that failure as its reason
                               the worker died: run again while retries last, else WorkerCrashedError
                               the actor died: its calls fail with ActorDiedError, or are sent again when it restarts
                               no machine could ever run it: TaskUnschedulableError; its placement group is
                               gone: TaskPlacementGroupRemoved

Not here: who runs what where (leasing.py, node), which refs live (holdings.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import ids
from ..config import CoreConfig
from ..errors import (
    ActorDiedError,
    RuntimeEnvSetupError,
    ShoalError,
    TaskError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ..generators import ObjectRefGenerator
from ..options import DYNAMIC, STREAMING
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, Value, WireRef, take_value
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.failures import serialize_failure
from ..serialization.values import FAILURE
from ..transport.loop import Loop
from . import context
from .arguments import Packed
from .calls import ActorLine
from .cancelling import Cancellation
from .history import History
from .holdings import Holdings, failure_value
from .leasing import Leasing
from .outcomes import stillborn
from .pending_calls import PendingCalls
from .streams import ReturnStream, WaitForRefs
from .tasks import Submission

#: Ray's words for why a task could not be run.
_WORDS: Mapping[type[ShoalError], str] = {
    TaskPlacementGroupRemoved: "TASK_PLACEMENT_GROUP_REMOVED",
    TaskUnschedulableError: "TASK_UNSCHEDULABLE_ERROR",
    RuntimeEnvSetupError: "RUNTIME_ENV_SETUP_FAILED",
    WorkerCrashedError: "WORKER_DIED",
}


#: What a generator that has ended returns.
_NONE = Value((_none := values.serialize(None)).kind, _none.data, [], [])


class Submitter:
    """Tasks and actor calls of one process."""

    def __init__(
        self,
        me: bytes,
        loop: Loop,
        holdings: Holdings,
        history: History,
        id_source: ids.IdSource,
        *,
        head: bytes,
        config: CoreConfig,
        wait: WaitForRefs,
    ) -> None:
        """
        Args:
          wait: wait for refs, in any thread.
        """
        self._me = me
        self._loop = loop
        self._holdings = holdings
        self._history = history
        self._ids = id_source
        self._head = head
        self._wait = wait
        self._pending_calls = PendingCalls()
        self._leasing = Leasing(
            pipeline_s=config.pipeline_s,
            pipeline_tasks=config.pipeline_tasks,
            lease_idle_s=config.lease_idle_s,
            push=lambda worker, submission: loop.send(worker, submission.message),
            demand=self._demand,
            give_back=lambda worker, retired: loop.send(head, m.ReturnLease(worker, retired)),
            look_later=lambda worker, delay_s: loop.after(delay_s, lambda: self._look_at(worker)),
        )
        self._unsettled = False
        #: Tasks whose arguments are not there (calls stand in their line), by their own identity.
        self._unready: dict[int, Submission] = {}
        self._lines: dict[bytes, ActorLine] = {}
        #: Creations whose ``__init__`` has not returned: they hold its arguments.
        self._creations: dict[bytes, Submission] = {}
        #: Actor that lives in a worker we have called.
        self._lived_in: dict[bytes, bytes] = {}
        #: Tasks and calls that have not come to an end.
        self.submissions: dict[bytes, Submission] = {}
        self.cancellation = Cancellation(
            me,
            loop,
            submissions=self.submissions,
            leasing=self._leasing,
            lines=self._lines,
            fail=lambda submission, error: self._fail(submission, failure_value(error), "TASK_CANCELLED"),
            send_calls=self._send_calls,
            head=head,
            patience_s=config.force_patience_s,
        )
        loop.before_flush(self._settle)
        loop.on(m.LeaseGranted, self._on_lease_granted)
        loop.on(m.LeaseRefused, self._on_lease_refused)
        loop.on(m.TaskDone, self._on_task_done)
        loop.on(m.TasksReturned, self._on_tasks_returned)
        loop.on(m.WorkerRetires, lambda peer, message: self._leasing.retires(peer))
        loop.on(m.TaskYielded, self._on_task_yielded)
        loop.on(m.ActorUpdate, self._on_actor_update)

    # ---- any thread

    def shape(
        self, resources: Mapping[str, int], environment: bytes, *, captures: bool = False, refused: str = ""
    ) -> int:
        """This process's number for tasks that need these resources and workers started with this; `Leasing.key`."""
        return self._leasing.key(resources, environment, captures=captures, refused=refused)

    def submit_task(
        self,
        function: bytes,
        name: str,
        packed: Packed,
        *,
        num_returns: int,
        shape: int,
        retries: int,
        retry_on: tuple[type[BaseException], ...] = (),
        backpressure: int = -1,
        max_calls: int = 0,
    ) -> list[ObjectRef] | ObjectRefGenerator:
        """Run an exported function somewhere.

        Raises:
          ObjectStoreFullError: large arguments do not fit into shared memory.
        """
        wire, holder, buffers, uses = self._place(packed)
        task_id = self._ids.task()
        message = m.RunTask(task_id, function, name, wire, holder, [], num_returns, backpressure, max_calls, buffers)
        submission = Submission(
            message,
            name,
            [],
            packed.dependencies,
            uses,
            retries=retries,
            retry_on=retry_on,
            shape=shape,
            parent=_parent(),
        )
        refs = self._make_returns(submission, task_id, num_returns)
        self.submissions[task_id] = submission
        self._loop.submit(self._begin, (submission, self._leasing.enqueue, packed.refs))
        return refs

    def call(
        self,
        actor_id: bytes,
        name: str,
        method: str,
        packed: Packed,
        *,
        num_returns: int,
        handle: ObjectRef | None,
        group: str,
        retries: int,
        retry_on: tuple[type[BaseException], ...] = (),
        backpressure: int = -1,
        limit: int = -1,
    ) -> list[ObjectRef] | ObjectRefGenerator:
        """Call a method of an actor. `handle` is kept until the answer: the actor lives at least that long.

        Raises:
          PendingCallsLimitExceeded: `limit` calls of this process to the actor are under way.
        """
        if limit > 0:
            self._pending_calls.up(actor_id, limit, name)
        wire, holder, buffers, uses = self._place(packed)
        if handle is not None:
            uses.append((handle.binary(), handle.owner))
        task_id = self._ids.task()
        message = m.CallMethod(task_id, actor_id, method, group, wire, holder, [], num_returns, backpressure, buffers)
        submission = Submission(
            message,
            name,
            [],
            packed.dependencies,
            uses,
            retries=retries,
            retry_on=retry_on,
            parent=_parent(),
            limited=limit > 0,
        )
        refs = self._make_returns(submission, task_id, num_returns)
        self.submissions[task_id] = submission
        self._loop.submit(self._begin, (submission, self._enqueue_call, (packed.refs, handle)))
        return refs

    def create_actor(self, message: m.CreateActor, packed: Packed, *, detached: bool) -> ObjectRef:
        """Create the actor that `message` describes; its argument fields are filled here.

        Returns:
          The ref that stands for the actor: when it and all its copies are gone, the actor may leave (unless detached).
        """
        message.arguments, message.arguments_object, message.buffers, uses = self._place(packed)
        handle_id = ids.object_id(self._ids.task(), 0)
        self._holdings.references.created(handle_id)
        self._holdings.objects.expect(handle_id)
        submission = Submission(message, f"{message.class_name}.__init__", [], packed.dependencies, uses)
        actor_id = message.actor_id

        def last_handle_gone() -> None:
            self._loop.send(self._head, m.ActorOutOfScope(actor_id))

        if not detached:
            self._holdings.guarded[handle_id] = last_handle_gone
        line = self._lines[actor_id] = ActorLine()
        line.state = "PENDING"
        self._creations[actor_id] = submission
        self._loop.submit(self._begin, (submission, self._send_creation, packed.refs))
        return ObjectRef(handle_id, self._me)

    def kill(self, actor_id: bytes, class_name: str, *, no_restart: bool) -> None:
        """End an actor's process. With `no_restart` the actor is dead for this process from here on: no later call can
        slip through before the kill arrives.
        """
        failure = None
        if no_restart:
            hexed = actor_id.hex()
            why = f"{class_name} (actor {hexed}) is dead: it was killed by kill()"
            failure = failure_value(ActorDiedError(why, actor_id=hexed))
        self._loop.submit(self._kill, (actor_id, failure))

    def _place(self, packed: Packed) -> tuple[Any, bytes, list[Any], list[WireRef]]:
        """Arguments for the wire: inline, or as an object of their own in shared memory.

        Returns:
          wire value, id of the object that holds them or empty, buffers, (id, owner) of all refs that must live until
          the end.
        """
        uses = [(ref.binary(), ref.owner) for ref in packed.refs]
        if packed.serialized is None:
            return NO_VALUE, b"", [], uses
        value = self._holdings.keep(packed.serialized, self._me)
        holder = b""
        if value.stored:
            holder = ids.object_id(self._ids.task(), 0)
            self._holdings.references.created(holder, local=0)
            self._holdings.objects.expect(holder, value)
            uses.append((holder, self._me))
        buffers: list[Any] = []
        return value.wire(buffers), holder, buffers, uses

    def _make_returns(
        self, submission: Submission, task_id: ids.TaskID, count: int
    ) -> list[ObjectRef] | ObjectRefGenerator:
        if count < 0:
            return self._make_stream(submission, task_id, count)
        references, objects, me = self._holdings.references, self._holdings.objects, self._me
        refs: list[ObjectRef] = []
        for index in range(count):
            object_id = ids.object_id(task_id, index)
            references.created(object_id)
            objects.expect(object_id)
            submission.returns.append(object_id)
            refs.append(ObjectRef(object_id, me))
        return refs

    def _make_stream(
        self, submission: Submission, task_id: ids.TaskID, kind: int
    ) -> list[ObjectRef] | ObjectRefGenerator:
        message = submission.message
        assert not isinstance(message, m.CreateActor)
        stream = submission.stream = ReturnStream(
            self._me,
            task_id,
            self._holdings,
            name=submission.name,
            wait=self._wait,
            post=self._loop.submit,
            tell_taken=self._tell_taken,
            backpressure=message.backpressure,
        )
        submission.returns.append(stream.completion.binary())
        if kind == STREAMING:
            return ObjectRefGenerator(stream)
        return [stream.completion]

    # ---- in the driver: arguments

    def _begin(self, entry: tuple[Submission, Callable[[Submission], None], Any]) -> None:
        """Count the refs that travel along, wait for arguments, then hand the submission on."""
        submission, enqueue, _refs_alive_until_counted = entry
        for object_id, owner in submission.uses:
            self._holdings.references.use(object_id, owner)
        is_call = type(submission.message) is m.CallMethod
        if submission.dependencies:
            # One more than there are: a lost argument is told at once, and must not complete the count too early.
            submission.missing = 1 + len(submission.dependencies)
            if is_call:
                enqueue(submission)  # it takes its place in line now, so that later calls stay behind it
            elif not submission.is_creation:
                self._unready[id(submission)] = submission
            for object_id, owner in submission.dependencies:
                self._holdings.watch(object_id, owner, lambda _: self._argument_ready(submission, enqueue))
            self._argument_ready(submission, enqueue)
        else:
            enqueue(submission)

    def _argument_ready(self, submission: Submission, enqueue: Callable[[Submission], None]) -> None:
        if submission.failed:
            return
        submission.missing -= 1
        if submission.missing:
            return
        self._unready.pop(id(submission), None)
        self._fill(submission)
        message = submission.message
        if type(message) is m.CallMethod:
            self._send_calls(message.actor_id)
        elif not submission.failed:
            enqueue(submission)

    def _fill(self, submission: Submission) -> None:
        """Put the arguments' values into the message; a failed one ends the submission here."""
        message = submission.message
        for object_id, owner in submission.dependencies:
            value = self._holdings.objects.value(object_id)
            assert value is not None, "missing has counted down to 0"
            if value.kind == FAILURE:
                value.seen = True
                error = values.deserialize(FAILURE, value.payload, value.buffers)  # type: ignore[arg-type]
                assert isinstance(error, BaseException), "a FAILURE holds an exception"
                serialized = serialize_failure(error, name=submission.name, pid=os.getpid())
                submission.failed = True
                failure = Value(FAILURE, serialized.data, list(serialized.buffers), [])
                if type(message) is m.CreateActor:
                    self._loop.send(self._head, m.KillActor(message.actor_id, True))  # it may have a name there
                    description = f"{message.class_name} (actor {message.actor_id.hex()})"
                    error = values.deserialize(FAILURE, failure.payload, failure.buffers)  # type: ignore[arg-type]
                    died = stillborn(description, message.actor_id, error, ran=False)  # type: ignore[arg-type]
                    self._actor_failed(message.actor_id, failure_value(died))
                else:
                    self._note(submission, "TASK_EXECUTION_EXCEPTION", f"an argument failed: {type(error).__name__}")
                    self._finish(submission, [failure], failed=True)
                return
            message.slots.append((object_id, owner, value.wire(message.buffers)))

    # ---- in the driver: tasks

    def _settle(self) -> None:
        if self._leasing.waiting or self._unsettled:
            self._unsettled = False
            self._leasing.settle()

    def _demand(self, key: int, shape: Mapping[str, int], wanted: int) -> None:
        queue = self._leasing.queue(key)
        if not queue.refused:
            self._loop.send(self._head, m.DemandLeases(key, dict(shape), wanted, queue.environment))
        elif wanted:
            # Posted: we are in the middle of looking at the queues.
            refusal = m.LeaseRefused(key, queue.refused, False, False)
            self._loop.post(lambda _: self._on_lease_refused(b"", refusal), None)

    def _on_lease_granted(self, peer: bytes, message: m.LeaseGranted) -> None:
        queue = self._leasing.queue(message.key)
        self._loop.send(message.worker_id, m.Equip(dict(queue.shape), message.gpus, queue.captures))
        self._leasing.granted(message.key, message.worker_id, time.monotonic())

    def _on_lease_refused(self, peer: bytes, message: m.LeaseRefused) -> None:
        for submission in self._leasing.refused(message.key, removed=message.removed):
            error: ShoalError
            if message.removed:
                error = TaskPlacementGroupRemoved(f"{submission.name}() was not finished: {message.reason}")
            elif not message.failed_starts:
                error = TaskUnschedulableError(f"{submission.name}() can never run: {message.reason}")
            elif self._leasing.environment(message.key):
                error = RuntimeEnvSetupError(f"{submission.name}() cannot run with its runtime_env: {message.reason}")
            else:
                error = WorkerCrashedError(f"{submission.name}() has not run: {message.reason}")
            self._fail(submission, failure_value(error), _WORDS[type(error)])

    def _on_tasks_returned(self, peer: bytes, message: m.TasksReturned) -> None:
        self._leasing.returned(peer, list(message.task_ids))
        for task_id in message.task_ids:
            submission = self.submissions.get(task_id)
            if submission is not None:
                self.cancellation.returned(submission)
        self._unsettled = True

    def _look_at(self, worker_id: bytes) -> None:
        self._leasing.idle_check(worker_id, time.monotonic())

    def _on_task_done(self, peer: bytes, message: m.TaskDone) -> None:
        submission = self._leasing.done(peer, message.task_id, message.duration_us / 1e6, time.monotonic())
        if submission is None:
            submission = self._call_done(peer, message.task_id)
        else:
            self._unsettled = True
        frames = message.buffers
        results = [take_value(wire, frames, list(contained)) for wire, contained in message.results]
        for object_id in message.borrows:
            self._holdings.references.borrowed(object_id, peer)
        if submission is None:
            # Nobody waits for it any more: it was given up when its worker was thought dead.
            self._drop(results)
            return
        if message.failed and submission.retry_on and submission.retries and self._may_retry(submission, results[0]):
            submission.retries -= 1 if submission.retries > 0 else 0  # -1: for ever
            self._drop(results)
            self._run_again(submission)
            return
        stream = submission.stream
        if message.failed and stream is not None and submission.message.num_returns == STREAMING:  # type: ignore[union-attr]
            stream.failed(results[0])  # its exception is an item; it has come to its end all the same
            self._finish(submission, [_NONE], failed=False)
            return
        self._finish(submission, results, failed=message.failed)

    def _on_task_yielded(self, peer: bytes, message: m.TaskYielded) -> None:
        value = take_value(message.value, message.buffers, list(message.contained))
        for object_id in message.borrows:
            self._holdings.references.borrowed(object_id, peer)
        submission = self.submissions.get(message.task_id)
        wanted = (
            submission is not None and submission.stream is not None and submission.stream.arrived(message.index, value)
        )
        if not wanted:
            self._drop([value])

    def _tell_taken(self, task_id: bytes, count: int) -> None:
        """How many items of a generator its consumer has taken."""
        submission = self.submissions.get(task_id)
        if submission is None:
            return
        message = submission.message
        if isinstance(message, m.CallMethod):
            worker_id = self._lines[message.actor_id].worker_id
        else:
            worker_id = self._leasing.worker_of(submission)
        if worker_id:
            self._loop.send(worker_id, m.ItemsTaken(task_id, count))

    def _drop(self, results: list[Value]) -> None:
        """Results that nobody will see: their memory, and the borrows that were made for us of the refs inside."""
        for value in results:
            self._holdings.free_place(value)
            self._holdings.references.contain(b"", value.contained, credit=True)

    def _may_retry(self, submission: Submission, failure: Value) -> bool:
        error = values.deserialize(failure.kind, failure.payload, failure.buffers)  # type: ignore[arg-type]
        cause = error.cause if isinstance(error, TaskError) else None
        return isinstance(cause, submission.retry_on)

    def _run_again(self, submission: Submission) -> None:
        message = submission.message
        if submission.stream is not None:
            submission.stream.again()
        if isinstance(message, m.CallMethod):
            self._lines[message.actor_id].again(submission)
            self._send_calls(message.actor_id)
        else:
            self._leasing.requeue(submission)

    def _finish(self, submission: Submission, results: list[Value], *, failed: bool) -> None:
        """Resolve what it returns, let go of what it used."""
        self.submissions.pop(submission.task_id, None)
        if submission.dependencies:
            self._unready.pop(id(submission), None)
        if submission.limited:
            self._pending_calls.down(submission.message.actor_id)  # type: ignore[union-attr]
        stream = submission.stream
        if stream is not None and submission.message.num_returns == DYNAMIC:  # type: ignore[union-attr]
            stream.gathered(results[0] if failed else None)
        else:
            for index, object_id in enumerate(submission.returns):
                # The refs in a failure are registered for us once, not for each return.
                value = results[0] if failed else results[index]
                self._holdings.resolve(object_id, value, credit=not (failed and index))
            if stream is not None and failed:
                stream.failed(results[0], credit=False)  # the end has it, too
            elif stream is not None:
                stream.ended()
        for object_id, _ in submission.uses:
            self._holdings.references.unuse(object_id)

    def _fail(self, submission: Submission, failure: Value, error_type: str = "TASK_EXECUTION_EXCEPTION") -> None:
        if type(submission.message) is m.CallMethod and submission.failed:
            return  # it has failed already, by an argument, while it stood in line
        submission.failed = True
        self._note(submission, error_type, "")
        self._finish(submission, [failure], failed=True)

    # ---- in the driver: actors

    def _send_creation(self, submission: Submission) -> None:
        message = submission.message
        assert isinstance(message, m.CreateActor)
        if self._lines[message.actor_id].state != "DEAD":  # else it was killed while it waited for its arguments
            self._loop.send(self._head, message)

    def _enqueue_call(self, submission: Submission) -> None:
        message = submission.message
        assert isinstance(message, m.CallMethod)
        line = self._lines.get(message.actor_id)
        if line is None:
            line = self._lines[message.actor_id] = ActorLine()
        if line.state == "DEAD":
            assert line.failure is not None
            self._fail(submission, line.failure, "ACTOR_DIED")
            return
        if line.state == "UNKNOWN":
            line.state = "PENDING"
            self._loop.send(self._head, m.WatchActor(message.actor_id))
        line.submit(submission)
        self._send_calls(message.actor_id)

    def _send_calls(self, actor_id: bytes) -> None:
        line = self._lines[actor_id]
        for call in line.sendable():
            if call.failed:
                line.done(call.task_id)
            else:
                self._loop.send(line.worker_id, call.message)

    def _call_done(self, worker_id: bytes, task_id: bytes) -> Submission | None:
        actor_id = self._lived_in.get(worker_id)
        return None if actor_id is None else self._lines[actor_id].done(task_id)

    def _on_actor_update(self, peer: bytes, message: m.ActorUpdate) -> None:
        line = self._lines.get(message.actor_id)
        if line is None:
            return
        if line.state == "DEAD":
            return  # killed by us, or heard of before: what was under way then does not matter
        if message.state == "ALIVE":
            line.state, line.worker_id = "ALIVE", message.worker_id
            self._lived_in[message.worker_id] = message.actor_id
            if not self._restartable(message.actor_id):
                self._creation_over(message.actor_id)
            self._send_calls(message.actor_id)
        elif message.state == "RESTARTING":
            self._lived_in.pop(line.worker_id, None)
            failure = take_value(message.failure, message.buffers)
            for call in line.lost():
                self._fail(call, failure, "ACTOR_UNAVAILABLE")
        elif message.state == "DEAD":
            self._actor_failed(message.actor_id, take_value(message.failure, message.buffers))

    def _kill(self, entry: tuple[bytes, Value | None]) -> None:
        actor_id, failure = entry
        self._loop.send(self._head, m.KillActor(actor_id, failure is not None))
        if failure is None:
            return
        line = self._lines.get(actor_id)
        if line is None:
            line = self._lines[actor_id] = ActorLine()
        if line.state != "DEAD":
            self._actor_failed(actor_id, failure)

    def _actor_failed(self, actor_id: bytes, failure: Value) -> None:
        """The actor is dead, or will never be: so are all calls to it."""
        line = self._lines[actor_id]
        self._lived_in.pop(line.worker_id, None)
        self._creation_over(actor_id)
        for call in line.died(failure):
            self._fail(call, failure, "ACTOR_DIED")

    def _restartable(self, actor_id: bytes) -> bool:
        creation = self._creations.get(actor_id)
        return creation is not None and creation.message.max_restarts != 0  # type: ignore[union-attr]

    def _creation_over(self, actor_id: bytes) -> None:
        """Let go of what ``__init__`` was given: it will not run again."""
        creation = self._creations.pop(actor_id, None)
        if creation is not None:
            for object_id, _ in creation.uses:
                self._holdings.references.unuse(object_id)

    # ---- in the driver: for those who ask

    def live(self) -> Iterator[tuple[Submission, str, bytes]]:
        """Every submission that has no result, with its state (Ray's word) and the worker that has been given it."""
        for submission in self._unready.values():
            yield submission, "PENDING_ARGS_AVAIL", b""
        for submission in self._creations.values():
            if self._lines[submission.actor_id].state in ("PENDING", "RESTARTING"):
                yield submission, "PENDING_ARGS_AVAIL" if submission.missing else "PENDING_NODE_ASSIGNMENT", b""
        for submission, worker_id, _ in self._leasing:
            yield submission, "SUBMITTED_TO_WORKER" if worker_id else "PENDING_NODE_ASSIGNMENT", worker_id
        for line in self._lines.values():
            for call, sent in line:
                waits = "PENDING_ARGS_AVAIL" if call.missing else "PENDING_NODE_ASSIGNMENT"
                yield call, "SUBMITTED_TO_WORKER" if sent else waits, line.worker_id if sent else b""

    def line(self, actor_id: bytes) -> ActorLine | None:
        """What this process knows of an actor that it has called."""
        return self._lines.get(actor_id)

    def resources(self, submission: Submission) -> Mapping[str, int]:
        """What a task or an actor's creation asks for, in 1/10_000."""
        message = submission.message
        if type(message) is m.CreateActor:
            return message.required
        return self._leasing.shape(submission.shape) if type(message) is m.RunTask else {}

    def workers_at_work(self, submission: Submission) -> list[bytes]:
        """The workers of this process that run tasks of the same shape: it is its turn when they are done."""
        if submission.actor_id:
            return []
        return self._leasing.at_work(submission.shape)

    def _note(self, submission: Submission, error_type: str, message: str, worker_id: bytes = b"") -> None:
        """Remember a failure that no worker will tell of."""
        self._history.fail(
            submission.identity(self._me), error_type, message, submitted_s=submission.submitted_s, worker_id=worker_id
        )

    # ---- in the driver: deaths

    def process_died(self, worker_id: bytes, cause: str) -> None:
        """A worker is gone: its tasks run again or fail. (Calls hear of their actor's death from the head.)"""
        lost = self._leasing.worker_died(worker_id)
        for position, submission in reversed(list(enumerate(lost))):
            if position == 0:
                if submission.retries == 0:
                    why = "it was cancelled" if submission.cancelled else "no retries are left"
                    error = WorkerCrashedError(
                        f"{submission.name}() did not finish, and {why}: its worker ended with {cause}"
                    )
                    self._fail(submission, failure_value(error), "WORKER_DIED")
                    continue
                self._note(submission, "WORKER_DIED", f"its worker ended with {cause}", worker_id)
                submission.retries -= 1 if submission.retries > 0 else 0  # -1: for ever
            elif submission.cancelled:
                self.cancellation.lost(submission)
                continue
            # Those behind the first had not begun, as far as we can know, and lose no retry.
            if submission.stream is not None:
                submission.stream.again()
            self._leasing.requeue(submission)
        self._unsettled = True


def _parent() -> bytes:
    """The task or call in which the caller runs; empty outside."""
    task = context.current()
    return b"" if task is None else task.task_id
