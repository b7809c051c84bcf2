"""`shoal train` with a double for the algorithm: what it refuses, what it leaves, how it is stopped and resumed."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest

import shoal
from shoal.envs.vector import EnvFailure
from shoal.rllib import checkpoints
from shoal.rllib.callbacks import Callback
from shoal.rllib.learner import DivergedError
from shoal.rllib.loggers import read_csv
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts.train import main, run


@pytest.fixture
def run_dir(tmp_path, story):
    return tmp_path / "run"


def train(run_dir, *flags: str) -> int:
    return main(["--algo", "sample", "--total-steps", "50", "--run-dir", str(run_dir), *flags])


def saved_steps(run_dir) -> list[int]:
    return sorted(int(place.name.removeprefix("step_")) for place in (run_dir / "checkpoints").glob("step_*"))


def logged_steps(run_dir) -> list[int]:
    return [int(row["steps"]) for row in read_csv(run_dir / "progress.csv") if row["iteration"]]


def test_a_run_leaves_every_file_that_was_promised(run_dir, story, capsys):
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


def test_rows_have_a_rate_and_the_time_since_the_start(run_dir):
    train(run_dir)
    rows = [row for row in read_csv(run_dir / "progress.csv") if row["iteration"]]
    assert len(rows) == 5
    assert all(float(row["steps_per_second"]) > 0 for row in rows)
    elapsed = [float(row["time/elapsed_s"]) for row in rows]
    assert elapsed == sorted(elapsed)


def test_checkpoints_and_evaluations_come_at_their_intervals(run_dir, story):
    train(run_dir, "--checkpoint-interval-steps", "15", "--eval-interval-steps", "25", "--eval-episodes", "2")
    assert saved_steps(run_dir) == [20, 30, 50]
    assert [event for event in story.events if "evaluate" in event] == ["evaluate 2 at 30", "evaluate 2 at 50"]
    evaluated = [row["steps"] for row in read_csv(run_dir / "progress.csv") if row["evaluation/return_mean"]]
    assert evaluated == ["30", "50"]


def test_only_the_newest_checkpoints_stay_as_many_as_were_asked_for(run_dir):
    train(run_dir, "--checkpoint-interval-steps", "10", "--keep-checkpoints", "2")
    assert saved_steps(run_dir) == [40, 50]
    assert {place.name for place in (run_dir / "checkpoints").iterdir()} == {"step_000000040", "step_000000050", "best"}


def test_the_checkpoint_of_the_best_evaluation_is_kept_with_what_it_earned(run_dir, story):
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


def test_a_best_checkpoint_that_is_damaged_is_named_on_resume(run_dir, capsys):
    train(run_dir)
    (run_dir / "checkpoints" / "best" / "policy.safetensors").write_bytes(b"")
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 2
    assert "best/policy.safetensors is damaged" in capsys.readouterr().err


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


def test_a_callback_ends_training_and_the_run_can_go_on(run_dir, story):
    diary = Diary(stop_at=30)
    assert run("sample", story.algorithm.Config(total_steps=50), run_dir=run_dir, callbacks=[diary, Callback()]) == 0
    assert logged_steps(run_dir) == [10, 20, 30]
    assert saved_steps(run_dir) == [30]
    assert diary.entries[-1] == ("end", 30)
    assert main(["--resume", str(run_dir)]) == 0
    assert saved_steps(run_dir) == [30, 50]


MODULE_OF_CALLBACKS = """
from shoal.rllib.callbacks import Callback

class Fails(Callback):
    def on_iteration(self, algorithm, row):
        if algorithm.steps == 30:
            raise KeyError("my own mistake")

def broken():
    raise OSError("no licence")

number = 3
"""


def test_a_callback_that_raises_ends_the_run_with_its_own_traceback_and_the_last_checkpoint(
    run_dir, story, capsys, tmp_path, monkeypatch
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
        ("my_callbacks:number", "'my_callbacks:number' is a int, and no shoal.rllib.callbacks.Callback"),
    ],
)
def test_a_callback_that_cannot_be_had_is_told_in_one_line_and_nothing_is_started(
    run_dir, story, capsys, tmp_path, monkeypatch, name, text
):
    (tmp_path / "my_callbacks.py").write_text(MODULE_OF_CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    assert train(run_dir, "--callback", name) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert story.events == []


def test_a_resumed_run_goes_on_from_its_newest_checkpoint_with_its_settings(run_dir, story):
    train(run_dir, "--rollout-steps", "5", "--checkpoint-interval-steps", "20")
    story.events.clear()
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 0
    assert "restore 50" in story.events
    assert logged_steps(run_dir) == list(range(5, 75, 5))
    assert json.loads((run_dir / "config.json").read_text())["config"]["total_steps"] == 70
    assert saved_steps(run_dir)[-1] == 70


def test_rows_after_the_checkpoint_are_made_again(run_dir, story):
    def fail_late(steps: int) -> None:
        if steps == 40:
            raise EnvFailure("worker 0, environment 1: its step raised")

    story.on_step = fail_late
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 2
    assert logged_steps(run_dir) == [10, 20, 30]
    story.on_step = lambda steps: None
    assert main(["--resume", str(run_dir)]) == 0
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]


def test_a_run_that_was_stopped_before_its_evaluation_gets_it_on_resume(run_dir, story):
    train(run_dir)
    (run_dir / "evaluation.json").unlink()
    assert main(["--resume", str(run_dir)]) == 0
    assert (run_dir / "evaluation.json").exists()
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]


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


def test_a_directory_that_holds_a_run_is_refused(run_dir, story, capsys):
    train(run_dir)
    story.events.clear()
    capsys.readouterr()
    assert train(run_dir) == 2
    assert f"already holds a run: go on with --resume {run_dir}" in capsys.readouterr().err
    assert story.events == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "has done its 50 steps: to go on, give a larger --total-steps"),
        (["--env", "Acrobot-v1"], "learns CartPole-v1, not Acrobot-v1: drop --env"),
        (["--run-dir", "elsewhere"], "leave --run-dir away"),
    ],
)
def test_a_run_that_cannot_go_on_so_is_refused(run_dir, story, capsys, flags, text):
    train(run_dir)
    story.events.clear()
    capsys.readouterr()
    assert main(["--resume", str(run_dir), *flags]) == 2
    assert text in capsys.readouterr().err
    assert story.events == []


def test_a_run_without_a_checkpoint_has_one_way_out_whichever_flag_names_it(run_dir, story, capsys):
    def fail(steps: int) -> None:
        raise EnvFailure("worker 0, environment 1: its step raised")

    story.on_step = fail
    assert train(run_dir) == 2
    story.events.clear()
    capsys.readouterr()
    told = []
    for flag in ("--run-dir", "--resume"):
        assert main(["--algo", "sample", flag, str(run_dir)]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert told[0] == (
        f"shoal train: the run in {run_dir} saved no checkpoint, so it cannot go on: "
        f"delete the folder, or start anew with another --run-dir\n"
    )
    assert story.events == []


def test_an_evaluation_of_earlier_steps_does_not_stand_for_the_last_one(run_dir, story):
    at: list[int] = []
    story.on_evaluate = lambda: os.kill(os.getpid(), signal.SIGINT) if at[-1] == 50 else None
    story.on_step = lambda steps: at.append(steps)
    assert train(run_dir, "--eval-interval-steps", "20") == 130
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 40
    story.on_evaluate = lambda: None
    assert main(["--resume", str(run_dir)]) == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 50
    assert main(["--resume", str(run_dir)]) == 2


def test_an_evaluation_that_was_cut_while_it_was_written_is_made_again(run_dir):
    train(run_dir)
    (run_dir / "evaluation.json").write_text('{"steps": 5')
    assert main(["--resume", str(run_dir)]) == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 50


def test_a_run_directory_in_use_is_refused_to_a_second_run_in_one_line(run_dir, story, capsys):
    refused = []

    def try_again(steps: int) -> None:
        if steps == 30 and not refused:
            refused.append(train(run_dir))
            refused.append(main(["--resume", str(run_dir)]))

    story.on_step = try_again
    assert train(run_dir, "--checkpoint-interval-steps", "10") == 0
    assert refused == [2, 2]
    in_use = f"shoal train: another shoal train is at work in {run_dir}: wait for its end, or name another folder\n"
    assert capsys.readouterr().err == in_use * 2
    assert story.events.count("init") == 1
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 0


def test_a_damaged_checkpoint_is_named_and_nothing_is_started(run_dir, story, capsys):
    train(run_dir, "--checkpoint-interval-steps", "20")
    story.events.clear()
    capsys.readouterr()
    path = checkpoints.place_for(run_dir, 50) / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 2
    told = capsys.readouterr().err
    assert f"{path} is damaged" in told
    assert f"; without the folder {path.parent} the run goes on from the checkpoint before\n" in told
    assert story.events == []
    shutil.rmtree(path.parent)
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 0
    for steps in saved_steps(run_dir)[:-1]:
        shutil.rmtree(checkpoints.place_for(run_dir, steps))
    (checkpoints.latest(run_dir) / "policy.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert main(["--resume", str(run_dir), "--total-steps", "90"]) == 2
    assert "goes on from" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [({"counters": {}}, "has no counter 'steps'; it counts nothing"), ({"config": {}}, "learns")],
)
def test_a_checkpoint_that_lacks_something_is_told_and_nothing_is_started(run_dir, story, capsys, change, text):
    train(run_dir, "--env", "Acrobot-v1")
    story.events.clear()
    capsys.readouterr()
    place = checkpoints.latest(run_dir)
    checkpoints.save(replace(checkpoints.load(place), **change), place)
    assert main(["--resume", str(run_dir), "--env", "Acrobot-v1", "--total-steps", "70"]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert story.events == []


def test_resume_wants_the_run_and_not_one_of_its_checkpoints(run_dir, story, capsys):
    train(run_dir)
    assert main(["--resume", str(checkpoints.place_for(run_dir, 50))]) == 2
    assert "is a checkpoint: give the run directory that it is in" in capsys.readouterr().err


def test_an_environment_that_raises_shows_its_traceback_and_nothing_is_left_running(run_dir, story, capsys):
    def fail(steps: int) -> None:
        raise EnvFailure("worker 1, environment 5: its step raised E: boom\nTraceback (most recent call last):")

    story.on_step = fail
    assert train(run_dir) == 2
    assert capsys.readouterr().err == (
        "shoal train: worker 1, environment 5: its step raised E: boom\nTraceback (most recent call last):\n"
    )
    assert story.events[-2:] == ["close", "shutdown"]


def test_an_algorithm_that_cannot_start_leaves_no_run_directory(run_dir, story, capsys):
    def fail() -> None:
        raise EnvFailure("worker 0, environment 0: its constructor raised OSError: no ROM")

    story.on_start = fail
    assert train(run_dir) == 2
    assert "its constructor raised" in capsys.readouterr().err
    assert story.events == ["init", "start with 2 workers", "shutdown"]
    assert not run_dir.exists()


def test_an_error_of_ours_keeps_its_traceback_and_shuts_down(run_dir, story):
    def fail(steps: int) -> None:
        raise ZeroDivisionError

    story.on_step = fail
    with pytest.raises(ZeroDivisionError):
        train(run_dir)
    assert story.events[-2:] == ["close", "shutdown"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(run_dir, story, capsys, request, number, code):
    if signal.getsignal(number) is signal.SIG_IGN:  # the tests themselves run under nohup
        signal.signal(number, signal.SIG_DFL)
        request.addfinalizer(lambda: signal.signal(number, signal.SIG_IGN))
    story.on_step = lambda steps: os.kill(os.getpid(), number) if steps == 20 else None
    assert train(run_dir) == code
    assert saved_steps(run_dir) == [20]
    assert logged_steps(run_dir) == [10, 20]
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == (
        f"interrupted at 20 steps; a checkpoint of 20 steps is saved: shoal train --resume {run_dir}"
    )
    assert "stopping after this iteration; once more to leave at once" in out
    assert story.events[-2:] == ["close", "shutdown"]
    story.on_step = lambda steps: None
    assert main(["--resume", str(run_dir)]) == 0
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]


def test_a_second_signal_leaves_at_once(run_dir, story, capsys):
    def twice(steps: int) -> None:
        if steps == 30:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    story.on_step = twice
    assert train(run_dir, "--checkpoint-interval-steps", "10") == 130
    assert saved_steps(run_dir) == [10, 20]
    assert "interrupted; a checkpoint of 20 steps is saved" in capsys.readouterr().out
    assert story.events[-2:] == ["close", "shutdown"]


def test_a_signal_in_the_last_evaluation_leaves_the_saved_run(run_dir, story, capsys):
    story.on_evaluate = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert train(run_dir) == 130
    assert saved_steps(run_dir) == [50]
    assert "a checkpoint of 50 steps is saved" in capsys.readouterr().out


def test_a_signal_while_workers_start_leaves_nothing(run_dir, story, capsys):
    story.on_start = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert train(run_dir) == 130
    assert capsys.readouterr().out == "interrupted before training began; nothing was saved\n"
    assert story.events[-1] == "shutdown"
    assert not run_dir.exists()


def test_signal_handlers_are_put_back(run_dir):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(run_dir)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_hangup_that_the_parent_ignores_stays_ignored(run_dir, story):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        story.on_step = lambda steps: os.kill(os.getpid(), signal.SIGHUP)
        assert train(run_dir) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_whose_display_is_lost_goes_on_and_says_so_once(run_dir, story, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert train(run_dir) == 0
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]
    lost, place, result = capsys.readouterr().err.splitlines()
    assert place == f"run directory: {run_dir}"
    assert lost == "shoal train: stdout cannot be written (No space left on device): going on without display"
    assert result.startswith("evaluation at 50 steps: ")


def test_signals_while_the_run_is_taken_down_change_nothing(run_dir, story, capsys, monkeypatch):
    monkeypatch.setattr(story.algorithm, "close", lambda self: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(shoal, "shutdown", lambda: os.kill(os.getpid(), signal.SIGINT))
    story.on_step = lambda steps: os.kill(os.getpid(), signal.SIGINT) if steps == 20 else None
    assert train(run_dir) == 130
    out, err = capsys.readouterr()
    assert (out.count("interrupted"), err) == (1, "")
    assert out.endswith("\n")


def fail_at(steps_at: int, error: BaseException):
    def fail(steps: int) -> None:
        if steps == steps_at:
            raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            EnvFailure("worker 0, environment 1: its step raised E\nTraceback"),
            2,
            "worker 0, environment 1: its step raised E\nTraceback\n",
        ),
        (WorkerLostError("rollout worker 0 died"), 1, "rollout worker 0 died; "),
        (DivergedError("the loss is NaN"), 1, "the loss is NaN; "),
        (shoal.exceptions.HeadDiedError("the head is gone\n  internals"), 1, "the head is gone internals; "),
        (shoal.exceptions.SessionError("the session is shut down"), 1, "the session is shut down; "),
    ],
)
def test_whatever_ends_training_the_last_checkpoint_is_named(run_dir, story, capsys, error, code, text):
    story.on_step = fail_at(40, error)
    assert train(run_dir, "--checkpoint-interval-steps", "20") == code
    hint = f"a checkpoint of 20 steps is saved: shoal train --resume {run_dir}\n"
    assert capsys.readouterr().err == f"shoal train: {text}{hint}"


def no_room(*_args, **_more):
    raise OSError(28, "No space left on device", "policy.safetensors")


@pytest.mark.parametrize("place", ["shoal.rllib.checkpoints.save", "shoal.rllib.loggers.CsvLog.write"])
def test_a_disk_that_fills_up_is_one_line_with_the_way_to_go_on(run_dir, story, capsys, monkeypatch, place):
    story.on_step = lambda steps: monkeypatch.setattr(place, no_room) if steps == 30 else None
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 1
    assert capsys.readouterr().err == (
        f"shoal train: cannot write to the run directory {run_dir}: No space left on device (policy.safetensors); "
        f"a checkpoint of 20 steps is saved: shoal train --resume {run_dir}\n"
    )
    assert story.events[-2:] == ["close", "shutdown"]


def test_a_run_directory_that_is_deleted_under_the_run_is_one_line(run_dir, story, capsys):
    story.on_step = lambda steps: shutil.rmtree(run_dir) if steps == 30 else None
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 1
    assert capsys.readouterr().err == f"shoal train: the run directory {run_dir} is gone\n"
    assert not run_dir.exists()


def test_a_curve_that_cannot_be_drawn_is_one_line(run_dir, story, capsys):
    story.on_step = lambda steps: (run_dir / "curve.png").mkdir() if steps == 30 else None
    assert train(run_dir) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"shoal train: cannot write to the run directory {run_dir}: Is a directory")
    assert err.endswith(f"a checkpoint of 50 steps is saved: shoal train --resume {run_dir}\n")
    assert err.count("\n") == 1


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
    tmp_path, story, capsys, monkeypatch, name, text
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


def test_a_folder_that_may_not_be_written_is_refused_before_anything_starts(tmp_path, story, capsys, monkeypatch):
    # The system's answer is put in by hand: root, as whom tests may run, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (str(path) == str(tmp_path) and mode & os.W_OK))
    assert train(tmp_path / "run") == 2
    assert f"you may not write to {tmp_path}" in capsys.readouterr().err
    assert story.events == []


@pytest.mark.parametrize("name", ["progress.csv", "metrics.jsonl"])
def test_logs_that_are_no_text_are_refused_before_anything_starts(run_dir, story, capsys, name):
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
    ],
)
def test_an_empty_place_is_refused(tmp_path, story, capsys, monkeypatch, flags, text):
    monkeypatch.chdir(tmp_path)
    assert main(["--algo", "sample", *flags]) == 2
    assert capsys.readouterr().err == f"shoal train: {text}\n"


def test_another_seed_is_refused_on_resume(run_dir, story, capsys):
    train(run_dir, "--seed", "3")
    capsys.readouterr()
    assert main(["--resume", str(run_dir), "--seed", "4", "--total-steps", "70"]) == 2
    assert capsys.readouterr().err == f"shoal train: the run in {run_dir} has the seed 3, not 4: drop --seed\n"
    assert main(["--resume", str(run_dir), "--seed", "3", "--total-steps", "70"]) == 0


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
def test_who_died_and_was_replaced_is_told_once(run_dir, story, capsys, monkeypatch, counter, told):
    step = story.algorithm.step

    def replaced(self):
        count = int(self.steps >= 10)
        self.last_death = "exit signal SIGKILL"
        return {**step(self), counter: count}

    monkeypatch.setattr(story.algorithm, "step", replaced)
    assert train(run_dir) == 0
    assert capsys.readouterr().out.splitlines().count(told) == 1


def test_what_happened_to_environments_is_told_but_not_without_end(run_dir, story, capsys):
    story.incidents = tuple(f"environment {i}: it was replaced" for i in range(5))
    assert train(run_dir, "--total-steps", "10") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "replaced" in line] == [f"environment {i}: it was replaced" for i in range(3)]
    assert "... and 2 more of the kind" in lines
