"""The owner's side of leases: which task goes to which worker, how many to ask for, when to return one. Pure.

Tasks of one resource shape share a queue and the workers leased for that shape. Several tasks may wait at a worker, as
many as fit into `pipeline_s` of measured run time: then no round trip stands between two short tasks, and no long task
has others behind it. A function that has never been measured counts as long. If a task turns out long or blocks, its
worker returns what waits behind it (`returned`), and gets nothing more until that task is done.

A worker with nothing to do is kept for `lease_idle_s`, then returned to the node.

What is to be sent is given to `push`, `demand` and `give_back`; time comes as an argument.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..protocol.messages import RunTask
from .tasks import Submission

#: What a task costs beside its run time: decoding, encoding, bookkeeping.
_OVERHEAD_S = 20e-6
#: Weight of the newest measurement in a function's mean run time.
_NEWEST = 0.3


@dataclass(slots=True)
class LeasedWorker:
    """A worker of ours: what it has been given and has not answered, oldest first."""

    worker_id: bytes
    inflight: OrderedDict[bytes, Submission] = field(default_factory=OrderedDict)
    #: Expected run time of what is in flight.
    load_s: float = 0.0
    #: Its running task is long: give it nothing until it has answered.
    stalled: bool = False
    #: What it runs is its last task.
    retiring: bool = False
    idle_since_s: float = 0.0
    #: A look at its idleness is due.
    watched: bool = False


@dataclass(slots=True)
class ShapeQueue:
    """Tasks of one shape that wait for a worker, and the workers.

    captures: what the tasks submit runs in their placement group. refused: why no node suits them; empty: one may.
    """

    key: int
    shape: Mapping[str, int]
    environment: bytes = b""
    captures: bool = False
    refused: str = ""
    waiting: deque[Submission] = field(default_factory=deque)
    workers: dict[bytes, LeasedWorker] = field(default_factory=dict)
    #: Workers that the node has been asked for and has not granted.
    demanded: int = 0
    #: How many of `waiting` have failed meanwhile, and are passed over.
    withdrawn: int = 0

    @property
    def wanting(self) -> int:
        """Tasks that wait for a worker."""
        return len(self.waiting) - self.withdrawn

    def pass_over(self) -> None:
        """Drop withdrawn tasks from the front."""
        while self.waiting and self.waiting[0].failed:
            self.waiting.popleft()
            self.withdrawn -= 1


class Leasing:
    """All queues and leases of one owner."""

    def __init__(
        self,
        *,
        pipeline_s: float,
        pipeline_tasks: int,
        lease_idle_s: float,
        push: Callable[[bytes, Submission], None],
        demand: Callable[[int, Mapping[str, int], int], None],
        give_back: Callable[[bytes, bool], None],
        look_later: Callable[[bytes, float], None],
    ) -> None:
        """
        Args:
          push: send a task to a worker.
          demand: (key, shape, wanted) tell the node how many more workers we could use.
          give_back: (worker, retired) return a worker to the node.
          look_later: call `idle_check(worker)` after that many seconds.
        """
        self._pipeline_s = pipeline_s
        self._pipeline_tasks = pipeline_tasks
        self._lease_idle_s = lease_idle_s
        self._push = push
        self._demand = demand
        self._give_back = give_back
        self._look_later = look_later
        self._queues: list[ShapeQueue] = []
        #: Those that have tasks, workers or a demand. A program may go through thousands of placement groups, and
        #: each has shapes of its own: what is over must cost nothing in each round of the loop.
        self.busy: dict[int, ShapeQueue] = {}
        self._keys: dict[tuple[object, ...], int] = {}
        self._new_key = threading.Lock()
        self._home: dict[bytes, ShapeQueue] = {}
        self._run_time_s: dict[bytes, float] = {}

    def key(
        self, shape: Mapping[str, int], environment: bytes = b"", *, captures: bool = False, refused: str = ""
    ) -> int:
        """This owner's number for a shape of resources and what the workers are started with. Any thread.

        Args:
          captures: what the tasks submit runs in their placement group.
          refused: why no node suits them.
        """
        identity = (environment, captures, refused, *sorted(shape.items()))
        key = self._keys.get(identity)
        if key is None:
            with self._new_key:
                key = self._keys.get(identity)
                if key is None:
                    key = len(self._queues)
                    self._queues.append(ShapeQueue(key, dict(shape), environment, captures, refused))
                    self._keys[identity] = key
        return key

    def environment(self, key: int) -> bytes:
        """What the workers for tasks of that number must have been started with."""
        return self._queues[key].environment

    def __iter__(self) -> Iterator[tuple[Submission, bytes, ShapeQueue]]:
        """Every task, with the worker that has been given it (empty: none yet) and its queue."""
        for queue in list(self.busy.values()):
            for worker in queue.workers.values():
                for submission in worker.inflight.values():
                    yield submission, worker.worker_id, queue
            for submission in queue.waiting:
                if not submission.failed:
                    yield submission, b"", queue

    def at_work(self, key: int) -> list[bytes]:
        """The workers of a shape that have something to do."""
        return [worker.worker_id for worker in self._queues[key].workers.values() if worker.inflight]

    def shape(self, key: int) -> Mapping[str, int]:
        """The resources behind a number that `key` has given."""
        return self._queues[key].shape

    def queue(self, key: int) -> ShapeQueue:
        """What stands behind a number; to be looked at."""
        return self._queues[key]

    @property
    def waiting(self) -> int:
        """Tasks that no worker has been given."""
        total = 0
        for queue in self.busy.values():  # asked twice in each round of the loop, and a generator costs thrice as much
            total += len(queue.waiting)
        return total

    # ---- events

    def enqueue(self, submission: Submission) -> None:
        """A task whose arguments are there. `settle` follows, once for many."""
        queue = self.busy[submission.shape] = self._queues[submission.shape]
        queue.waiting.append(submission)

    def requeue(self, submission: Submission) -> None:
        """A task that has lost its worker goes to the front: it has waited longest."""
        queue = self.busy[submission.shape] = self._queues[submission.shape]
        queue.waiting.appendleft(submission)

    def granted(self, key: int, worker_id: bytes, now_s: float) -> None:
        """The node has leased us a worker."""
        queue = self.busy[key] = self._queues[key]
        queue.demanded = max(0, queue.demanded - 1)
        queue.workers[worker_id] = LeasedWorker(worker_id, idle_since_s=now_s)
        self._home[worker_id] = queue
        queue.pass_over()
        self._assign(queue)
        self._watch_idleness(queue.workers[worker_id], now_s)

    def refused(self, key: int, *, removed: bool = False) -> list[Submission]:
        """The node can never have such a worker; returns the tasks that fail for it.

        Args:
          removed: nor can those that we have stay: they are being killed, and what they run fails too.
        """
        queue = self._queues[key]
        queue.demanded = 0
        failed: list[Submission] = []
        for worker in queue.workers.values() if removed else ():
            failed += worker.inflight.values()
            worker.inflight.clear()
            worker.stalled = True
        failed += [submission for submission in queue.waiting if not submission.failed]
        queue.waiting.clear()
        queue.withdrawn = 0
        return failed

    def done(self, worker_id: bytes, task_id: bytes, duration_s: float, now_s: float) -> Submission | None:
        """A worker has answered a task; None when the task is not (or no more) with it."""
        queue = self._home.get(worker_id)
        if queue is None:
            return None
        worker = queue.workers[worker_id]
        submission = worker.inflight.pop(task_id, None)
        if submission is None:
            return None
        worker.stalled = False
        worker.load_s -= self._cost_s(submission)
        self._measure(submission, duration_s)
        if not worker.inflight:
            if worker.retiring:
                del queue.workers[worker_id], self._home[worker_id]
                self._give_back(worker_id, True)
                return submission
            worker.load_s = 0.0  # measurements have changed since the tasks were added up
            worker.idle_since_s = now_s
            self._watch_idleness(worker, now_s)
        return submission

    def returned(self, worker_id: bytes, task_ids: list[bytes]) -> None:
        """The worker gives these back unbegun: its running task blocks or takes long."""
        queue = self._home.get(worker_id)
        if queue is None:
            return
        worker = queue.workers[worker_id]
        worker.stalled = True
        for task_id in reversed(task_ids):
            submission = worker.inflight.pop(task_id, None)
            if submission is not None:
                worker.load_s -= self._cost_s(submission)
                queue.waiting.appendleft(submission)

    def retires(self, worker_id: bytes) -> None:
        """What the worker runs is its last task."""
        queue = self._home.get(worker_id)
        if queue is not None:
            queue.workers[worker_id].retiring = True

    def withdraw(self, submission: Submission) -> None:
        """A task that waits for a worker, and has just failed, needs none any more."""
        queue = self._queues[submission.shape]
        queue.withdrawn += 1
        # Passed over when it comes to the front; many are cleared away at once, so that each costs O(1).
        if 2 * queue.withdrawn > len(queue.waiting):
            queue.waiting = deque(waiting for waiting in queue.waiting if not waiting.failed)
            queue.withdrawn = 0

    def worker_of(self, submission: Submission) -> bytes:
        """The worker that has been given a task; empty if none has."""
        workers = self._queues[submission.shape].workers.values()
        return next((worker.worker_id for worker in workers if submission.task_id in worker.inflight), b"")

    def worker_died(self, worker_id: bytes) -> list[Submission]:
        """The worker is gone; returns what it had, oldest first: the first was running, unless its answer was lost."""
        queue = self._home.pop(worker_id, None)
        if queue is None:
            return []
        return list(queue.workers.pop(worker_id).inflight.values())

    def idle_check(self, worker_id: bytes, now_s: float) -> None:
        """Return the worker if it has been idle long enough."""
        queue = self._home.get(worker_id)
        if queue is None:
            return
        worker = queue.workers[worker_id]
        worker.watched = False
        if worker.inflight:
            return  # `done` will look again
        if queue.wanting:
            worker.idle_since_s = now_s  # it is about to get one of them
        if now_s - worker.idle_since_s >= self._lease_idle_s:
            del queue.workers[worker_id], self._home[worker_id]
            self._give_back(worker_id, False)
        else:
            self._watch_idleness(worker, now_s)

    def settle(self) -> None:
        """After events: give workers what they have room for, and tell the node what is still wanted."""
        for queue in list(self.busy.values()):
            if queue.withdrawn:
                queue.pass_over()
            if queue.waiting:
                self._assign(queue)
            self._update_demand(queue)
            if not (queue.waiting or queue.workers or queue.demanded):
                del self.busy[queue.key]

    # ---- decisions

    def _assign(self, queue: ShapeQueue) -> None:
        """Fill workers up to `pipeline_s`, each at most its share of the queue, so that one does not take what another
        could.
        """
        free = [worker for worker in queue.workers.values() if self._has_room(worker, queue.waiting)]
        while queue.waiting and free:
            share = -(-queue.wanting // len(free))
            for worker in free:
                self._fill(worker, queue, share)
            free = [worker for worker in free if self._has_room(worker, queue.waiting)]

    def _has_room(self, worker: LeasedWorker, waiting: deque[Submission]) -> bool:
        """Whether the next waiting task may go to `worker` now."""
        if worker.stalled or worker.retiring:
            return False
        if worker.load_s >= self._pipeline_s or len(worker.inflight) >= self._pipeline_tasks:
            return False
        if not worker.inflight or not waiting:
            return True
        return not waiting[0].alone and not next(reversed(worker.inflight.values())).alone

    def _fill(self, worker: LeasedWorker, queue: ShapeQueue, share: int) -> None:
        waiting = queue.waiting
        for _ in range(share):
            if not waiting or not self._has_room(worker, waiting):
                return
            submission = waiting.popleft()
            if queue.withdrawn:
                queue.pass_over()  # `_has_room` looks at the next
            worker.inflight[submission.task_id] = submission
            worker.load_s += self._cost_s(submission)
            self._push(worker.worker_id, submission)

    def _update_demand(self, queue: ShapeQueue) -> None:
        wanted = queue.wanting
        # The node counts down by itself as it grants; tell it when there is something to begin, to end, or much more
        # than it knows.
        if (wanted > 0) != (queue.demanded > 0) or wanted > 2 * queue.demanded:
            queue.demanded = wanted
            self._demand(queue.key, queue.shape, wanted)

    def _cost_s(self, submission: Submission) -> float:
        assert isinstance(submission.message, RunTask)
        return self._run_time_s.get(submission.message.function, self._pipeline_s) + _OVERHEAD_S

    def _measure(self, submission: Submission, duration_s: float) -> None:
        assert isinstance(submission.message, RunTask)
        function = submission.message.function
        known = self._run_time_s.get(function)
        self._run_time_s[function] = duration_s if known is None else known + _NEWEST * (duration_s - known)

    def _watch_idleness(self, worker: LeasedWorker, now_s: float) -> None:
        if not worker.watched:
            worker.watched = True
            self._look_later(worker.worker_id, max(0.0, worker.idle_since_s + self._lease_idle_s - now_s))
