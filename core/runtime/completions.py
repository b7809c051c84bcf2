"""How submitted work ends: what it returns gets its values, what it used is let go. In the loop's driver.

    TaskDone, TaskYielded, or an error of the runtime --> finish, fail --> objects resolved, refs given back

Every task and call that has not ended stands in `submissions`; exactly one of `finish` and `fail` takes it out. Not
here: whether it is run again instead (submitting.py, task_queue.py, actor_lines.py).
"""

from __future__ import annotations

from ..errors import TaskCancelledError, TaskError
from ..options import DYNAMIC, STREAMING
from ..protocol import messages as m
from ..protocol.specs import Value, take_value
from ..serialization import values
from .history import History
from .holdings import Holdings, failure_value
from .pending_calls import PendingCalls
from .tasks import Submission

#: What a generator that has ended returns.
_NONE = Value((_none := values.serialize(None)).kind, _none.data, [], [])


class Completions:
    """The submissions of one process that have not ended, and their ends."""

    def __init__(self, me: bytes, holdings: Holdings, history: History, pending_calls: PendingCalls) -> None:
        self._me = me
        self._holdings = holdings
        self._history = history
        self._pending_calls = pending_calls
        #: Tasks and calls that have not come to an end, by task id.
        self.submissions: dict[bytes, Submission] = {}
        #: Tasks whose arguments are not there (calls stand in their line), by their own identity.
        self.unready: dict[int, Submission] = {}

    def answered(self, submission: Submission, results: list[Value], *, failed: bool) -> None:
        """A worker has run it."""
        stream = submission.stream
        if failed and stream is not None and submission.message.num_returns == STREAMING:  # type: ignore[union-attr]
            stream.failed(results[0])  # its exception is an item; it has come to its end all the same
            self.finish(submission, [_NONE], failed=False)
        else:
            self.finish(submission, results, failed=failed)

    def cancelled(self, submission: Submission) -> None:
        """It ends before it has begun."""
        why = f"{submission.name}() was cancelled before it began"
        error = TaskCancelledError(why, task_id=submission.task_id.hex())
        self.fail(submission, failure_value(error), "TASK_CANCELLED")

    def yielded(self, peer: bytes, message: m.TaskYielded) -> None:
        value = take_value(message.value, message.buffers, list(message.contained))
        for object_id in message.borrows:
            self._holdings.references.borrowed(object_id, peer)
        submission = self.submissions.get(message.task_id)
        wanted = (
            submission is not None and submission.stream is not None and submission.stream.arrived(message.index, value)
        )
        if not wanted:
            self.drop([value])

    def finish(self, submission: Submission, results: list[Value], *, failed: bool) -> None:
        """Resolve what it returns, let go of what it used."""
        self.submissions.pop(submission.task_id, None)
        if submission.dependencies:
            self.unready.pop(id(submission), None)
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

    def fail(self, submission: Submission, failure: Value, error_type: str = "TASK_EXECUTION_EXCEPTION") -> None:
        if type(submission.message) is m.CallMethod and submission.failed:
            return  # it has failed already, by an argument, while it stood in line
        submission.failed = True
        self.note(submission, error_type, "")
        self.finish(submission, [failure], failed=True)

    def drop(self, results: list[Value]) -> None:
        """Results that nobody will see."""
        for value in results:
            self._holdings.discard(value)

    def may_retry(self, submission: Submission, failure: Value) -> bool:
        error = values.deserialize(failure.kind, failure.payload, failure.buffers)  # type: ignore[arg-type]
        cause = error.cause if isinstance(error, TaskError) else None
        return isinstance(cause, submission.retry_on)

    def note(self, submission: Submission, error_type: str, message: str, worker_id: bytes = b"") -> None:
        """Remember a failure that no worker will tell of."""
        self._history.fail(
            submission.identity(self._me), error_type, message, submitted_s=submission.submitted_s, worker_id=worker_id
        )
