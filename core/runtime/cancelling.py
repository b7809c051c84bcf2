"""What `cancel` does to a task or call, wherever it is on its way. Of its owner; a borrower's wish comes by message.

    waits for arguments, a worker, or its turn at an actor    it fails here and now
    at a worker, not begun                                    the worker drops it
    running: a task                                           KeyboardInterrupt in the worker's main thread; with
                                                              `force` the process ends
             a coroutine                                      asyncio.CancelledError
             another call of an actor                         it is told, if it asks (`is_canceled`)
             a generator                                      the same, and it ends at its next yield
    finished                                                  nothing

A cancelled task is not run again, whatever its retries. It fails with TaskCancelledError, unless its process had to be
ended: WorkerCrashedError. With `recursive`, what it has submitted is cancelled first, by the process that runs it.
"""

from __future__ import annotations

from .. import ids
from ..protocol import messages as m
from ..refs import ObjectRef
from ..transport.loop import Loop
from .actor_lines import ActorLines
from .completions import Completions
from .task_queue import TaskQueue
from .tasks import Submission


class Cancellation:
    """Ends what its owner has submitted."""

    def __init__(
        self,
        me: bytes,
        loop: Loop,
        completions: Completions,
        queue: TaskQueue,
        actors: ActorLines,
        *,
        head: bytes,
        patience_s: float,
    ) -> None:
        """
        Args:
          patience_s: how long a forced cancellation waits for the worker to end by itself.
        """
        self._me = me
        self._loop = loop
        self._completions = completions
        self._submissions = completions.submissions
        self._queue = queue
        self._actors = actors
        self._head = head
        self._patience_s = patience_s
        loop.on(m.CancelObject, lambda peer, message: self._cancel_object(message))

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes the object. Any thread.

        Raises:
          ValueError: `force` on a call of an actor.
        """
        wish = m.CancelObject(ref.binary(), force, recursive)
        if ref.owner == self._me:
            submission = self._submissions.get(ids.task_of(ref.binary()))
            if force and submission is not None and isinstance(submission.message, m.CallMethod):
                raise ValueError(
                    f"{submission.name}() is a call of an actor, which force=True would end: "
                    "cancel it without force, or kill() the actor"
                )
            self._loop.submit(self._cancel_object, wish)
        elif ref.owner:
            self._loop.submit(lambda _: self._loop.send(ref.owner, wish), None)

    def cancel_children(self, parent: bytes, *, force: bool) -> None:
        """Cancel what a task that runs here has submitted."""
        # Posted: what it has submitted just now stands in the posts, and is not to be met half-way.
        self._loop.post(self._cancel_children, (parent, force))

    def _cancel_children(self, entry: tuple[bytes, bool]) -> None:
        parent, force = entry
        # A copy, made in one step: user code goes on submitting in its thread.
        for submission in list(self._submissions.values()):
            if submission.parent == parent:
                self._cancel(submission, force=force, recursive=True)

    def _cancel_object(self, wish: m.CancelObject) -> None:
        submission = self._submissions.get(ids.task_of(wish.object_id))
        if submission is not None:
            self._cancel(submission, force=wish.force, recursive=wish.recursive)

    def _cancel(self, submission: Submission, *, force: bool, recursive: bool) -> None:
        message = submission.message
        submission.cancelled = True
        submission.retries, submission.retry_on = 0, ()
        if isinstance(message, m.CallMethod):
            line = self._actors.lines[message.actor_id]
            if line.is_under_way(message.task_id):
                self._loop.send(line.worker_id, m.CancelTask(message.task_id, False, recursive))
            else:
                submission.missing = 0  # it holds up the line no longer
                self._completions.cancelled(submission)
                self._actors.send(message.actor_id)
        elif submission.missing:
            self._completions.cancelled(submission)
        else:
            worker_id = self._queue.leasing.worker_of(submission)
            if not worker_id:
                self._queue.withdraw_cancelled(submission)
                return
            self._loop.send(worker_id, m.CancelTask(submission.task_id, force, recursive))
            if force:
                self._loop.after(self._patience_s, lambda: self._insist(submission, worker_id))

    def _insist(self, submission: Submission, worker_id: bytes) -> None:
        """The worker should have ended by now; code in C that never lets go of the interpreter can keep it."""
        if submission.task_id in self._submissions and self._queue.leasing.worker_of(submission) == worker_id:
            self._loop.send(self._head, m.KillLeased(worker_id))
