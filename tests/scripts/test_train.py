"""`shoal train` with a double for the algorithm: what it refuses, what it leaves, callbacks."""

import json
import os
import time

import pytest

from shoal.rllib.training import checkpoints
from shoal.rllib.training.callbacks import Callback
from shoal.rllib.training.loggers import read_csv
from shoal.scripts.train import main, run, train as carry_out
from shoal.scripts.training_run import Plan


def test_a_run_leaves_every_file_that_was_promised(run_dir, story, capsys, train, saved_steps, logged_steps):
    assert train(run_dir, "--seed", "3") == 0
    names = {place.name.split(".out")[0] for place in run_dir.iterdir()}
    assert names == {
        "config.json", "progress.csv", "metrics.jsonl", "events", "curve.png", "evaluation.json", "checkpoints",
    }  # fmt: skip
    told = json.loads((run_dir / "config.json").read_text())
    assert (told["algorithm"], told["config"]["seed"]) == ("sample", 3)
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]
    assert saved_steps(run_dir) == [50]
    assert json.loads((run_dir / "evaluation.json").read_text())["episodes"] == 20
    assert story.events == ["init", "start with 2 workers", "evaluate 20 at 50", "close", "shutdown"]
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == f"run directory: {run_dir}"
    assert out.splitlines()[-1].startswith("evaluation at 50 steps: 20 episodes, mean return 9.50, standard deviation")


def test_rows_have_a_rate_and_the_time_since_the_start(run_dir, train):
    train(run_dir)
    rows = [row for row in read_csv(run_dir / "progress.csv") if row["iteration"]]
    assert len(rows) == 5
    assert all(float(row["steps_per_second"]) > 0 for row in rows)
    elapsed = [float(row["time/elapsed_s"]) for row in rows]
    assert elapsed == sorted(elapsed)


def test_steps_that_simulators_have_played_before_training_began_count_with_their_time(run_dir, story, capsys):
    config = story.algorithm.Config(total_steps=20)
    began_s = time.monotonic() - 100.0
    assert carry_out(Plan(story.algorithm, config, run_dir, None, played_since_s=began_s)) == 0
    first, second = (row for row in read_csv(run_dir / "progress.csv") if row["iteration"])
    assert float(first["steps_per_second"]) <= 0.1
    assert float(first["time/elapsed_s"]) >= 100.0
    assert 0.1 < float(second["steps_per_second"]) <= 0.2  # of both: the steps of the second were there already


def test_checkpoints_and_evaluations_come_at_their_intervals(run_dir, story, train, saved_steps):
    train(run_dir, "--checkpoint-interval-steps", "15", "--eval-interval-steps", "25", "--eval-episodes", "2")
    assert saved_steps(run_dir) == [20, 30, 50]
    assert [event for event in story.events if "evaluate" in event] == ["evaluate 2 at 30", "evaluate 2 at 50"]
    evaluated = [row["steps"] for row in read_csv(run_dir / "progress.csv") if row["evaluation/return_mean"]]
    assert evaluated == ["30", "50"]


def test_only_the_newest_checkpoints_stay_as_many_as_were_asked_for(run_dir, train, saved_steps):
    train(run_dir, "--checkpoint-interval-steps", "10", "--keep-checkpoints", "2")
    assert saved_steps(run_dir) == [40, 50]
    assert {place.name for place in (run_dir / "checkpoints").iterdir()} == {"step_000000040", "step_000000050", "best"}


def test_the_checkpoint_of_the_best_evaluation_is_kept_with_what_it_earned(run_dir, story, train):
    story.bonus = lambda steps: 100.0 if steps == 30 else 0.0
    train(run_dir, "--eval-interval-steps", "10", "--eval-episodes", "2", "--keep-checkpoints", "1")
    best = checkpoints.load(run_dir / "checkpoints" / "best")
    assert best.counters["steps"] == 30
    assert best.tensors["policy"]["weight"].tolist() == [30, 30]
    assert best.extra["evaluation"] == {"mean": 100.5, "std": pytest.approx(0.7071, abs=1e-4), "episodes": 2}
    story.bonus = lambda steps: 50.0
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 0
    assert checkpoints.load(run_dir / "checkpoints" / "best").counters["steps"] == 30
    story.bonus = lambda steps: 101.0
    assert main(["--resume", str(run_dir), "--total-steps", "90"]) == 0
    assert checkpoints.load(run_dir / "checkpoints" / "best").counters["steps"] == 80


class Diary(Callback):
    """Writes down when it was called, and stops training where it is told to."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.entries = []

    def on_iteration(self, algorithm, row):
        self.entries.append(("iteration", algorithm.steps))
        row["diary/pages"] = len(self.entries)
        return algorithm.steps == self.stop_at

    def on_evaluation(self, algorithm, steps, evaluation):
        self.entries.append(("evaluation", steps, evaluation.mean))

    def on_checkpoint(self, algorithm, place):
        self.entries.append(("checkpoint", place.name))

    def on_end(self, algorithm):
        self.entries.append(("end", algorithm.steps))


def test_callbacks_see_iterations_evaluations_checkpoints_and_the_end_and_add_to_the_logs(run_dir, story):
    diary = Diary()
    config = story.algorithm.Config(total_steps=20, eval_interval_steps=10, eval_episodes=2)
    assert run("sample", config, run_dir=run_dir, callbacks=[diary]) == 0
    assert diary.entries == [
        ("iteration", 10), ("evaluation", 10, 0.5), ("iteration", 20), ("checkpoint", "step_000000020"),
        ("evaluation", 20, 0.5), ("end", 20),
    ]  # fmt: skip
    assert [row["diary/pages"] for row in read_csv(run_dir / "progress.csv") if row["iteration"]] == ["1", "3"]


def test_a_callback_ends_training_and_the_run_can_go_on(run_dir, story, saved_steps, logged_steps):
    diary = Diary(stop_at=30)
    assert run("sample", story.algorithm.Config(total_steps=50), run_dir=run_dir, callbacks=[diary, Callback()]) == 0
    assert logged_steps(run_dir) == [10, 20, 30]
    assert saved_steps(run_dir) == [30]
    assert diary.entries[-1] == ("end", 30)
    assert main(["--resume", str(run_dir)]) == 0
    assert saved_steps(run_dir) == [30, 50]


MODULE_OF_CALLBACKS = """
from shoal.rllib.training.callbacks import Callback

class Fails(Callback):
    def on_iteration(self, algorithm, row):
        if algorithm.steps == 30:
            raise KeyError("my own mistake")

def broken():
    raise OSError("no licence")

number = 3
"""


def test_a_callback_that_raises_ends_the_run_with_its_own_traceback_and_the_last_checkpoint(
    run_dir, story, capsys, tmp_path, monkeypatch, train
):
    (tmp_path / "my_callbacks.py").write_text(MODULE_OF_CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    assert train(run_dir, "--callback", "my_callbacks:Fails", "--checkpoint-interval-steps", "20") == 2
    err = capsys.readouterr().err
    assert err.startswith("shoal train: callback Fails: its on_iteration raised KeyError: 'my own mistake'\nTraceback")
    assert err.endswith(f"a checkpoint of 20 steps is saved: shoal train --resume {run_dir}\n")
    assert story.events[-2:] == ["close", "shutdown"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my_callbacks", "'my_callbacks' is no module:attribute, as in my_module:MyCallback"),
        ("my_callbacks:Nothing", "'my_callbacks:Nothing' cannot be made: module 'my_callbacks' has no attribute"),
        ("no_such_module:X", "cannot be made: ModuleNotFoundError: No module named 'no_such_module'"),
        ("my_callbacks:broken", "cannot be made: OSError: no licence"),
        ("my_callbacks:number", "'my_callbacks:number' is a int, and no shoal.rllib.training.callbacks.Callback"),
    ],
)
def test_a_callback_that_cannot_be_had_is_told_in_one_line_and_nothing_is_started(
    run_dir, story, capsys, tmp_path, monkeypatch, name, text, train
):
    (tmp_path / "my_callbacks.py").write_text(MODULE_OF_CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    assert train(run_dir, "--callback", name) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert story.events == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--algo", "nosuch"], "unknown algorithm 'nosuch': choose from sample"),
        (["--env", "NoSuch-v0"], "unknown environment 'NoSuch-v0'"),
        (["--nosuch", "1"], "unknown flag --nosuch; there are these: --algo, --zoo, --run-dir, --resume"),
        (["--num-workers", "-1"], "num_workers must be at least 1, not -1"),
        (["--num-workers", "0"], "num_workers must be at least 1, not 0"),
        (["--num-workers", "two"], "--num-workers INT: "),
        (["--run-dir", os.devnull], "is a file"),
        (["--resume", "nowhere"], "nowhere is no directory: give the run directory of an earlier `shoal train`"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(story, capsys, tmp_path, monkeypatch, flags, text):
    monkeypatch.chdir(tmp_path)
    arguments = flags if "--algo" in flags else ["--algo", "sample", *flags]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("shoal train: ")
    assert text in err
    assert err.count("\n") == 1
    assert story.events == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x" * 300, "File name too long"),
        ("file/below", "is a file"),
        ("taken", "curve.png is a folder"),
        ("new\nline", None),
        ("\udcff", None),
    ],
)
def test_a_place_that_cannot_be_a_run_directory_is_refused_before_anything_starts(
    tmp_path, story, capsys, monkeypatch, name, text, train
):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "curve.png").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    if text is None:
        assert train(name) == 0
        return
    assert train(name) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1
    assert story.events == []


def test_a_folder_that_may_not_be_written_is_refused_before_anything_starts(
    tmp_path, story, capsys, monkeypatch, train
):
    # The system's answer is put in by hand: root, as whom tests may run, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (str(path) == str(tmp_path) and mode & os.W_OK))
    assert train(tmp_path / "run") == 2
    assert f"you may not write to {tmp_path}" in capsys.readouterr().err
    assert story.events == []


@pytest.mark.parametrize("name", ["progress.csv", "metrics.jsonl"])
def test_logs_that_are_no_text_are_refused_before_anything_starts(run_dir, story, capsys, name, train):
    train(run_dir)
    story.events.clear()
    capsys.readouterr()
    (run_dir / name).write_bytes(b"steps\n\xff\xfe\n")
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 2
    err = capsys.readouterr().err
    assert f"{run_dir / name} is damaged: it is not UTF-8 text" in err
    assert err.count("\n") == 1
    assert story.events == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--resume", ""], "--resume is empty: give the run directory of an earlier `shoal train`"),
        (["--run-dir", ""], "--run-dir is empty: name a folder, or leave the flag away"),
        (["--algo", ""], "--algo is empty: choose from sample, or leave the flag away"),
    ],
)
def test_an_empty_value_is_refused(tmp_path, story, capsys, monkeypatch, flags, text):
    monkeypatch.chdir(tmp_path)
    assert main(["--algo", "sample", *flags]) == 2
    assert capsys.readouterr().err == f"shoal train: {text}\n"


@pytest.mark.parametrize(
    ("counter", "told"),
    [
        (
            "workers_replaced",
            "a rollout worker died and was replaced; its rollout was made again: exit signal SIGKILL",
        ),
        ("learners/replaced", "a learner died and was replaced; its gradient was made again"),
        ("learners/shards_restarted", "a shard of the parameter server died and came back from its log"),
    ],
)
def test_who_died_and_was_replaced_is_told_once(run_dir, story, capsys, monkeypatch, counter, told, train):
    step = story.algorithm.step

    def replaced(self):
        count = int(self.steps >= 10)
        self.last_death = "exit signal SIGKILL"
        return {**step(self), counter: count}

    monkeypatch.setattr(story.algorithm, "step", replaced)
    assert train(run_dir) == 0
    assert capsys.readouterr().out.splitlines().count(told) == 1
