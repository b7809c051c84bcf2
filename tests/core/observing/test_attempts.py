"""What owners and workers tell of the same tasks becomes one row for each attempt."""

from __future__ import annotations

from shoal.core.observing.attempts import attempts


def told(state, **fields):
    return {"task_id": "t", "name": "f", "type": "NORMAL_TASK", "func_or_class_name": "f", "state": state, **fields}


def states(*rows):
    return [(task.attempt_number, task.state) for task in attempts(rows, job_id="1", node_id="2")]


def test_what_only_the_owner_knows():
    assert states(told("PENDING_ARGS_AVAIL", creation_time_ms=1.0)) == [(0, "PENDING_ARGS_AVAIL")]


def test_a_running_task_is_one_row_with_what_both_know():
    owner = told("SUBMITTED_TO_WORKER", creation_time_ms=1.0, required_resources={"CPU": 5000}, worker_id="w")
    worker = told("RUNNING", start_time_ms=2.0, worker_id="w", worker_pid=9)
    (task,) = attempts([worker, owner], job_id="1", node_id="2")
    assert (task.state, task.worker_pid, task.creation_time_ms, task.start_time_ms) == ("RUNNING", 9, 1.0, 2.0)
    assert task.required_resources == {"CPU": 0.5}
    assert task.node_id == "2"
    assert [event["state"] for event in task.events] == ["PENDING_ARGS_AVAIL", "RUNNING"]


def test_an_answer_under_way_is_no_second_attempt():
    owner, worker = told("SUBMITTED_TO_WORKER", worker_id="w"), told("FINISHED", start_time_ms=2.0, end_time_ms=3.0)
    assert states(owner, worker) == [(0, "FINISHED")]


def test_a_task_that_failed_and_waits_again_has_two_attempts():
    first = told("FAILED", start_time_ms=2.0, end_time_ms=3.0)
    assert states(told("PENDING_NODE_ASSIGNMENT"), first) == [(0, "FAILED"), (1, "PENDING_NODE_ASSIGNMENT")]


def test_attempts_are_in_order_of_time_also_those_that_a_death_ended():
    crashed = told("FAILED", end_time_ms=5.0, error_type="WORKER_DIED")
    again = told("FINISHED", start_time_ms=6.0, end_time_ms=7.0)
    assert states(again, crashed) == [(0, "FAILED"), (1, "FINISHED")]
