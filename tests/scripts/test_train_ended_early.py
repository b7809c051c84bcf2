"""`shoal train` with a double for the algorithm: signals, failures and full disks, and what they leave."""

import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

import shoal
from shoal.envs.vector import EnvFailure
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts.interruption import Interruption
from shoal.scripts.serving_beside import ServedAt
from shoal.scripts.train import main
from shoal.scripts.training_run import Display, Plan, Run


def test_an_environment_that_raises_shows_its_traceback_and_nothing_is_left_running(run_dir, story, capsys, train):
    def fail(steps: int) -> None:
        raise EnvFailure("worker 1, environment 5: its step raised E: boom\nTraceback (most recent call last):")

    story.on_step = fail
    assert train(run_dir) == 2
    assert capsys.readouterr().err == (
        "shoal train: worker 1, environment 5: its step raised E: boom\nTraceback (most recent call last):\n"
    )
    assert story.events[-2:] == ["close", "shutdown"]


def test_an_algorithm_that_cannot_start_leaves_no_run_directory(run_dir, story, capsys, train):
    def fail() -> None:
        raise EnvFailure("worker 0, environment 0: its constructor raised OSError: no ROM")

    story.on_start = fail
    assert train(run_dir) == 2
    assert "its constructor raised" in capsys.readouterr().err
    assert story.events == ["init", "start with 2 workers", "shutdown"]
    assert not run_dir.exists()


def test_an_error_of_ours_keeps_its_traceback_and_shuts_down(run_dir, story, train):
    def fail(steps: int) -> None:
        raise ZeroDivisionError

    story.on_step = fail
    with pytest.raises(ZeroDivisionError):
        train(run_dir)
    assert story.events[-2:] == ["close", "shutdown"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(
    run_dir, story, capsys, request, number, code, train, saved_steps, logged_steps
):
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


def test_a_run_of_simulators_goes_on_with_the_server_that_they_need(run_dir, story, capsys):
    config = story.algorithm.Config(env="external", total_steps=50)
    at = ServedAt("127.0.0.1", 8000, Path("my token"))
    planned, interruption = Plan(story.algorithm, config, run_dir, None, serves_at=at), Interruption()
    story.on_step = lambda steps: os.kill(os.getpid(), signal.SIGINT) if steps == 20 else None
    with interruption.handled(), ExitStack() as held:
        assert Run(planned, story.algorithm(config), interruption, Display(), held).go() == 130
    hint = f"shoal train --resume {run_dir} --serve 127.0.0.1:8000 --token-file 'my token'\n"
    assert capsys.readouterr().out.endswith(f"a checkpoint of 20 steps is saved: {hint}")


def test_a_second_signal_leaves_at_once(run_dir, story, capsys, train, saved_steps):
    def twice(steps: int) -> None:
        if steps == 30:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    story.on_step = twice
    assert train(run_dir, "--checkpoint-interval-steps", "10") == 130
    assert saved_steps(run_dir) == [10, 20]
    assert "interrupted; a checkpoint of 20 steps is saved" in capsys.readouterr().out
    assert story.events[-2:] == ["close", "shutdown"]


def leave_at_once(_steps: int) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_is_left_in_its_first_iteration_leaves_no_folder(run_dir, story, capsys, train):
    story.on_step = leave_at_once
    assert train(run_dir) == 130
    assert not run_dir.exists()
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "interrupted; no checkpoint was saved; the run directory is removed"


def test_a_folder_that_was_there_or_that_holds_more_stays(run_dir, story, capsys, train):
    story.on_step = leave_at_once
    run_dir.mkdir()
    assert train(run_dir) == 130
    assert (run_dir / "config.json").is_file()
    other = run_dir.with_name("other")

    def write_and_leave(steps: int) -> None:
        (other / "notes.txt").write_text("mine")
        leave_at_once(steps)

    story.on_step = write_and_leave
    assert train(other) == 130
    assert (other / "notes.txt").read_text() == "mine"
    assert (other / "config.json").is_file()
    assert "removed" not in capsys.readouterr().out


def test_a_signal_in_the_last_evaluation_leaves_the_saved_run(run_dir, story, capsys, train, saved_steps):
    story.on_evaluate = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert train(run_dir) == 130
    assert saved_steps(run_dir) == [50]
    assert "a checkpoint of 50 steps is saved" in capsys.readouterr().out


def test_a_signal_while_workers_start_leaves_nothing(run_dir, story, capsys, train):
    story.on_start = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert train(run_dir) == 130
    assert capsys.readouterr().out == "interrupted before training began; nothing was saved\n"
    assert story.events[-1] == "shutdown"
    assert not run_dir.exists()


def test_a_folder_that_was_made_for_a_server_before_training_goes_too(run_dir, story, capsys, train):
    def make_folder_and_leave() -> None:
        run_dir.mkdir()
        os.kill(os.getpid(), signal.SIGINT)

    story.on_start = make_folder_and_leave
    assert train(run_dir) == 130
    told = capsys.readouterr().out
    assert told == "interrupted before training began; nothing was saved; the run directory is removed\n"
    assert not run_dir.exists()


def test_signal_handlers_are_put_back(run_dir, train):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(run_dir)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_hangup_that_the_parent_ignores_stays_ignored(run_dir, story, train):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        story.on_step = lambda steps: os.kill(os.getpid(), signal.SIGHUP)
        assert train(run_dir) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_whose_display_is_lost_goes_on_and_says_so_once(run_dir, story, capsys, monkeypatch, train, logged_steps):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert train(run_dir) == 0
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]
    lost, place, result = capsys.readouterr().err.splitlines()
    assert place == f"run directory: {run_dir}"
    assert lost == "shoal train: stdout cannot be written (No space left on device): going on without display"
    assert result.startswith("evaluation at 50 steps: ")


def test_signals_while_the_run_is_taken_down_change_nothing(run_dir, story, capsys, monkeypatch, train):
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
def test_whatever_ends_training_the_last_checkpoint_is_named(run_dir, story, capsys, error, code, text, train):
    story.on_step = fail_at(40, error)
    assert train(run_dir, "--checkpoint-interval-steps", "20") == code
    hint = f"a checkpoint of 20 steps is saved: shoal train --resume {run_dir}\n"
    assert capsys.readouterr().err == f"shoal train: {text}{hint}"


def no_room(*_args, **_more):
    raise OSError(28, "No space left on device", "policy.safetensors")


@pytest.mark.parametrize(
    "place", ["shoal.rllib.training.checkpoints.save", "shoal.rllib.training.loggers.CsvLog.write"]
)
def test_a_disk_that_fills_up_is_one_line_with_the_way_to_go_on(run_dir, story, capsys, monkeypatch, place, train):
    story.on_step = lambda steps: monkeypatch.setattr(place, no_room) if steps == 30 else None
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 1
    assert capsys.readouterr().err == (
        f"shoal train: cannot write to the run directory {run_dir}: No space left on device (policy.safetensors); "
        f"a checkpoint of 20 steps is saved: shoal train --resume {run_dir}\n"
    )
    assert story.events[-2:] == ["close", "shutdown"]


def test_a_run_directory_that_is_deleted_under_the_run_is_one_line(run_dir, story, capsys, train):
    story.on_step = lambda steps: shutil.rmtree(run_dir) if steps == 30 else None
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 1
    assert capsys.readouterr().err == f"shoal train: the run directory {run_dir} is gone\n"
    assert not run_dir.exists()


def test_a_curve_that_cannot_be_drawn_is_one_line(run_dir, story, capsys, train):
    story.on_step = lambda steps: (run_dir / "curve.png").mkdir() if steps == 30 else None
    assert train(run_dir) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"shoal train: cannot write to the run directory {run_dir}: Is a directory")
    assert err.endswith(f"a checkpoint of 50 steps is saved: shoal train --resume {run_dir}\n")
    assert err.count("\n") == 1


def test_what_happened_to_environments_is_told_but_not_without_end(run_dir, story, capsys, train):
    story.incidents = tuple(f"environment {i}: it was replaced" for i in range(5))
    assert train(run_dir, "--total-steps", "10") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "replaced" in line] == [f"environment {i}: it was replaced" for i in range(3)]
    assert "... and 2 more of the kind" in lines
