"""`shoal zoo` tells what was measured, and only that; `shoal results` measures; `shoal train --zoo` takes an entry."""

import json
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shoal.algorithms import zoo as entries
from shoal.scripts import results, train, zoo
from shoal.scripts.results import bootstrapped, measured, middle_mean, write


def measured_row(**changes):
    entry = entries.find("Pendulum-v1")
    fields = {
        "steps": 200_704, "seeds": (1, 2), "returns": (-170.0, -150.0), "median": -160.0, "mean": -160.0, "iqm": -160.0,
        "interval": (-170.0, -150.0), "wall_s": 41.0, "machine": "a machine", "versions": "shoal 0",
        "date": "2026-11-21", "settings": entry.settings, **changes,
    }  # fmt: skip
    return entries.Measured(**fields)


@pytest.fixture
def written(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write(path, {"Pendulum-v1": measured_row()})
    read = entries.measured
    monkeypatch.setattr(entries, "measured", lambda results=path: read(results))
    return path


def test_what_was_measured_is_read_as_it_was_written(written):
    assert entries.measured(written) == {"Pendulum-v1": measured_row()}


def test_the_list_tells_what_was_measured_and_what_was_not(written, capsys):
    assert zoo.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "not measured yet" in line]) == len(entries.ENTRIES) - 1
    [row] = [line for line in lines if line.startswith("Pendulum-v1")]
    assert " ".join(row.split()) == "Pendulum-v1 ppo 200,000 -180 2 -160.0 -160.0 -160.0 -170.0 to -150.0 41 s"
    assert "measured on a machine" in lines
    assert zoo.main(["--markdown"]) == 0
    assert "| Pendulum-v1 | ppo | 200,000 | -180 | 2 | -160.0 |" in capsys.readouterr().out


def test_an_entry_shows_its_settings_and_the_return_of_each_seed(written, capsys):
    assert zoo.main(["Pendulum-v1"]) == 0
    out = capsys.readouterr().out
    assert "  gamma = 0.9\n" in out
    assert "measured 2026-11-21 with shoal 0; return of the final evaluation, by seed:\n  1: -170.0\n  2: -150.0" in out
    assert "have changed" not in out
    write(written, {"Pendulum-v1": measured_row(settings={"gamma": 0.5})})
    assert zoo.main(["Pendulum-v1"]) == 0
    assert "the settings have changed since" in capsys.readouterr().out
    assert zoo.main(["Breakout"]) == 2
    assert capsys.readouterr().err.startswith("shoal zoo: the zoo has no 'Breakout'")


def test_training_takes_an_entrys_settings_and_flags_override_them(tmp_path):
    planned = train.plan(["--zoo", "Pendulum-v1", "--seed", "3", "--num-envs", "5", "--run-dir", str(tmp_path / "run")])
    assert planned.config == entries.find("Pendulum-v1").config(seed=3, num_envs=5)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--zoo", "Pendulum"], "the zoo has no 'Pendulum' (did you mean Pendulum-v1?)"),
        (["--zoo", "Pendulum-v1", "--resume", "somewhere"], "leave --zoo away"),
    ],
)
def test_an_entry_that_cannot_be_taken_is_one_line(flags, text, capsys):
    assert train.main(flags) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_the_mean_of_the_middle_half_leaves_out_the_lowest_and_the_highest_quarter():
    assert middle_mean([5.0, 1.0, 100.0, 2.0, 3.0]) == statistics.fmean([2.0, 3.0, 5.0])
    assert middle_mean([4.0, 6.0]) == 5.0
    values = np.random.default_rng(0).normal(10.0, 2.0, 40).tolist()
    low, high = bootstrapped(values)
    assert low < middle_mean(values) < high
    assert 1.0 < high - low < 2.5  # about 2 x 1.96 x 2 / sqrt(40), and somewhat more
    assert bootstrapped(values) == (low, high)


def finish(run_dir: Path, mean: float, steps: int) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "evaluation.json").write_text(json.dumps({"steps": steps, "mean": mean}))
    rows = "steps,time/elapsed_s\n10,1.5\n20,4.0\n30,2.0\n40,3.5\n"  # interrupted after 20 steps
    (run_dir / "progress.csv").write_text(rows)


def test_finished_runs_become_a_row(tmp_path):
    entry = entries.find("Pendulum-v1")
    for seed, mean in enumerate((-100.0, -200.0, -150.0), 1):
        finish(tmp_path / f"seed{seed}", mean, 200_704)
    told = measured(entry, [tmp_path / f"seed{seed}" for seed in (1, 2, 3)])
    assert (told.returns, told.median, told.mean) == ((-100.0, -200.0, -150.0), -150.0, -150.0)
    assert (told.steps, told.seeds, told.wall_s) == (200_704, (1, 2, 3), 7.5)
    write(tmp_path / "out.json", {entry.name: told})
    assert entries.measured(tmp_path / "out.json") == {entry.name: told}


def test_results_trains_what_is_missing_and_keeps_the_rows_of_others(tmp_path, monkeypatch, capsys):
    output, asked = tmp_path / "out.json", []
    write(output, {"Hopper-v5": measured_row()})

    def run(command, check):
        asked.append(command[3:])
        finish(Path(command[command.index("--run-dir") + 1]), -120.0, 200_704)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    flags = ["--only", "Pendulum-v1", "--seeds", "2", "--runs", str(tmp_path / "runs"), "--output", str(output)]
    assert results.main(flags) == 0
    place = tmp_path / "runs" / "Pendulum-v1"
    assert asked == [
        ["train", "--zoo", "Pendulum-v1", "--seed", str(seed), "--run-dir", str(place / f"seed{seed}")]
        for seed in (1, 2)
    ]
    assert list(entries.measured(output)) == ["Pendulum-v1", "Hopper-v5"]
    assert "Pendulum-v1: median -120.0 of 2 seeds (goal -180)" in capsys.readouterr().err


def test_results_ends_with_the_code_of_a_run_that_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 130))
    flags = ["--only", "Pendulum-v1", "--runs", str(tmp_path), "--output", str(tmp_path / "out.json")]
    assert results.main(flags) == 130
    assert "Pendulum-v1, seed 1 ended with exit code 130" in capsys.readouterr().err
    for flags, text in ((["--seeds", "0"], "--seeds must be"), (["--output", "/no/such/x.json"], "does not exist")):
        assert results.main(flags) == 2
        assert text in capsys.readouterr().err
