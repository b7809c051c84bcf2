"""The owner's side of leases, without a process: batches, fair shares, returns, deaths."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from shoal.core.protocol.messages import RunTask
from shoal.core.runtime.leasing import Leasing
from shoal.core.runtime.tasks import Submission

SHORT, LONG = b"short", b"long"


class Bench:
    """A Leasing whose messages are written down."""

    def __init__(self) -> None:
        self.pushed: list[tuple[bytes, bytes]] = []
        self.demands: list[int] = []
        self.given_back: list[bytes] = []
        self.looks: list[tuple[bytes, float]] = []
        self.leasing = Leasing(
            pipeline_s=0.005,
            pipeline_tasks=100,
            lease_idle_s=0.05,
            push=lambda worker, submission: self.pushed.append((worker, submission.task_id)),
            demand=lambda key, shape, wanted: self.demands.append(wanted),
            give_back=lambda worker, retired: self.given_back.append(worker),
            look_later=lambda worker, delay_s: self.looks.append((worker, delay_s)),
        )
        self.key = self.leasing.key({"CPU": 10_000})
        self.serial = 0
        self.submissions: dict[bytes, Submission] = {}

    def submit(self, count: int, function: bytes = SHORT, *, retries: int = 3) -> list[bytes]:
        ids = []
        for _ in range(count):
            self.serial += 1
            task_id = self.serial.to_bytes(24, "big")
            message = RunTask(task_id, function, "f", (-1, b"", 0), b"", [], 1, -1, 0, [])
            submission = self.submissions[task_id] = Submission(
                message, "f", [], [], [], retries=retries, shape=self.key
            )
            self.leasing.enqueue(submission)
            ids.append(task_id)
        self.leasing.settle()
        return ids

    @property
    def waiting(self) -> int:
        """Tasks that no worker has been given."""
        return sum(1 for _, worker, _ in self.leasing if not worker)

    def learn(self, function: bytes, duration_s: float) -> None:
        """Have a worker report this run time."""
        self.leasing.granted(self.key, b"teacher", 0.0)
        (task_id,) = self.submit(1, function)
        self.leasing.done(b"teacher", task_id, duration_s, 0.0)
        self.leasing.idle_check(b"teacher", 1.0)
        self.pushed.clear()
        self.given_back.clear()
        self.demands.clear()


def test_a_function_that_was_never_measured_is_sent_one_at_a_time():
    bench = Bench()
    bench.submit(10)
    bench.leasing.granted(bench.key, b"w", 0.0)
    assert len(bench.pushed) == 1


def test_short_tasks_go_in_batches_shared_between_workers():
    bench = Bench()
    bench.learn(SHORT, 10e-6)
    bench.leasing.granted(bench.key, b"w1", 0.0)
    bench.leasing.granted(bench.key, b"w2", 0.0)
    bench.submit(60)
    assert Counter(worker for worker, _ in bench.pushed) == {b"w1": 30, b"w2": 30}


def test_a_batch_holds_no_more_than_the_window_of_time_and_number():
    bench = Bench()
    bench.learn(SHORT, 0.001)
    bench.leasing.granted(bench.key, b"w", 0.0)
    bench.submit(1000)
    assert 4 <= len(bench.pushed) <= 6  # 5 ms of tasks of 1 ms
    bench = Bench()
    bench.learn(SHORT, 1e-6)
    bench.leasing.granted(bench.key, b"w", 0.0)
    bench.submit(1000)
    assert len(bench.pushed) == 100


def test_demand_is_told_when_it_begins_grows_and_ends():
    bench = Bench()
    bench.submit(1)
    bench.submit(1)
    bench.submit(1)
    assert bench.demands == [1, 3]
    bench.leasing.granted(bench.key, b"w1", 0.0)
    bench.leasing.granted(bench.key, b"w2", 0.0)
    bench.leasing.granted(bench.key, b"w3", 0.0)
    bench.leasing.settle()
    assert not bench.waiting
    assert len(bench.pushed) == 3


def test_tasks_behind_a_long_one_come_back_in_order_and_go_elsewhere():
    bench = Bench()
    bench.learn(SHORT, 10e-6)
    bench.leasing.granted(bench.key, b"w1", 0.0)
    ids = bench.submit(10)
    bench.leasing.returned(b"w1", ids[1:])
    bench.leasing.settle()
    assert bench.waiting == 9, "its worker is stalled and gets nothing"
    bench.pushed.clear()
    bench.leasing.granted(bench.key, b"w2", 0.0)
    assert [task for _, task in bench.pushed] == ids[1:]
    assert bench.leasing.done(b"w1", ids[0], 1.0, 1.0).task_id == ids[0]


def test_an_idle_worker_is_kept_for_a_while_and_then_returned():
    bench = Bench()
    bench.leasing.granted(bench.key, b"w", 0.0)
    (task_id,) = bench.submit(1)
    bench.leasing.done(b"w", task_id, 1e-5, 0.01)
    bench.leasing.idle_check(b"w", 0.03)
    assert bench.given_back == []
    bench.leasing.idle_check(b"w", 0.07)
    assert bench.given_back == [b"w"]
    bench.leasing.idle_check(b"w", 9.0)
    assert bench.given_back == [b"w"]


def test_a_task_that_must_not_run_twice_is_alone_with_its_worker():
    bench = Bench()
    bench.learn(SHORT, 10e-6)
    bench.leasing.granted(bench.key, b"w", 0.0)
    before = bench.submit(3)
    (once,) = bench.submit(1, retries=0)
    bench.submit(3)
    assert [task for _, task in bench.pushed] == before
    for task_id in before:
        bench.leasing.done(b"w", task_id, 1e-5, 0.0)
    bench.leasing.settle()
    assert [task for _, task in bench.pushed] == [*before, once], "and nothing goes behind it"
    bench.leasing.done(b"w", once, 1e-5, 0.0)
    bench.leasing.settle()
    assert len(bench.pushed) == 7


def test_a_worker_that_falls_idle_while_others_work_is_returned():
    bench = Bench()
    bench.leasing.granted(bench.key, b"a", 0.0)
    bench.leasing.granted(bench.key, b"b", 0.0)
    first, second, third = bench.submit(3, LONG)
    at = {task: worker for worker, task in bench.pushed}
    bench.leasing.done(at[first], first, 1.0, 1.0)
    bench.leasing.done(at[second], second, 1.0, 1.0)
    bench.leasing.settle()  # one of them gets the third
    (busy,) = [worker for worker, task in bench.pushed if task == third]
    (idle,) = {b"a", b"b"} - {busy}
    assert idle in [worker for worker, _ in bench.looks]
    bench.leasing.idle_check(idle, 1.06)
    assert bench.given_back == [idle]


def test_a_dead_worker_gives_its_tasks_back_oldest_first():
    bench = Bench()
    bench.learn(SHORT, 10e-6)
    bench.leasing.granted(bench.key, b"w", 0.0)
    ids = bench.submit(5)
    bench.leasing.done(b"w", ids[0], 1e-5, 0.0)
    assert [s.task_id for s in bench.leasing.worker_died(b"w")] == ids[1:]
    assert bench.leasing.worker_died(b"w") == []
    assert bench.leasing.done(b"w", ids[1], 1e-5, 0.0) is None, "an answer after the death is nobody's"


def test_a_refused_shape_fails_what_waits_for_it():
    bench = Bench()
    ids = bench.submit(3)
    assert [s.task_id for s in bench.leasing.refused(bench.key)] == ids
    assert not bench.waiting


def test_a_worker_that_runs_its_last_task_gets_no_more_and_is_returned_as_retired():
    bench = Bench()
    bench.learn(SHORT, 10e-6)
    bench.leasing.granted(bench.key, b"w", 0.0)
    (first,) = bench.submit(1)
    bench.leasing.retires(b"w")
    bench.submit(1)
    assert len(bench.pushed) == 1
    bench.leasing.done(b"w", first, 1e-5, 0.0)
    assert bench.given_back == [b"w"]


def test_many_withdrawn_tasks_are_cleared_away_and_not_asked_workers_for():
    bench = Bench()
    ids = bench.submit(1000)
    for task_id in ids[1:]:
        bench.submissions[task_id].failed = True
        bench.leasing.withdraw(bench.submissions[task_id])
    assert bench.waiting == 1
    bench.leasing.granted(bench.key, b"w", 0.0)
    assert [task for _, task in bench.pushed] == [ids[0]]


@pytest.mark.parametrize("seed", range(30))
def test_every_task_is_run_exactly_once_whatever_workers_do(seed):  # noqa: C901  a random walk
    rng = random.Random(seed)
    bench = Bench()
    at: dict[bytes, list[bytes]] = {}
    finished: Counter[bytes] = Counter()
    submitted: list[bytes] = []
    withdrawn: set[bytes] = set()
    workers, serial, read = [], 0, 0
    for step in range(600):
        event = rng.randrange(9)
        if event <= 1 and step < 400:
            submitted += bench.submit(rng.randrange(1, 20), rng.choice([SHORT, LONG]))
        elif event == 2 and len(workers) < 4:
            serial += 1
            workers.append(serial.to_bytes(12, "big"))
            at[workers[-1]] = []
            bench.leasing.granted(bench.key, workers[-1], step)
        elif event == 3 and workers and step < 400:
            dead = workers.pop(rng.randrange(len(workers)))
            for submission in reversed(bench.leasing.worker_died(dead)):
                bench.leasing.requeue(submission)
            del at[dead]
        elif event == 4 and workers:
            worker = rng.choice(workers)
            if len(at[worker]) > 1:
                bench.leasing.returned(worker, at[worker][1:])
                del at[worker][1:]
        elif event == 8 and submitted:
            submission = bench.submissions[rng.choice(submitted)]
            holder = bench.leasing.worker_of(submission)
            assert holder == next((worker for worker in workers if submission.task_id in at[worker]), b"")
            if not holder and not submission.failed and not finished[submission.task_id]:
                submission.failed = True
                bench.leasing.withdraw(submission)
                withdrawn.add(submission.task_id)
        elif event == 5 and workers:
            bench.leasing.idle_check(rng.choice(workers), step + 1e6)
        elif workers:
            worker = rng.choice(workers)
            if at[worker]:
                task_id = at[worker].pop(0)
                bench.leasing.done(worker, task_id, rng.choice([1e-5, 1e-3, 1.0]), step)
                finished[task_id] += 1
        bench.leasing.settle()
        for worker, task_id in bench.pushed[read:]:
            at[worker].append(task_id)
        read = len(bench.pushed)
        for worker in bench.given_back:
            assert not at.pop(worker)
            workers.remove(worker)
        bench.given_back.clear()
    while any(at.values()) or bench.waiting:
        if not workers:
            workers.append(b"last worker!")
            at[workers[-1]] = []
            bench.leasing.granted(bench.key, workers[-1], 1e6)
        for worker in workers:
            for task_id in at[worker]:
                bench.leasing.done(worker, task_id, 1e-5, 1e6)
                finished[task_id] += 1
            at[worker] = []
        bench.leasing.settle()
        for worker, task_id in bench.pushed[read:]:
            at[worker].append(task_id)
        read = len(bench.pushed)
    assert finished == Counter(task_id for task_id in submitted if task_id not in withdrawn)


def test_a_shape_that_is_over_costs_nothing_any_more_and_can_come_back():
    """A program goes through thousands of placement groups; each has shapes of its own."""
    bench = Bench()
    for number in range(5):
        bench.key = bench.leasing.key({f"CPU_group_{number}": 10_000})
        (task,) = bench.submit(1)
        bench.leasing.granted(bench.key, b"w%d" % number, 0.0)
        bench.leasing.done(b"w%d" % number, task, 0.001, 0.0)
        bench.leasing.idle_check(b"w%d" % number, 1.0)
        bench.leasing.settle()
    assert list(bench.leasing.busy) == []
    assert list(bench.leasing) == []
    (task,) = bench.submit(1)
    assert bench.leasing.waiting == 1
    bench.leasing.granted(bench.key, b"w", 0.0)
    assert bench.pushed[-1] == (b"w", task)


def test_tasks_of_a_removed_group_fail_wherever_they_are_and_its_workers_get_nothing_more():
    bench = Bench()
    bench.learn(SHORT, 0.0001)
    first = bench.submit(2)
    bench.leasing.granted(bench.key, b"w", 0.0)
    second = bench.submit(1, b"long")
    failed = [submission.task_id for submission in bench.leasing.refused(bench.key, removed=True)]
    assert failed == [*first, *second]
    bench.pushed.clear()
    bench.submit(1)
    assert bench.pushed == []
    assert bench.leasing.done(b"w", first[0], 0.1, 1.0) is None, "an answer that comes too late"
    assert bench.leasing.worker_died(b"w") == []
