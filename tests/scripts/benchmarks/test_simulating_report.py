"""What `shoal bench simulation` refuses and makes of its figures; the runs are in test_simulating.py."""

import importlib.util
import json

import numpy as np
import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks import children, simulating_mpi, simulating_report
from shoal.scripts.benchmarks.comparison import Samples
from shoal.scripts.benchmarks.simulating_report import AWAITED, DYNAMIC, MPI, POOL, gain_at_best, notes, table, verdicts
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


#: A turn of one worker.
ONE = {f"{kind}_{what}": 0.01 for what in ("one", "some", "all") for kind in ("added", "processor")}


@pytest.fixture
def no_mpi(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mpi4py" else find(name))


def test_all_ways_but_mpi_are_measured_without_it_and_how_to_get_it_is_one_line(no_mpi, monkeypatch, tmp_path, capsys):
    asked = []

    def run(engine, program, order):
        asked.append((program, order["work"], order["seed"]))
        if order["work"] == "single":
            yield {"shoal": 50.0, **ONE}
            yield {"shoal": 50.0, **ONE}
        else:
            yield {"steps_per_second": 50.0}

    monkeypatch.setattr(children, "run", run)
    figures = tmp_path / "figures.json"
    few = ["--workers", "1", "64", "--rounds", "2", "--json", str(figures), "--markdown"]
    assert bench.main(["simulation", *few]) == 0
    told = capsys.readouterr()
    assert "for there is no mpi4py here; mpi4py and an MPI: pip install 'shoal[bench]'\n" in told.err
    works = ("dynamic", "awaited", "pool")
    ways = [("single_worker.py", "single"), *(("simulating.py", work) for work in works)]
    assert asked == [(*way, seed) for seed in (0, 1) for way in ways]
    assert f"| workers | {DYNAMIC} | {AWAITED} | {POOL} | times Pool.map | at best |" in told.out
    assert "| 64 | 50/s (0%) | 50/s (0%) | 50/s (0%) | 1.00 | 1.95 |" in told.out
    assert "- 64 workers 1.00 times a barrier (goal 1.6): MISSED" in told.out
    kept = json.loads(figures.read_text())["steps_per_second"]
    assert kept["1"] == {"shoal": [50.0] * 4, **{name: [figure] * 4 for name, figure in ONE.items()}}
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
    assert [order["work"] for order in simulating_report.orders(1, options, has_mpi=True).values()] == ["single"]


def test_the_most_that_is_to_be_gained_is_the_longest_over_the_mean():
    drawn = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, (20_000, 16))
    assert gain_at_best(16) == pytest.approx(drawn.max(1).mean() / drawn.mean(), rel=0.005)
    assert gain_at_best(1) == pytest.approx(1.0)


def test_goals_are_judged_by_the_better_barrier_and_by_the_cost_of_one_worker():
    figures = {
        1: {
            "shoal": Samples([100.0]),
            "added_one": Samples([0.05, 0.02, 0.04]), "processor_one": Samples([0.02, 0.02, 0.03]),
            "added_some": Samples([0.012] * 3), "processor_some": Samples([0.01] * 3),
            "added_all": Samples([0.0, 0.01, 0.02]), "processor_all": Samples([0.0, 0.0, 0.01]),
        },
        2: {DYNAMIC: Samples([200.0]), AWAITED: Samples([180.0]), POOL: Samples([150.0])},
        16: {
            DYNAMIC: Samples([1500.0, 1700.0, 1600.0]), AWAITED: Samples([1200.0]), MPI: Samples([1000.0]),
            POOL: Samples([800.0]),
        },
        64: {DYNAMIC: Samples([6000.0]), AWAITED: Samples([4500.0]), MPI: Samples([4000.0]), POOL: Samples([3000.0])},
    }  # fmt: skip
    one_by_one, some, *barriers = (str(verdict) for verdict in verdicts(figures))
    a_rollout = "a rollout at a time takes +4.0% (+3.0% to +4.5%); of processor time +2.0% (+2.0% to +2.5%)"
    assert one_by_one == f"one worker that is asked for {a_rollout} (goal 1.3%): MISSED"
    at_once = "8 rollouts at a time takes +1.2% (+1.2% to +1.2%); of processor time +1.0% (+1.0% to +1.0%)"
    assert some == f"one worker that is asked for {at_once} (goal 1.3%): reached"
    assert barriers == [
        "16 workers 1.60 times a barrier (goal 1.4): reached",
        "64 workers 1.50 times a barrier (goal 1.6): MISSED",
    ]
    everything = "all 48 rollouts at a time takes +1.0% (+0.5% to +1.5%); of processor time +0.0% (+0.0% to +0.5%)"
    no_more = "no more than two processes differ that play the same"
    at_once = [
        # 1.05 / 1, 1.02 / 1.01, 1.04 / 1.02; and 1.02 / 1, 1.02 / 1, 1.03 / 1.01
        "a rollout at a time, +2.0% (+1.5% to +3.5%); of processor time +2.0% (+2.0% to +2.0%)",
        "8 rollouts at a time, +0.2% (-0.3% to +0.7%); of processor time +1.0% (+0.5% to +1.0%)",
    ]
    beside = "beside itself when asked for all at once it takes, by"
    assert notes(figures) == [
        f"one worker that is asked for {everything}: {no_more}",
        *(f"{beside} {each}" for each in at_once),
    ]
    assert notes({2: figures.pop(2)}) == []
    head, one, sixteen, _ = table(figures)
    assert head == ["workers", DYNAMIC, AWAITED, MPI, POOL, "times mpi4py", "times Pool.map", "at best"]
    assert one == ["1", "100/s", "", "", "", "", "", ""]
    assert sixteen == ["16", "1,600/s (12%)", "1,200/s", "1,000/s", "800/s", "1.60", "2.00", "1.87"]
    assert table({1: figures[1]}) == [["workers", "shoal"], ["1", "100/s"]]
