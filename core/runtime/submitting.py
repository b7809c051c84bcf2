"""From ``.remote()`` to the message that makes a worker run it: tasks, calls, creations of one process.

    .remote(), in any thread   pack arguments, make refs, post
    driver                     count refs, wait for arguments
                               -> queue by shape (task_queue.py), or line to the actor (actor_lines.py)
                               -> RunTask / CallMethod / CreateActor
                               -> TaskDone: again, or its end (completions.py)
    an argument failed         the task fails without running, with that failure as its reason

Not here: who runs what where (leasing.py, node), which refs live (holdings.py), cancelling (cancelling.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import ids
from ..config import CoreConfig
from ..generators import ObjectRefGenerator
from ..options import STREAMING
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, Value, WireRef, take_value
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.failures import serialize_failure
from ..serialization.values import FAILURE
from ..transport.loop import Loop
from . import context
from .actor_lines import ActorLines
from .arguments import Packed
from .calls import ActorLine
from .cancelling import Cancellation
from .completions import Completions
from .history import History
from .holdings import Holdings, failure_value
from .outcomes import stillborn
from .pending_calls import PendingCalls
from .streams import ReturnStream, WaitForRefs
from .task_queue import TaskQueue
from .tasks import Submission


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
        self._ids = id_source
        self._head = head
        self._wait = wait
        self._pending_calls = PendingCalls()
        self._completions = Completions(me, holdings, history, self._pending_calls)
        self._queue = TaskQueue(loop, self._completions, head=head, config=config)
        self.actors = ActorLines(loop, holdings, self._completions, head=head)
        self.cancellation = Cancellation(
            me, loop, self._completions, self._queue, self.actors, head=head, patience_s=config.force_patience_s
        )
        loop.on(m.TaskDone, self._on_task_done)
        loop.on(m.TaskYielded, self._completions.yielded)

    # ---- any thread

    def shape(
        self, resources: Mapping[str, int], environment: bytes, *, captures: bool = False, refused: str = ""
    ) -> int:
        """This process's number for tasks that need these resources and workers started with this; `Leasing.key`."""
        return self._queue.leasing.key(resources, environment, captures=captures, refused=refused)

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
        self._completions.submissions[task_id] = submission
        self._loop.submit(self._begin, (submission, self._queue.leasing.enqueue, packed.refs))
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
        try:
            wire, holder, buffers, uses = self._place(packed)
        except BaseException:
            if limit > 0:
                self._pending_calls.down(actor_id)
            raise
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
        self._completions.submissions[task_id] = submission
        self._loop.submit(self._begin, (submission, self.actors.enqueue, (packed.refs, handle)))
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
        actor_id, class_name = message.actor_id, message.class_name
        if not detached:
            self._holdings.guarded[handle_id] = lambda: self.actors.out_of_scope(actor_id, class_name)
        self.actors.announce(submission)
        self._loop.submit(self._begin, (submission, self.actors.send_creation, packed.refs))
        return ObjectRef(handle_id, self._me)

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
            post_later=self._loop.post,
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
                self._completions.unready[id(submission)] = submission
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
        self._completions.unready.pop(id(submission), None)
        self._fill(submission)
        message = submission.message
        if type(message) is m.CallMethod:
            self.actors.send(message.actor_id)
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
                    self.actors.failed(message.actor_id, failure_value(died))
                else:
                    why = f"an argument failed: {type(error).__name__}"
                    self._completions.note(submission, "TASK_EXECUTION_EXCEPTION", why)
                    self._completions.finish(submission, [failure], failed=True)
                return
            message.slots.append((object_id, owner, value.wire(message.buffers)))

    # ---- in the driver: answers

    def _on_task_done(self, peer: bytes, message: m.TaskDone) -> None:
        submission = self._queue.done(peer, message.task_id, message.duration_us / 1e6)
        if submission is None:
            submission = self.actors.done(peer, message.task_id)
        frames = message.buffers
        results = [take_value(wire, frames, list(contained)) for wire, contained in message.results]
        for object_id in message.borrows:
            self._holdings.references.borrowed(object_id, peer)
        if submission is None:
            # Nobody waits for it any more: it was given up when its worker was thought dead.
            self._completions.drop(results)
            return
        may_retry = message.failed and submission.retry_on and submission.retries
        if may_retry and self._completions.may_retry(submission, results[0]):
            submission.retries -= 1 if submission.retries > 0 else 0  # -1: for ever
            self._completions.drop(results)
            self._run_again(submission)
            return
        self._completions.answered(submission, results, failed=message.failed)

    def _run_again(self, submission: Submission) -> None:
        message = submission.message
        if submission.stream is not None:
            submission.stream.again()
        if isinstance(message, m.CallMethod):
            self.actors.again(submission)
        else:
            self._queue.leasing.requeue(submission)

    def _tell_taken(self, task_id: bytes, count: int) -> None:
        """How many items of a generator its consumer has taken."""
        submission = self._completions.submissions.get(task_id)
        if submission is None:
            return
        message = submission.message
        if isinstance(message, m.CallMethod):
            worker_id = self.actors.lines[message.actor_id].worker_id
        else:
            worker_id = self._queue.leasing.worker_of(submission)
        if worker_id:
            self._loop.send(worker_id, m.ItemsTaken(task_id, count))

    def process_died(self, worker_id: bytes, cause: str) -> None:
        """A worker is gone: its tasks run again or fail. (Calls hear of their actor's death from the head.)"""
        self._queue.process_died(worker_id, cause)

    # ---- in the driver: for those who ask

    def live(self) -> Iterator[tuple[Submission, str, bytes]]:
        """Every submission that has no result, with its state (Ray's word) and the worker that has been given it."""
        for submission in self._completions.unready.values():
            yield submission, "PENDING_ARGS_AVAIL", b""
        for submission in self.actors.creations.values():
            if self.actors.lines[submission.actor_id].state in ("PENDING", "RESTARTING"):
                yield submission, "PENDING_ARGS_AVAIL" if submission.missing else "PENDING_NODE_ASSIGNMENT", b""
        for submission, worker_id, _ in self._queue.leasing:
            yield submission, "SUBMITTED_TO_WORKER" if worker_id else "PENDING_NODE_ASSIGNMENT", worker_id
        for line in self.actors.lines.values():
            for call, sent in line:
                waits = "PENDING_ARGS_AVAIL" if call.missing else "PENDING_NODE_ASSIGNMENT"
                yield call, "SUBMITTED_TO_WORKER" if sent else waits, line.worker_id if sent else b""

    def line(self, actor_id: bytes) -> ActorLine | None:
        """What this process knows of an actor that it has called."""
        return self.actors.lines.get(actor_id)

    def resources(self, submission: Submission) -> Mapping[str, int]:
        """What a task or an actor's creation asks for, in 1/10_000."""
        message = submission.message
        if type(message) is m.CreateActor:
            return message.required
        return self._queue.leasing.shape(submission.shape) if type(message) is m.RunTask else {}

    def workers_at_work(self, submission: Submission) -> list[bytes]:
        """The workers of this process that run tasks of the same shape: it is its turn when they are done."""
        if submission.actor_id:
            return []
        return self._queue.leasing.at_work(submission.shape)


def _parent() -> bytes:
    """The task or call in which the caller runs; empty outside."""
    task = context.current()
    return b"" if task is None else task.task_id
