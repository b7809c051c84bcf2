"""What `shoal bench simulation` refuses and makes of its figures; the runs are in test_simulating.py."""

import importlib.util
import json

import numpy as np
import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks import children, simulating_mpi, simulating_report
from shoal.scripts.benchmarks.comparison import Samples
from shoal.scripts.benchmarks.simulating_report import AWAITED, DYNAMIC, MPI, POOL, gain_at_best, table, verdicts
from shoal.scripts.benchmarks.simulators import LONGEST, SHORTEST


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "0"], "--workers must be different numbers, each at least 1"),
        (["--workers", "2", "2"], "--workers must be different numbers"),
        (["--rounds", "0"], "--rounds and --batches must be at least 1"),
        (["--batches", "0"], "--rounds and --batches must be at least 1"),
        (["--step-ms", "0"], "--step-ms positive"),
        (["--json", "/no/such/folder/figures.json"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["simulation", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


@pytest.fixture
def no_mpi(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mpi4py" else find(name))


def test_all_ways_but_mpi_are_measured_without_it_and_how_to_get_it_is_one_line(no_mpi, monkeypatch, tmp_path, capsys):
    asked = []

    def run(engine, program, order):
        asked.append((program, order["work"], order["seed"]))
        yield {"steps_per_second": 50.0, **({"added": 0.0, "added_at_once": 0.0} if order["work"] == "bare" else {})}

    monkeypatch.setattr(children, "run", run)
    figures = tmp_path / "figures.json"
    few = ["--workers", "1", "64", "--rounds", "2", "--json", str(figures), "--markdown"]
    assert bench.main(["simulation", *few]) == 0
    told = capsys.readouterr()
    assert "for there is no mpi4py here; mpi4py and an MPI: pip install 'shoal[bench]'\n" in told.err
    works = ("bare", "dynamic", "awaited", "pool")
    assert asked == [("simulating.py", work, seed) for seed in (0, 1) for work in works]
    assert f"| workers | {DYNAMIC} | {AWAITED} | {POOL} | times Pool.map | at best |" in told.out
    assert "| 64 | 50/s (0%) | 50/s (0%) | 50/s (0%) | 1.00 | 1.95 |" in told.out
    assert "- 64 workers 1.00 times a barrier (goal 1.6): MISSED" in told.out
    kept = json.loads(figures.read_text())["steps_per_second"]
    assert kept["1"] == {"shoal": [50.0] * 2, "added": [0.0] * 2, "added_at_once": [0.0] * 2}
    assert kept["64"] == {DYNAMIC: [50.0] * 2, AWAITED: [50.0] * 2, POOL: [50.0] * 2}


def test_a_child_that_fails_ends_the_benchmark(no_mpi, monkeypatch, capsys):
    def run(engine, program, order):
        raise children.ChildError("it fell")
        yield

    monkeypatch.setattr(children, "run", run)
    assert bench.main(["simulation", "--workers", "2"]) == 1
    assert capsys.readouterr().err.endswith("shoal bench simulation: it fell\n")


def test_mpi_without_a_launcher_is_told_too(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(simulating_mpi, "mpirun", lambda: None)
    assert "there is no mpirun here" in simulating_report.without_mpi()
    monkeypatch.setattr(simulating_mpi, "mpirun", lambda: "/usr/bin/mpirun")
    assert simulating_report.without_mpi() == ""


def test_more_workers_than_cores_sleep_and_fewer_simulate(monkeypatch):
    monkeypatch.setattr(simulating_report.os, "cpu_count", lambda: 4)
    options = simulating_report.Options(batches=2, step_ms=3.0)
    few, many = (simulating_report.orders(count, options, has_mpi=True) for count in (4, 5))
    assert (set(few), set(many)) == ({DYNAMIC, AWAITED, MPI, POOL},) * 2
    assert few[MPI] == {"num_workers": 4, "step_s": 0.0, "batches": 50, "work": "mpi"}
    assert many[POOL] == {"num_workers": 5, "step_s": 0.003, "batches": 2, "work": "pool"}
    assert MPI not in simulating_report.orders(5, options, has_mpi=False)
    assert [order["work"] for order in simulating_report.orders(1, options, has_mpi=True).values()] == ["bare"]


def test_the_most_that_is_to_be_gained_is_the_longest_over_the_mean():
    drawn = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, (20_000, 16))
    assert gain_at_best(16) == pytest.approx(drawn.max(1).mean() / drawn.mean(), rel=0.005)
    assert gain_at_best(1) == pytest.approx(1.0)


def test_goals_are_judged_by_the_better_barrier_and_by_the_cost_of_one_worker():
    figures = {
        1: {"shoal": Samples([100.0]), "added": Samples([0.05, 0.02, 0.04]), "added_at_once": Samples([0.012])},
        2: {DYNAMIC: Samples([200.0]), AWAITED: Samples([180.0]), POOL: Samples([150.0])},
        16: {
            DYNAMIC: Samples([1500.0, 1700.0, 1600.0]), AWAITED: Samples([1200.0]), MPI: Samples([1000.0]),
            POOL: Samples([800.0]),
        },
        64: {DYNAMIC: Samples([6000.0]), AWAITED: Samples([4500.0]), MPI: Samples([4000.0]), POOL: Samples([3000.0])},
    }  # fmt: skip
    assert [str(verdict) for verdict in verdicts(figures)] == [
        "one worker that is asked for a rollout at a time takes +4.0% (goal 1.3%): MISSED",
        "one worker that is asked for 8 rollouts at a time takes +1.2% (goal 1.3%): reached",
        "16 workers 1.60 times a barrier (goal 1.4): reached",
        "64 workers 1.50 times a barrier (goal 1.6): MISSED",
    ]
    del figures[2]
    head, one, sixteen, _ = table(figures)
    assert head == ["workers", DYNAMIC, AWAITED, MPI, POOL, "times mpi4py", "times Pool.map", "at best"]
    assert one == ["1", "100/s", "", "", "", "", "", ""]
    assert sixteen == ["16", "1,600/s (12%)", "1,200/s", "1,000/s", "800/s", "1.60", "2.00", "1.87"]
    assert table({1: figures[1]}) == [["workers", "shoal"], ["1", "100/s"]]
