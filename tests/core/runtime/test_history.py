"""The record of one process: bounded, and told in Ray's words."""

from __future__ import annotations

import time

from shoal.core.runtime.history import History, task_identity

TASK, ACTOR, OWNER = b"t" * 24, b"a" * 16, b"o" * 12


def test_a_ring_keeps_the_last():
    history = History(3)
    for index in range(5):
        history.finished.append((bytes([index]) * 24, "f", b"", OWNER, 1.0, 2.0, 3.0, 4.0, ""))
    assert [row["task_id"] for row in history.rows()] == [(bytes([index]) * 24).hex() for index in (2, 3, 4)]


def test_nothing_is_kept_of_what_is_finished_when_the_length_is_zero():
    history = History(0)
    history.finished.append((TASK, "f", b"", OWNER, 1.0, 2.0, 3.0, 4.0, ""))
    history.end_wait(history.begin_wait("get", b"", []))
    assert history.rows() == history.span_rows() == []


def test_finished_work_has_its_phases_in_milliseconds_of_the_day():
    history = History(3)
    begun = time.perf_counter()
    history.finished.append((TASK, "f", b"", OWNER, begun, begun + 0.001, begun + 0.003, begun + 0.004, ""))
    (row,) = history.rows()
    assert (row["state"], row["type"], row["name"], row["error_type"]) == ("FINISHED", "NORMAL_TASK", "f", None)
    assert abs(row["start_time_ms"] / 1e3 - time.time()) < 10
    lengths = {phase: round(until - since, 1) for phase, (since, until) in row["profiling_data"].items()}
    assert lengths == {"task:deserialize_arguments": 1.0, "task:execute": 2.0, "task:store_outputs": 1.0}


def test_a_failure_says_what_was_raised_and_its_code_lasts_to_the_end():
    history = History(3)
    history.finished.append((TASK, "A.f", ACTOR, OWNER, 10.0, 10.001, 10.0, 10.004, "KeyError"))
    (row,) = history.rows()
    assert (row["state"], row["type"], row["error_type"]) == ("FAILED", "ACTOR_TASK", "TASK_EXECUTION_EXCEPTION")
    assert row["error_message"] == "raised KeyError"
    since, until = row["profiling_data"]["task:execute"]
    assert round(until - since, 1) == 3.0


def test_arguments_that_cannot_be_had_take_all_the_time():
    history = History(3)
    history.finished.append((TASK, "f", b"", OWNER, 10.0, 10.0, 10.0, 10.004, "OwnerDiedError"))
    (row,) = history.rows()
    assert row["profiling_data"]["task:execute"][0] == row["profiling_data"]["task:execute"][1]


def test_running_work_that_waits_says_for_what_verb():
    history = History(3)
    history.running[1] = (TASK, "f", b"", OWNER, time.perf_counter())
    assert [row["state"] for row in history.rows()] == ["RUNNING"]
    number = history.begin_wait("wait", TASK, [])
    assert [row["state"] for row in history.rows()] == ["RUNNING_IN_RAY_WAIT"]
    history.end_wait(number)
    (span,) = history.span_rows()
    assert (span["verb"], span["task_id"]) == ("wait", TASK.hex())
    assert span["end_time_ms"] >= span["start_time_ms"]


def test_the_creation_of_an_actor_goes_by_its_actor():
    history = History(3)
    history.running[1] = (b"", "A.__init__", ACTOR, OWNER, 0.0)
    (row,) = history.rows()
    assert (row["type"], row["actor_id"], row["task_id"][:32]) == ("ACTOR_CREATION_TASK", ACTOR.hex(), ACTOR.hex())
    assert len(row["task_id"]) == 48


def test_a_submission_that_nobody_ran_is_remembered_by_its_owner():
    history = History(3)
    identity = task_identity(TASK, "f", "NORMAL_TASK", b"", OWNER)
    history.fail(identity, "WORKER_DIED", "signal SIGKILL", submitted_s=time.perf_counter(), worker_id=b"w" * 12)
    (row,) = history.rows()
    assert (row["state"], row["error_type"], row["worker_id"]) == ("FAILED", "WORKER_DIED", (b"w" * 12).hex())
    assert row["creation_time_ms"] <= row["end_time_ms"]
