"""What every benchmark prints around its figures."""

import json
import os
import re

import pytest

from shoal.scripts.benchmarks import children, report
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject, Verdict
from shoal.scripts.command_line import UsageError

CELLS = [["case", "ours"], ["a", "1"]]


def test_conditions_name_versions_machine_time_and_load():
    told = report.conditions(["shoal 1", "ray 2"], "3 rounds")
    assert told.startswith("shoal 1, ray 2, Python 3.")
    assert f" with {os.cpu_count()} CPUs (" in told
    assert re.search(r"; \d{4}-\d\d-\d\d \d\d:\d\d UTC; 3 rounds; [\d.]+ processes ready to run when it began$", told)


def test_one_is_not_told_as_many():
    assert [report.counted(number, "round") for number in (1, 3)] == ["1 round", "3 rounds"]


def test_lines_stand_below_the_table_and_are_a_list_in_markdown():
    assert report.laid_out(CELLS, "here", ["goal: met", "* not"], markdown=False) == (
        "here\n\ncase  ours\na        1\n\ngoal: met\n* not"
    )
    assert report.laid_out(CELLS, "here", ["goal: met", "* not"], markdown=True) == (
        "here\n\n| case | ours |\n| --- | --: |\n| a | 1 |\n\n- goal: met\n- \\* not"
    )
    assert report.laid_out(CELLS, "here", markdown=False).endswith("a        1")


def test_a_peer_that_is_not_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"/nobody cannot be run.*: install it"):
        report.version_of(children.Engine("ray", str(tmp_path / "nobody")), "install it")


def test_every_figure_is_in_the_json():
    rows = [Row(Subject("a"), Samples([1.0, 3.0]), Samples([2.0])), Row(Subject("b"), Samples([5.0]), None)]
    told = json.loads(report.as_json(rows, [Verdict("met", True)], "here"))
    assert (told["conditions"], told["verdicts"]) == ("here", [{"text": "met", "reached": True}])
    first, second = told["cases"]
    assert (first["name"], first["ours"]["figures"], first["theirs"]["figures"]) == ("a", [1.0, 3.0], [2.0])
    assert second["theirs"] is None
