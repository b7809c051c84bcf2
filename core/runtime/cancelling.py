"""What `cancel` does to a task or call, wherever it is on its way. Of its owner; a borrower's wish comes by message.

    waits for arguments, a worker, or its turn at an actor    it fails here and now
    at a worker, not begun                                    the worker drops it
    running: a task                                           KeyboardInterrupt in the worker's main thread; with
                                                              `force` the process ends
             a coroutine                                      asyncio.CancelledError
             another call of an actor                         it is told, if it asks (`is_canceled`)
    finished                                                  nothing

A cancelled task is not run again, whatever its retries. It fails with TaskCancelledError, unless its process had to be
ended: WorkerCrashedError. With `recursive`, what it has submitted is cancelled first, by the process that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .. import ids
from ..errors import ShoalError, TaskCancelledError
from ..protocol import messages as m
from ..refs import ObjectRef
from ..transport.loop import Loop
from .calls import ActorLine
from .leasing import Leasing
from .tasks import Submission


class Cancellation:
    """Ends what its owner has submitted."""

    def __init__(
        self,
        me: bytes,
        loop: Loop,
        *,
        submissions: Mapping[bytes, Submission],
        leasing: Leasing,
        lines: Mapping[bytes, ActorLine],
        fail: Callable[[Submission, ShoalError], None],
        send_calls: Callable[[bytes], None],
        head: bytes,
        patience_s: float,
    ) -> None:
        """
        Args:
          submissions: tasks and calls that have not come to an end, by task id.
          fail: resolve what a submission returns with an error.
          send_calls: send what can go to an actor.
          patience_s: how long a forced cancellation waits for the worker to end by itself.
        """
        self._me = me
        self._loop = loop
        self._submissions = submissions
        self._leasing = leasing
        self._lines = lines
        self._fail = fail
        self._send_calls = send_calls
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
        for submission in [s for s in self._submissions.values() if s.parent == parent]:
            self._cancel(submission, force=force, recursive=True)

    def returned(self, submission: Submission) -> None:
        """A worker has given it back unbegun, and it stands in the queue again."""
        if submission.cancelled:
            self._fail_waiting(submission)

    def lost(self, submission: Submission) -> None:
        """Its worker has died before it began."""
        self._fail(submission, _cancelled(submission))

    def _cancel_object(self, wish: m.CancelObject) -> None:
        submission = self._submissions.get(ids.task_of(wish.object_id))
        if submission is not None:
            self._cancel(submission, force=wish.force, recursive=wish.recursive)

    def _cancel(self, submission: Submission, *, force: bool, recursive: bool) -> None:
        message = submission.message
        submission.cancelled = True
        submission.retries, submission.retry_on = 0, ()
        if isinstance(message, m.CallMethod):
            line = self._lines[message.actor_id]
            if line.is_under_way(message.task_id):
                self._loop.send(line.worker_id, m.CancelTask(message.task_id, False, recursive))
            else:
                submission.missing = 0  # it holds up the line no longer
                self._fail(submission, _cancelled(submission))
                self._send_calls(message.actor_id)
        elif submission.missing:
            self._fail(submission, _cancelled(submission))
        else:
            worker_id = self._leasing.worker_of(submission)
            if not worker_id:
                self._fail_waiting(submission)
                return
            self._loop.send(worker_id, m.CancelTask(submission.task_id, force, recursive))
            if force:
                self._loop.after(self._patience_s, lambda: self._insist(submission, worker_id))

    def _fail_waiting(self, submission: Submission) -> None:
        self._fail(submission, _cancelled(submission))
        self._leasing.withdraw(submission)

    def _insist(self, submission: Submission, worker_id: bytes) -> None:
        """The worker should have ended by now; code in C that never lets go of the interpreter can keep it."""
        if submission.task_id in self._submissions and self._leasing.worker_of(submission) == worker_id:
            self._loop.send(self._head, m.KillLeased(worker_id))


def _cancelled(submission: Submission) -> TaskCancelledError:
    return TaskCancelledError(f"{submission.name}() was cancelled before it began", task_id=submission.task_id.hex())
