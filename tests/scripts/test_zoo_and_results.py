"""`shoal zoo` tells what was measured, and only that; `shoal results` measures; `shoal train --zoo` takes an entry."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.algorithms import zoo as entries
from shoal.rllib.config import to_dict
from shoal.rllib.policies import devices
from shoal.rllib.training import checkpoints
from shoal.scripts import results, train, zoo
from shoal.scripts.results import Options, bootstrapped, finished, measured, middle_mean, planned, write


def measured_row(**changes):
    entry = entries.find("Pendulum-v1")
    fields = {
        "steps": 200_704, "seeds": (1, 2), "returns": (-170.0, -150.0), "median": -160.0, "mean": -160.0, "iqm": -160.0,
        "interval": (-170.0, -150.0), "wall_s": 41.0, "machine": "a machine", "versions": "shoal 0",
        "date": "2026-11-21", "settings": entry.settings, "episodes": 20, "num_workers": 2, "runs_at_once": 1,
        **changes,
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
    assert "return: of the policy at the end of a run, its likeliest actions, mean of 20 episodes" in lines
    assert "a run: training one seed, median, 2 rollout workers, alone; on a machine" in lines
    assert zoo.main(["--markdown"]) == 0
    assert "| Pendulum-v1 | ppo | 200,000 | -180 | 2 | -160.0 |" in capsys.readouterr().out


def test_an_entry_shows_its_settings_and_the_return_of_each_seed(written, capsys):
    assert zoo.main(["Pendulum-v1"]) == 0
    out = capsys.readouterr().out
    assert "  gamma = 0.95\n" in out
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


def finish(run_dir: Path, mean: float, steps: int = 200_704, **changes) -> None:
    """What `shoal train` leaves of an entry's run, as far as `shoal results` reads it."""
    seed = int(run_dir.name.removeprefix("seed"))
    config = to_dict(entries.find(run_dir.parent.name).config(seed=seed, **changes))
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(json.dumps({"config": config}))
    (run_dir / "evaluation.json").write_text(json.dumps({"steps": steps, "mean": mean, "episodes": 20}))
    rows = "steps,time/elapsed_s\n10,1.5\n20,4.0\n30,2.0\n40,3.5\n"  # interrupted after 20 steps
    (run_dir / "progress.csv").write_text(rows)
    checkpoint = checkpoints.Checkpoint("ppo", {}, {"steps": steps}, {"policy": {"weight": np.zeros(1)}})
    checkpoints.save(checkpoint, checkpoints.place_for(run_dir, steps))


@pytest.fixture
def asked(monkeypatch):
    """Commands that were to be run, which a fake finishes; those of seed 13 fail."""
    commands = []

    def run_all(jobs, at_once):
        for name, (command, output) in jobs.items():
            commands.append((command[3:], output, at_once))
            if (seed13 := name.endswith("seed 13")) or "--resume" in command:
                yield name, 3 if seed13 else 0
                continue
            finish(Path(command[command.index("--run-dir") + 1]), -120.0)
            yield name, 0

    monkeypatch.setattr(results, "run_all", run_all)
    return commands


def pendulum(tmp_path, *more):
    places = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out.json")]
    return results.main(["--only", "Pendulum-v1", *places, *more])


def test_finished_runs_become_a_row(tmp_path):
    entry = entries.find("Pendulum-v1")
    for seed, mean in enumerate((-100.0, -200.0, -150.0), 1):
        finish(tmp_path / entry.name / f"seed{seed}", mean, num_workers=1)
    trials = finished(entry, tmp_path / entry.name)
    told = measured(trials)
    assert (told.returns, told.median, told.mean) == ((-100.0, -200.0, -150.0), -150.0, -150.0)
    assert (told.steps, told.seeds, told.wall_s) == (200_704, (1, 2, 3), 7.5)
    assert (told.episodes, told.num_workers, told.runs_at_once) == (20, 1, 1)
    write(tmp_path / "out.json", {entry.name: told})
    assert entries.measured(tmp_path / "out.json") == {entry.name: told}


def test_results_trains_what_is_missing_and_keeps_the_rows_of_others(tmp_path, asked, capsys):
    output = tmp_path / "out.json"
    write(output, {"Hopper-v5": measured_row()})
    assert pendulum(tmp_path, "--seeds", "2", "1") == 0
    place = tmp_path / "runs" / "Pendulum-v1"
    assert [" ".join(command) for command, _, _ in asked] == [
        f"train --zoo Pendulum-v1 --seed {seed} --run-dir {place}/seed{seed} --num-workers 2" for seed in (1, 2)
    ]
    assert list(entries.measured(output)) == ["Pendulum-v1", "Hopper-v5"]
    assert "Pendulum-v1: median -120.0 of 2 seeds (goal -180 reached)" in capsys.readouterr().err
    assert pendulum(tmp_path, "--seeds", "2", "7") == 0
    assert len(asked) == 3
    assert entries.measured(output)["Pendulum-v1"].seeds == (1, 2, 7)


def test_without_a_file_that_is_named_rows_go_beside_the_runs_and_never_into_the_package(tmp_path, asked, capsys):
    before = entries.RESULTS.read_bytes()
    runs = tmp_path / "runs"
    assert results.main(["--only", "Pendulum-v1", "--runs", str(runs), "--seeds", "1"]) == 0
    assert entries.measured(runs / "zoo_results.json")["Pendulum-v1"].seeds == (1,)
    told = capsys.readouterr().err
    assert "Pendulum-v1: median -120.0 of 1 seed (goal -180 reached)\n" in told
    assert f"shoal results: every number is in {runs / 'zoo_results.json'}\n" in told
    assert entries.RESULTS.read_bytes() == before


def test_a_row_is_not_replaced_by_one_of_fewer_seeds(tmp_path, asked, capsys):
    output = tmp_path / "out.json"
    write(output, {"Pendulum-v1": measured_row(seeds=(1, 2, 3))})
    assert pendulum(tmp_path, "--seeds", "4", "5") == 2
    assert capsys.readouterr().err == (
        f"shoal results: {output} has a row of 3 seeds for Pendulum-v1, and this one would be of 2: "
        f"give more --seeds, or another file with --output\n"
    )
    assert asked == []
    finish(tmp_path / "runs" / "Pendulum-v1" / "seed6", -150.0, num_workers=1)
    assert pendulum(tmp_path, "--seeds", "4", "5") == 0
    assert entries.measured(output)["Pendulum-v1"].seeds == (4, 5, 6)


def test_a_run_that_fails_costs_its_entrys_row_and_no_other_run(tmp_path, asked, capsys):
    assert pendulum(tmp_path, "--seeds", "13", "1", "14") == 1
    assert len(asked) == 3
    assert entries.measured(tmp_path / "out.json") == {}
    err = capsys.readouterr().err
    assert "Pendulum-v1, seed 13 ended with exit code 3\n" in err
    assert "no row for Pendulum-v1: seeds that failed: 13; the same command goes on with them" in err
    assert pendulum(tmp_path, "--seeds", "1", "14") == 0
    assert len(asked) == 3


def test_runs_at_once_have_one_worker_and_write_to_files_and_the_row_tells(tmp_path, asked, capsys):
    assert pendulum(tmp_path, "--seeds", "1", "2", "--parallel", "2") == 0
    place = tmp_path / "runs" / "Pendulum-v1" / "seed2"
    command, output, at_once = asked[1]
    assert command[-2:] == ["--num-workers", "1"]
    assert (output, at_once) == (place / "output.txt", 2)
    assert entries.measured(tmp_path / "out.json")["Pendulum-v1"].runs_at_once == 2
    assert "Pendulum-v1, seed 2: -120.0" in capsys.readouterr().err


def test_a_run_that_was_interrupted_goes_on_and_one_that_saved_nothing_is_made_anew(tmp_path, asked):
    place = tmp_path / "runs" / "Pendulum-v1"
    finish(place / "seed1", 0.0, steps=1_024)
    finish(place / "seed2", 0.0, steps=1_024)
    shutil.rmtree(place / "seed2" / "checkpoints")
    (place / "seed2" / "old").touch()
    pendulum(tmp_path, "--seeds", "1", "2", "--num-workers", "3")
    assert [command[:2] for command, _, _ in asked] == [["train", "--resume"], ["train", "--zoo"]]
    assert all(command[-2:] == ["--num-workers", "3"] for command, _, _ in asked)
    assert not (place / "seed2" / "old").exists()


def test_a_run_of_other_settings_is_refused_before_anything_is_trained(tmp_path, asked, capsys):
    place = tmp_path / "runs" / "Pendulum-v1"
    finish(place / "seed3", -90.0, num_envs=7, num_workers=1)
    assert pendulum(tmp_path) == 2
    assert "seed3 has other settings than the zoo (num_envs 7, not 4): delete or move it" in capsys.readouterr().err
    assert asked == []
    assert pendulum(tmp_path, "--seeds", "1") == 0
    assert entries.measured(tmp_path / "out.json")["Pendulum-v1"].seeds == (1,)
    (place / "seed1" / "config.json").write_text("{")
    assert pendulum(tmp_path) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_file_where_a_run_shall_go_is_told_before_anything_is_trained(tmp_path, asked, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "Pendulum-v1").touch()
    assert pendulum(tmp_path) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'runs' / 'Pendulum-v1'} is a file: name a folder" in told
    assert told.count("\n") == 1
    assert asked == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_wants_a_gpu_is_measured_where_there_is_one_or_if_it_is_named(device, monkeypatch, capsys):
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device(device))
    asked_for = {trial.entry.name for trial in planned(Options())}
    assert asked_for == {entry.name for entry in entries.ENTRIES if device == "cuda" or entry.name != "Pong"}
    assert ("left out, for want of a GPU: Pong" in capsys.readouterr().err) == (device == "cpu")
    assert {trial.entry.name for trial in planned(Options(only=("Pong",)))} == {"Pong"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--seeds", "1", "1"], "--seeds must be different whole numbers"),
        (["--seeds", "-1"], "--seeds"),
        (["--parallel", "0"], "--parallel must be at least 1"),
        (["--num-workers", "-1"], "--num-workers must be at least 1"),
        (["--num-workers", "50"], "num_envs must be at least num_workers"),
        (["--only", "Pendulum"], "did you mean Pendulum-v1?"),
        (["--output", "/no/such/x.json"], "does not exist"),
        (["--output", "."], "--output . is a folder: name a file"),
        (["--output", "/dev/null"], "--output /dev/null is no regular file"),
        (["--output", __file__], "holds something else than results of the zoo ("),
        (["--runs", __file__], f"--runs {__file__} is a file: name a folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(flags, text, tmp_path, asked, capsys):
    assert pendulum(tmp_path, *flags) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert asked == []
