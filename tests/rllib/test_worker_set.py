"""Requests and results, against a scripted runtime: the order of completion and each death are decided by the test."""

import pickle
from types import SimpleNamespace

import pytest

from shoal.core import errors
from shoal.rllib import worker_set
from shoal.rllib.worker_set import MAX_DEATHS_IN_A_ROW, Completed, Request, WorkerLostError, WorkerSet


class Runtime:
    """Actors whose calls finish when the test says so.

    ``finish`` lists (worker, call number of that worker) in the order in which results become ready; what is not listed
    comes in the order of the calls. ``dies`` lists the lives (worker, replacement) that answer nothing but their death,
    or ``death``.
    """

    def __init__(self, finish=(), dies=(), outcome=None, death=None):
        self._finish = list(finish)
        self._dies = set(dies)
        self._death = death or errors.ActorDiedError("exit signal SIGKILL", actor_id="ab")
        self._outcome = outcome or (lambda worker, arguments: (worker, *arguments))
        self._calls = {}
        self.made, self.killed = [], []
        self.is_slow = False
        self.is_there = set()  # results that come without waiting: (worker, call number of that worker)

    def make(self, worker, replacement):
        self.made.append((worker, replacement))
        return Actor(self, worker, replacement)

    def call(self, worker, replacement, arguments):
        number = self._calls[worker] = self._calls.get(worker, -1) + 1
        return SimpleNamespace(worker=worker, life=(worker, replacement), number=number, arguments=arguments)

    def wait(self, refs, *, num_returns, timeout=None):
        if num_returns == len(refs) and timeout == 0:
            return [ref for ref in refs if (ref.worker, ref.number) in self.is_there], []
        assert num_returns == 1
        if self.is_slow and timeout is not None:
            return [], refs
        listed = [ref for key in self._finish for ref in refs if (ref.worker, ref.number) == key]
        return (listed or refs)[:1], []

    def get(self, ref):
        if ref.life in self._dies:
            raise self._death
        try:
            return self._outcome(ref.worker, ref.arguments)
        except Exception as error:  # noqa: BLE001 - stands in for the runtime, which catches everything
            raise errors.TaskError("remote traceback", cause=error).as_instance_of_cause() from None

    def kill(self, actor):
        self.killed.append((actor.worker, actor.replacement))


class Actor:
    def __init__(self, runtime, worker, replacement):
        self._runtime, self.worker, self.replacement = runtime, worker, replacement

    @property
    def work(self):
        return SimpleNamespace(
            remote=lambda *arguments: Hashable(self._runtime.call(self.worker, self.replacement, arguments))
        )


class Hashable:
    def __init__(self, call):
        vars(self).update(vars(call))


@pytest.fixture
def started(monkeypatch):
    def start(count, *, max_in_flight=1, is_quick=True, **script):
        runtime = Runtime(**script)
        monkeypatch.setattr(worker_set, "api", runtime)
        return runtime, WorkerSet(runtime.make, count, max_in_flight=max_in_flight, is_quick=is_quick)

    return start


def test_results_come_as_they_are_ready_and_map_puts_them_in_the_order_of_the_workers(started):
    _, workers = started(3, finish=[(2, 0), (0, 0), (1, 0), (1, 1), (0, 1), (2, 1)])
    for worker in range(3):
        workers.submit(worker, "work", "x")
    assert [result.worker for result in workers.completed()] == [2, 0, 1]
    assert workers.map("work", [("a",), ("b",), ("c",)]) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_request_made_on_each_result_keeps_all_workers_busy_and_a_straggler_holds_up_nobody(started):
    _, workers = started(2, finish=[(0, number) for number in range(5)])
    for worker in range(2):
        workers.submit(worker, "work")
    finished = []
    for result in workers.completed():
        finished.append(result.worker)
        if len(finished) < 5:
            workers.submit(result.worker, "work")
    assert finished == [0, 0, 0, 0, 0, 1]


def test_no_more_requests_than_allowed_are_in_flight_on_a_worker(started):
    _, workers = started(1, max_in_flight=2)
    workers.submit(0, "work", 1)
    workers.submit(0, "work", 2)
    with pytest.raises(RuntimeError, match="worker 0 has 2 requests in flight"):
        workers.submit(0, "work", 3)
    assert workers.in_flight(0) == 2
    assert list(workers.completed()) == [Completed(0, (0, 1)), Completed(0, (0, 2))]


def test_map_refuses_to_mix_with_requests_of_others(started):
    _, workers = started(2)
    workers.submit(0, "work")
    with pytest.raises(RuntimeError, match="1 requests are still in flight"):
        workers.map("work", [(), ()])


def test_a_dead_worker_is_replaced_and_every_request_it_had_is_made_again(started):
    runtime, workers = started(2, max_in_flight=3, dies=[(1, 0)])
    for number in range(3):
        workers.submit(1, "work", number)
    workers.submit(0, "work", "alive")
    assert sorted(str(result.value) for result in workers.completed()) == ["(0, 'alive')", "(1, 0)", "(1, 1)", "(1, 2)"]
    assert runtime.made == [(0, 0), (1, 0), (1, 1)]
    assert workers.replacements == 1
    assert workers.last_death == "exit signal SIGKILL"


def test_a_worker_that_keeps_dying_is_an_error_that_tells_why(started):
    runtime, workers = started(1, dies=[(0, life) for life in range(9)])
    with pytest.raises(WorkerLostError, match=r"worker 0 died 3 times in a row .*'work'.*SIGKILL") as caught:
        workers.map("work", [()])
    assert isinstance(caught.value.__cause__, errors.ActorDiedError)
    assert len(runtime.made) == MAX_DEATHS_IN_A_ROW


def test_whoever_hears_that_a_worker_is_lost_gets_its_requests_and_may_go_on_with_the_set(started):
    dead = [(0, life) for life in range(3)]
    runtime, workers = started(2, max_in_flight=2, dies=dead, finish=[(0, 0), (0, 2), (0, 4)])
    for number in range(2):
        workers.submit(0, "work", number)
    workers.submit(1, "work", "other")
    with pytest.raises(WorkerLostError) as caught:
        list(workers.completed())
    lost = caught.value.requests
    assert [(request.worker, request.method, request.arguments) for request in lost] == [
        (0, "work", (0,)),
        (0, "work", (1,)),
    ]
    assert (workers.in_flight(0), workers.in_flight(1)) == (0, 1)
    assert workers.ask(0, "work", "alone", max_deaths=1) == (0, "alone")
    workers.submit(0, "work", "again")
    assert sorted(str(result.value) for result in workers.completed()) == ["(0, 'again')", "(1, 'other')"]
    assert runtime.made == [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3)]
    assert workers.replacements == 3


def test_a_set_is_told_how_many_deaths_of_a_worker_it_is_to_bear(monkeypatch):
    runtime = Runtime(dies=[(0, life) for life in range(7)])
    monkeypatch.setattr(worker_set, "api", runtime)
    assert WorkerSet(runtime.make, 1, max_deaths=8).map("work", [("x",)]) == [(0, "x")]
    with pytest.raises(WorkerLostError, match="worker 0 died 7 times in a row"):
        WorkerSet(runtime.make, 1, max_deaths=7).map("work", [("x",)])


def test_what_a_worker_does_is_said_when_it_is_given_up(monkeypatch):
    monkeypatch.setattr(worker_set, "api", runtime := Runtime(dies=[(0, life) for life in range(9)]))
    with pytest.raises(WorkerLostError, match=r"^rollout worker 0 \(it plays Pong\) died 3 times in a row without"):
        WorkerSet(runtime.make, 1, about="it plays Pong").map("work", [()])


def test_who_asks_one_worker_says_how_often_it_may_die(started):
    runtime, workers = started(1, dies=[(0, life) for life in range(6)])
    with pytest.raises(WorkerLostError, match="worker 0 died without finishing 'work'"):
        workers.ask(0, "work", max_deaths=1)
    assert workers.ask(0, "work", "x", max_deaths=9) == (0, "x")
    assert len(runtime.made) == 7
    workers.submit(0, "work")
    with pytest.raises(RuntimeError, match="worker 0 has 1 requests in flight"):
        workers.ask(0, "work", max_deaths=1)


def test_a_worker_that_cannot_start_leaves_no_requests_to_go_on_with(started):
    death = errors.ActorDiedError("no module", actor_id="ab", actor_init_failed=True)
    _, workers = started(1, dies=[(0, 0)], death=death)
    workers.submit(0, "work")
    with pytest.raises(WorkerLostError) as caught:
        list(workers.completed())
    assert caught.value.requests == ()


def test_the_loss_of_a_worker_is_told_in_another_process_without_its_requests(started):
    lost = WorkerLostError("it died", [Request(0, "work", (object(),))])
    there = pickle.loads(pickle.dumps(lost))
    assert (str(there), there.requests) == ("it died", ())


def test_deaths_with_work_done_in_between_are_not_in_a_row(started):
    _, workers = started(1, dies=[(0, 0), (0, 2), (0, 4)])
    for _ in range(3):
        workers.map("work", [()])
        runtime_life = workers.replacements
        workers._replacements[0] += 1  # the life that answered is followed by one that dies
        workers._actors[0] = workers._make(0, runtime_life + 1)
    assert workers.replacements == 6


def test_workers_that_do_not_start_are_named_once_and_waited_for(started, caplog):
    runtime, workers = started(3, finish=[(1, 0)])
    workers.submit(1, "work")
    assert next(workers.completed()).worker == 1
    runtime.is_slow = True
    for _ in range(2):
        assert len(workers.map("work", [(), (), ()])) == 3
    (record,) = [record for record in caplog.records if "not started" in record.getMessage()]
    assert record.getMessage().startswith("rollout workers 0, 2 have not started yet")
    assert "too few CPUs for 3 workers" in record.getMessage()


def test_of_very_many_workers_that_do_not_start_the_first_are_named(started, caplog):
    runtime, workers = started(13)
    runtime.is_slow = True
    assert len(workers.map("work", [()] * 13)) == 13
    assert "rollout workers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more have not started yet" in caplog.text


def test_workers_that_may_hang_are_named_once_and_waited_for(started, caplog):
    runtime, workers = started(2)
    workers.map("work", [(), ()])
    runtime.is_slow = True
    for _ in range(2):
        assert len(workers.map("work", [(), ()])) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith("rollout workers 0, 1 have given no answer for 120 s: their environments are")


def test_workers_whose_first_answer_takes_long_are_not_named(started, caplog):
    runtime, workers = started(2, dies=[(1, 0)], is_quick=False)
    runtime.is_slow = True
    for _ in range(2):
        assert len(workers.map("work", [(), ()])) == 2
    assert workers.replacements == 1
    assert caplog.records == []


def test_an_exception_of_a_workers_code_is_raised_as_it_was_there(started):
    def outcome(worker, arguments):
        raise KeyError(f"worker {worker}")

    _, workers = started(1, outcome=outcome)
    with pytest.raises(KeyError) as caught:
        workers.map("work", [()])
    assert type(caught.value) is KeyError
    assert caught.value.args == ("worker 0",)
    assert isinstance(caught.value.__cause__, errors.TaskError)


def test_closing_kills_every_worker_once(started):
    runtime, workers = started(3)
    workers.close()
    workers.close()
    assert sorted(runtime.killed) == [(0, 0), (1, 0), (2, 0)]


def test_workers_made_before_one_fails_to_start_are_killed(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(worker_set, "api", runtime)

    def make(worker, replacement):
        if worker == 2:
            raise RuntimeError("no room")
        return runtime.make(worker, replacement)

    with pytest.raises(RuntimeError, match="no room"):
        WorkerSet(make, 3)
    assert sorted(runtime.killed) == [(0, 0), (1, 0)]


def test_what_is_there_can_be_taken_without_waiting_for_the_rest(monkeypatch):
    runtime = Runtime(dies=[(2, 0)])
    monkeypatch.setattr(worker_set, "api", runtime)
    workers = WorkerSet(runtime.make, 3)
    assert list(workers.ready()) == []
    for worker in range(3):
        workers.submit(worker, "work", "x")
    assert list(workers.ready()) == []
    runtime.is_there = {(1, 0), (2, 0)}
    assert list(workers.ready()) == [Completed(1, (1, "x"))]
    assert workers.replacements == 1
    assert sorted(completed.worker for completed in workers.completed()) == [0, 2]


def test_a_worker_that_is_out_of_reach_is_ended_before_another_takes_its_place(started):
    gone = errors.ActorUnavailableError("Socket closed", actor_id="ab")
    runtime, workers = started(2, dies=[(1, 0)], death=gone)
    assert workers.map("work", [("a",), ("b",)]) == [(0, "a"), (1, "b")]
    assert runtime.made == [(0, 0), (1, 0), (1, 1)]
    assert (runtime.killed, workers.replacements, workers.last_death) == ([(1, 0)], 1, "Socket closed")


def test_a_replacement_that_has_not_started_is_named(started, caplog):
    runtime, workers = started(2, dies=[(1, 0)])
    workers.map("work", [("a",), ("b",)])
    workers.submit(0, "work")
    workers.submit(1, "work")
    list(workers.completed())
    runtime._dies.add((1, 1))
    workers.submit(1, "work")
    runtime.is_slow = True
    list(workers.completed())
    assert "rollout workers 1 have not started yet" in caplog.text


def test_results_of_one_worker_come_in_the_order_of_its_requests_however_they_are_reported(started):
    _, workers = started(2, max_in_flight=2, finish=[(0, 1), (1, 1), (0, 0), (1, 0)])
    for number in range(2):
        for worker in range(2):
            workers.submit(worker, "work", number)
    assert [result.value for result in workers.completed()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_whoever_makes_a_successor_has_got_all_that_the_dead_worker_finished(started):
    runtime, workers = started(1, max_in_flight=3, finish=[(0, 2), (0, 1), (0, 0)])
    got, known = [], []
    make = workers._make
    workers._make = lambda worker, replacement: known.append(list(got)) or make(worker, replacement)
    for number in range(3):
        workers.submit(0, "work", number)
    for result in workers.completed():
        got.append(result.value[1])
        if len(got) == 1:  # the other two were lost; wait reports the last of them first
            runtime._dies.add((0, 0))
    assert known == [[0]]
    assert got == [0, 1, 2]
    assert (workers.replacements, workers.made_again) == (1, 2)


def test_what_is_there_is_given_out_once_though_each_result_is_followed_by_another_request(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(worker_set, "api", runtime)
    workers = WorkerSet(runtime.make, 2, max_in_flight=2)
    runtime.is_there = {(worker, number) for worker in range(2) for number in range(99)}
    for worker, number in ((0, 0), (0, 1), (1, 0)):
        workers.submit(worker, "work", number)
    got = []
    for result in workers.ready():
        got.append(result.value)
        workers.submit(result.worker, "work", "another")
    assert got == [(0, 0), (1, 0), (0, 1)]
    assert workers.in_flight(0) + workers.in_flight(1) == 3
