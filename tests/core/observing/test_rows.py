"""Rows of the state API, and filters."""

from __future__ import annotations

import pytest

from shoal.core.errors import StateApiError
from shoal.core.observing.rows import TaskState, WorkerState, check_filters, passes, without_details


@pytest.fixture
def worker():
    return WorkerState("ab", True, "WORKER", None, "cd", "127.0.0.1", 17, exit_detail="exit code 0")


def test_a_row_indexes_like_a_dict_and_has_attributes(worker):
    assert worker["pid"] == worker.pid == worker.get("pid") == dict(worker.items())["pid"] == 17
    assert "pid" in worker
    assert "colour" not in worker
    assert worker.get("colour", "grey") == "grey"
    assert worker.asdict()["worker_type"] == "WORKER"
    with pytest.raises(KeyError):
        worker["colour"]


@pytest.mark.parametrize(
    ("entry", "passed"),
    [
        (("worker_type", "=", "worker"), True),
        (("worker_type", "!=", "WORKER"), False),
        (("pid", "=", 17), True),
        (("pid", "=", "17"), True),
        (("is_alive", "=", "true"), True),
        (("is_alive", "!=", True), False),
        (("exit_type", "=", None), True),
    ],
)
def test_filters_compare_whatever_the_case_and_the_type(worker, entry, passed):
    assert passes(worker, [entry]) is passed


def test_all_filters_must_pass(worker):
    assert not passes(worker, [("pid", "=", 17), ("ip", "!=", "127.0.0.1")])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("colour", "=", 1), "the keys are task_id"),
        (("error_message", "=", 1), "detail=True"),
        (("name", "<", 1), "predicate"),
        (("name", "f"), "filter is"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(entry, words):
    with pytest.raises(StateApiError, match=words):
        check_filters(TaskState, [entry], detail=False)


def test_details_may_be_filtered_by_when_they_are_asked_for():
    check_filters(TaskState, [("error_message", "=", "x")], detail=True)


def test_without_details_a_row_keeps_its_plain_fields(worker):
    assert without_details(worker).exit_detail is None
    assert worker.pid == 17
