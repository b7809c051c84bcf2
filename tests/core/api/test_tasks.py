"""Tasks: results, arguments, errors, nesting, resources."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal import exceptions

DEADLINE_S = 30
#: What is said on a Ray cluster of a process that is gone.
ON_RAY = "worker died unexpectedly"


@shoal.remote
def add(a, b=0):
    return a + b


@shoal.remote
def wait_for(path):
    """Runs until there is such a file."""
    ends = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.01)


@shoal.remote
def fail(message):
    raise ValueError(message)


def test_a_task_returns_its_value():
    assert shoal.get(add.remote(1, b=2), timeout=DEADLINE_S) == 3


def test_a_thousand_tasks_return_in_order():
    assert shoal.get([add.remote(i) for i in range(1000)], timeout=DEADLINE_S) == list(range(1000))


def test_top_level_refs_become_values_and_refs_in_containers_stay_refs():
    @shoal.remote
    def look(value, container):
        return value, isinstance(container[0], shoal.ObjectRef), shoal.get(container[0])

    ref = shoal.put("x")
    assert shoal.get(look.remote(ref, [ref]), timeout=DEADLINE_S) == ("x", True, "x")


def test_keyword_refs_become_values_too():
    assert shoal.get(add.remote(1, b=add.remote(2, 3)), timeout=DEADLINE_S) == 6


def test_several_returns_are_several_refs_and_none_is_none():
    @shoal.remote
    def numbers(n):
        return list(range(n))

    refs = numbers.options(num_returns=3).remote(3)
    assert shoal.get(refs, timeout=DEADLINE_S) == [0, 1, 2]
    assert numbers.options(num_returns=0).remote(3) is None
    with pytest.raises(ValueError, match="num_returns=3"):
        shoal.get(numbers.options(num_returns=3).remote(2), timeout=DEADLINE_S)


def test_an_error_is_an_instance_of_its_cause_and_carries_the_remote_traceback():
    with pytest.raises(ValueError, match="what went wrong") as caught:
        shoal.get(fail.remote("what went wrong"), timeout=DEADLINE_S)
    assert isinstance(caught.value, exceptions.TaskError)
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert type(caught.value.cause) is ValueError
    assert "test_tasks.py" in str(caught.value)
    assert "execution.py" not in str(caught.value), "the runtime's own frames are hidden"


def test_a_task_whose_argument_failed_does_not_run_and_fails_with_the_same_cause():
    with pytest.raises(ValueError, match="first"):
        shoal.get(add.remote(fail.remote("first"), 1), timeout=DEADLINE_S)
    with pytest.raises(ValueError, match="first"):
        shoal.get(add.remote(add.remote(add.remote(fail.remote("first")))), timeout=DEADLINE_S)


@pytest.mark.not_inline("needs a task that is still running")
def test_get_of_a_list_raises_as_soon_as_one_fails(tmp_path):
    pending = wait_for.remote(tmp_path / "go")
    with pytest.raises(ValueError, match="early"):
        shoal.get([pending, fail.remote("early")], timeout=DEADLINE_S)
    (tmp_path / "go").touch()
    shoal.get(pending, timeout=DEADLINE_S)


def test_nested_tasks_do_not_deadlock_though_there_are_fewer_cpus_than_levels():
    @shoal.remote
    def depth(n):
        return 0 if n == 0 else 1 + shoal.get(depth.remote(n - 1))

    assert shoal.get(depth.remote(8), timeout=DEADLINE_S) == 8


def test_a_task_that_waits_for_one_queued_behind_it_gets_it():
    @shoal.remote
    def quick(x):
        return x

    # measured as short, so many are sent to one worker
    shoal.get([quick.remote(i) for i in range(200)], timeout=DEADLINE_S)

    @shoal.remote
    def parent(n):
        return sum(shoal.get([quick.remote(i) for i in range(n)]))

    assert shoal.get([parent.remote(50) for _ in range(8)], timeout=DEADLINE_S) == [sum(range(50))] * 8


@pytest.mark.not_inline("needs tasks that run beside each other")
def test_short_tasks_are_not_trapped_behind_a_long_one(tmp_path):
    shoal.get([wait_for.remote(tmp_path) for _ in range(300)], timeout=DEADLINE_S)  # measured as short
    refs = [wait_for.remote(tmp_path / "go" if i == 0 else tmp_path) for i in range(100)]
    shoal.get(refs[1:], timeout=DEADLINE_S)
    (tmp_path / "go").touch()
    shoal.get(refs[0], timeout=DEADLINE_S)


@pytest.mark.not_inline("needs tasks that run beside each other")
def test_num_cpus_bounds_what_runs_at_once():
    @shoal.remote(num_cpus=1)
    def span():
        begun = time.monotonic()
        time.sleep(0.1)
        return begun, time.monotonic()

    spans = shoal.get([span.remote() for _ in range(8)], timeout=DEADLINE_S)
    most = max(sum(a <= begun < b for a, b in spans) for begun, _ in spans)
    assert most <= 2


@pytest.mark.not_on_ray("a cluster may grow: there it waits, who waits for it is told (ray_cluster/test_demands.py)")
def test_a_demand_that_can_never_be_met_fails_and_says_what_is_missing():
    with pytest.raises(exceptions.TaskUnschedulableError, match=r"needs CPU 64, this machine has CPU 2"):
        shoal.get(add.options(num_cpus=64).remote(1), timeout=DEADLINE_S)
    with pytest.raises(exceptions.TaskUnschedulableError, match="GPU"):
        shoal.get(add.options(num_gpus=1).remote(1), timeout=DEADLINE_S)


@pytest.mark.not_inline("needs tasks that run beside each other")
def test_tasks_without_cpu_run_though_all_cpus_are_taken(tmp_path):
    held = [wait_for.remote(tmp_path / "go") for _ in range(2)]
    assert shoal.get(add.options(num_cpus=0).remote(1, 1), timeout=DEADLINE_S) == 2
    assert shoal.wait(held, timeout=0)[0] == [], "it did not wait for them"
    (tmp_path / "go").touch()
    shoal.get(held, timeout=DEADLINE_S)


@pytest.mark.not_inline("kills its process")
def test_a_killed_worker_is_replaced_and_its_task_runs_again(tmp_path):
    marker = tmp_path / "ran"

    @shoal.remote
    def die_once():
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second"

    assert shoal.get(die_once.remote(), timeout=DEADLINE_S) == "second"


@pytest.mark.not_inline("kills its process")
def test_a_task_that_always_dies_fails_with_the_signal_after_its_retries(tmp_path):
    @shoal.remote(max_retries=2)
    def die():
        with (tmp_path / "runs").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(exceptions.WorkerCrashedError, match=f"SIGKILL|{ON_RAY}"):
        shoal.get(die.remote(), timeout=DEADLINE_S)
    assert (tmp_path / "runs").read_text() == "xxx"


@pytest.mark.not_inline("kills its process")
def test_a_task_without_retries_runs_once_and_takes_no_other_with_it(tmp_path):
    @shoal.remote(max_retries=0)
    def f(i):
        with (tmp_path / str(i)).open("a") as file:
            file.write("x")
        if i == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    shoal.get([f.remote(10 + i) for i in range(50)], timeout=DEADLINE_S)  # measured as short
    refs = [f.remote(i) for i in range(8)]
    for i, ref in enumerate(refs):
        if i == 3:
            with pytest.raises(exceptions.WorkerCrashedError, match=f"SIGKILL|{ON_RAY}"):
                shoal.get(ref, timeout=DEADLINE_S)
        else:
            assert shoal.get(ref, timeout=DEADLINE_S) == i
        assert (tmp_path / str(i)).read_text() == "x"


def test_exceptions_are_retried_only_when_asked_and_only_those(tmp_path):
    @shoal.remote(max_retries=2)
    def fail(kind):
        with (tmp_path / kind.__name__).open("a") as file:
            file.write("x")
        raise kind("no")

    for options, kind, runs in [
        ({}, KeyError, 1),
        ({"retry_exceptions": True}, OSError, 3),
        ({"retry_exceptions": [ValueError]}, ValueError, 3),
        ({"retry_exceptions": [ValueError]}, TypeError, 1),
    ]:
        with pytest.raises(kind):
            shoal.get(fail.options(**options).remote(kind), timeout=DEADLINE_S)
        assert (tmp_path / kind.__name__).read_text() == "x" * runs


def test_the_exit_code_of_a_task_that_leaves_is_told():
    @shoal.remote(max_retries=0)
    def leave():
        raise SystemExit(7)

    with pytest.raises(exceptions.WorkerCrashedError, match=f"exit code 7|{ON_RAY}"):
        shoal.get(leave.remote(), timeout=DEADLINE_S)


@pytest.mark.parametrize(("ending", "code"), [("return", 0), ("exit", 5), ("raise", 1)])
def test_a_process_that_a_task_forks_ends_and_the_task_goes_on(ending, code):
    @shoal.remote(max_retries=0)
    def fork():
        child = os.fork()
        if child == 0:
            if ending == "exit":
                raise SystemExit(5)
            if ending == "raise":
                raise KeyError("in the child")
            return "the child's result goes nowhere"
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert shoal.get(fork.remote(), timeout=DEADLINE_S) == code


@pytest.mark.native_only("kills its process; what a worker of Ray's has forked outlives it")
def test_what_a_task_has_forked_ends_with_its_worker(has_ended):
    @shoal.remote(max_retries=0)
    def leave_a_child():
        child = os.fork()
        if child == 0:
            time.sleep(100)
        return child, os.getpid()

    child, worker = shoal.get(leave_a_child.remote(), timeout=DEADLINE_S)
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not has_ended(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_error_that_cannot_even_be_pickled_by_force_does_not_kill_the_worker():
    class RefusalError(Exception):
        def __reduce__(self):
            raise SystemExit("no")

    @shoal.remote(max_retries=0)
    def fail():
        raise RefusalError("text")

    with pytest.raises(exceptions.TaskError, match="text"):
        shoal.get(fail.remote(), timeout=DEADLINE_S)


@pytest.mark.not_inline("compares processes")
def test_workers_do_not_share_numpys_random_stream(tmp_path):
    @shoal.remote
    def draw():
        (tmp_path / f"{os.getpid()}").touch()
        ends = time.monotonic() + DEADLINE_S
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < ends
            time.sleep(0.01)
        return os.getpid(), np.random.random()  # noqa: NPY002  the global stream is what forks share

    drawn = dict(shoal.get([draw.remote() for _ in range(4)], timeout=DEADLINE_S))
    assert len(drawn) > 1
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: add(1, 2), TypeError, "cannot be called directly"),
        (lambda: add.remote(), TypeError, "missing a required argument"),
        (lambda: add.remote(1, 2, 3), TypeError, "too many positional"),
        (lambda: add.remote(1, c=2), TypeError, "unexpected keyword"),
        (lambda: add.options(num_cpus=-1), ValueError, "num_cpus"),
        (lambda: add.options(nonsense=1), ValueError, "nonsense"),
        (lambda: add.options(resources={"CPU": 1}), ValueError, "CPU"),
        (lambda: add.options(max_retries=-2), ValueError, "max_retries"),
        (lambda: add.options(runtime_env={"pipp": ["x"]}), ValueError, "unknown key 'pipp'"),
        (lambda: shoal.remote(3), TypeError, "functions and classes"),
        (lambda: shoal.remote(), AssertionError, "keyword options"),
        (lambda: add.remote(threading.Lock()), TypeError, "serialize"),
    ],
)
def test_mistakes_are_told_at_the_call_site(call, error, text):
    with pytest.raises(error, match=text):
        call()
