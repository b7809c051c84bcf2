"""The owner's side of tasks that wait for a worker or are with one: `Leasing` with its messages. In the loop's driver.

    enqueue, again --> Leasing --DemandLeases--> node --LeaseGranted--> RunTask --> worker
    TasksReturned, the death of a worker --> the queue again, or an end: no retries are left, or it was cancelled
    LeaseRefused: no machine could ever run it

Not here: which task goes to which worker (leasing.py), how a task ends (completions.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..config import CoreConfig
from ..errors import (
    RuntimeEnvSetupError,
    ShoalError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ..protocol import messages as m
from ..transport.loop import Loop
from .completions import Completions
from .holdings import failure_value
from .leasing import Leasing
from .tasks import Submission

#: Ray's words for why a task could not be run.
_WORDS: Mapping[type[ShoalError], str] = {
    TaskPlacementGroupRemoved: "TASK_PLACEMENT_GROUP_REMOVED",
    TaskUnschedulableError: "TASK_UNSCHEDULABLE_ERROR",
    RuntimeEnvSetupError: "RUNTIME_ENV_SETUP_FAILED",
    WorkerCrashedError: "WORKER_DIED",
}


class TaskQueue:
    """Tasks of one process."""

    def __init__(self, loop: Loop, completions: Completions, *, head: bytes, config: CoreConfig) -> None:
        self._loop = loop
        self._completions = completions
        self._head = head
        self.leasing = Leasing(
            pipeline_s=config.pipeline_s,
            pipeline_tasks=config.pipeline_tasks,
            lease_idle_s=config.lease_idle_s,
            push=lambda worker, submission: loop.send(worker, submission.message),
            demand=self._demand,
            give_back=lambda worker, retired: loop.send(head, m.ReturnLease(worker, retired)),
            look_later=lambda worker, delay_s: loop.after(delay_s, lambda: self._look_at(worker)),
        )
        self._unsettled = False
        loop.before_flush(self._settle)
        loop.on(m.LeaseGranted, self._on_lease_granted)
        loop.on(m.LeaseRefused, self._on_lease_refused)
        loop.on(m.TasksReturned, self._on_tasks_returned)
        loop.on(m.WorkerRetires, lambda peer, message: self.leasing.retires(peer))

    def done(self, worker_id: bytes, task_id: bytes, duration_s: float) -> Submission | None:
        """A worker has answered; None: the task is not (or no more) with it."""
        submission = self.leasing.done(worker_id, task_id, duration_s, time.monotonic())
        if submission is not None:
            self._unsettled = True
        return submission

    def withdraw_cancelled(self, submission: Submission) -> None:
        """A task in the queue, if it has been cancelled, ends here."""
        if submission.cancelled:
            self._completions.cancelled(submission)
            self.leasing.withdraw(submission)
            self._unsettled = True  # the node is to hear if we need fewer workers now

    def _settle(self) -> None:
        leasing = self.leasing
        if self._unsettled or (leasing.busy and leasing.waiting):  # most often not: a process may submit only calls
            self._unsettled = False
            leasing.settle()

    def _demand(self, key: int, shape: Mapping[str, int], wanted: int) -> None:
        queue = self.leasing.queue(key)
        if not queue.refused:
            self._loop.send(self._head, m.DemandLeases(key, dict(shape), wanted, queue.environment))
        elif wanted:
            # Posted: we are in the middle of looking at the queues.
            refusal = m.LeaseRefused(key, queue.refused, False, False)
            self._loop.post(lambda _: self._on_lease_refused(b"", refusal), None)

    def _on_lease_granted(self, peer: bytes, message: m.LeaseGranted) -> None:
        queue = self.leasing.queue(message.key)
        self._loop.send(message.worker_id, m.Equip(dict(queue.shape), message.gpus, queue.captures))
        self.leasing.granted(message.key, message.worker_id, time.monotonic())

    def _on_lease_refused(self, peer: bytes, message: m.LeaseRefused) -> None:
        for submission in self.leasing.refused(message.key, removed=message.removed):
            error: ShoalError
            if message.removed:
                error = TaskPlacementGroupRemoved(f"{submission.name}() was not finished: {message.reason}")
            elif not message.failed_starts:
                error = TaskUnschedulableError(f"{submission.name}() can never run: {message.reason}")
            elif self.leasing.environment(message.key):
                error = RuntimeEnvSetupError(f"{submission.name}() cannot run with its runtime_env: {message.reason}")
            else:
                error = WorkerCrashedError(f"{submission.name}() has not run: {message.reason}")
            self._completions.fail(submission, failure_value(error), _WORDS[type(error)])

    def _on_tasks_returned(self, peer: bytes, message: m.TasksReturned) -> None:
        self.leasing.returned(peer, list(message.task_ids))
        for task_id in message.task_ids:
            submission = self._completions.submissions.get(task_id)
            if submission is not None:
                self.withdraw_cancelled(submission)
        self._unsettled = True

    def _look_at(self, worker_id: bytes) -> None:
        self.leasing.idle_check(worker_id, time.monotonic())

    def process_died(self, worker_id: bytes, cause: str) -> None:
        """A worker is gone: its tasks run again or fail. (Calls hear of their actor's death from the head.)"""
        lost = self.leasing.worker_died(worker_id)
        for position, submission in reversed(list(enumerate(lost))):
            if position == 0:
                if submission.retries == 0:
                    why = "it was cancelled" if submission.cancelled else "no retries are left"
                    error = WorkerCrashedError(
                        f"{submission.name}() did not finish, and {why}: its worker ended with {cause}"
                    )
                    self._completions.fail(submission, failure_value(error), "WORKER_DIED")
                    continue
                self._completions.note(submission, "WORKER_DIED", f"its worker ended with {cause}", worker_id)
                submission.retries -= 1 if submission.retries > 0 else 0  # -1: for ever
            elif submission.cancelled:
                self._completions.cancelled(submission)
                continue
            # Those behind the first had not begun, as far as we can know, and lose no retry.
            if submission.stream is not None:
                submission.stream.again()
            self.leasing.requeue(submission)
        self._unsettled = True
