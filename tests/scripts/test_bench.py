"""`shoal bench core`: what it refuses, what it chooses, and one tiny run."""

import json

import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks.cases import CASES, measure
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject
from shoal.scripts.benchmarks.life_cycle import STAGES


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--seconds", "0"], "--seconds positive"),
        (["--seconds", "nan"], "--seconds must be a finite number, not nan"),
        (["--only", "no such case"], "is in the name of no case; they are: single client get calls"),
        (["--ray-python", "python3"], "give --vs ray, too"),
        (["--json", "/no/such/folder/figures.json"], "its folder does not exist"),
        (["--vs", "spark"], "--vs"),
        (["--vs", "ray", "--ray-python", "/no/such/python"], "pip install 'shoal[ray]'"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["core", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.err.startswith("shoal bench: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_every_case_of_rays_own_microbenchmark_is_there():
    # `timeit(...)` in ray/_private/ray_perf.py of Ray 2.60, in their order; those of the remote client are left out.
    assert [name for name, case in CASES.items() if case.is_of_ray] == [
        "single client get calls (Plasma Store)",
        "single client put calls (Plasma Store)",
        "multi client put calls (Plasma Store)",
        "single client put gigabytes",
        "single client tasks and get batch",
        "multi client put gigabytes",
        "single client get object containing 10k refs",
        "single client wait 1k refs",
        "single client tasks sync",
        "single client tasks async",
        "multi client tasks async",
        "1:1 actor calls sync",
        "1:1 actor calls async",
        "1:1 actor calls concurrent",
        "1:n actor calls async",
        "n:n actor calls async",
        "n:n actor calls with arg async",
        "1:1 async-actor calls sync",
        "1:1 async-actor calls async",
        "1:1 async-actor calls with args async",
        "1:n async-actor calls async",
        "n:n async-actor calls async",
        "placement group create/removal",
    ]


def test_every_ceiling_is_a_case():
    assert {case.ceiling for case in CASES.values() if case.ceiling} <= set(CASES)


def test_only_chooses_by_name_and_brings_the_ceiling_along():
    assert [subject.name for subject in bench.subjects("put gigabytes, random")] == [
        "single client put gigabytes, random data",
        "ceiling: copy random data",
    ]
    assert [subject.name for subject in bench.subjects("life cycle")] == list(STAGES)
    assert [subject.name for subject in bench.subjects("")] == [*CASES, *STAGES]
    assert bench.subjects("no such case") == []


def test_engines_take_turns_every_few_cases_and_no_ceiling_is_parted_from_its_case():
    chosen = bench.subjects("")
    parts = bench.turns(chosen)
    assert [subject for part in parts for subject in part] == chosen
    assert max(map(len, parts[:-1])) <= 6
    assert [subject.name for subject in parts[-1]] == list(STAGES)
    for part in parts:
        names = {subject.name for subject in part}
        assert {subject.ceiling for subject in part if subject.ceiling} <= names
    assert bench.turns([]) == []


def test_a_case_is_measured_for_the_time_it_is_given():
    steps: list[int] = []
    figure = measure(lambda: steps.append(1), 3, 0.01)
    assert 0 < figure < 3 * len(steps) / 0.01


def test_the_report_says_what_is_left_out_when_it_compares():
    rows = [Row(Subject("a"), Samples([20.0]), Samples([1.0]))]
    assert "ray://" in bench.summary(rows, "ray 2.60.0", "here and now", markdown=False)
    assert "ray://" not in bench.summary([Row(Subject("a"), Samples([20.0]), None)], "", "", markdown=False)
    markdown = bench.summary(rows, "ray 2.60.0", "here and now", markdown=True)
    assert "| a | 20.0/s |  | 1.00/s |  | 20.0 |  |" in markdown
    assert "- geometric mean of 1 cases 20.0 (goal 10): reached" in markdown


def test_a_tiny_run_prints_the_table_and_writes_every_figure(tmp_path, capsys):
    target = tmp_path / "figures.json"
    code = bench.main(
        ["core", "--only", "tasks s", "--rounds", "2", "--seconds", "0.05", "--num-cpus", "1", "--json", str(target)]
    )
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "single client tasks sync" in told.out
    (case,) = json.loads(target.read_text())["cases"]
    assert case["name"] == "single client tasks sync"
    assert len(case["ours"]["figures"]) == 2
    assert min(case["ours"]["figures"]) > 0


def test_without_ray_one_line_says_how_to_install_it(capsys, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ray'\" >&2\nexit 1\n")
    python.chmod(0o755)
    assert bench.main(["core", "--vs", "ray", "--ray-python", str(python)]) == 2
    assert "No module named 'ray': pip install 'shoal[ray]', or name an interpreter" in capsys.readouterr().err
