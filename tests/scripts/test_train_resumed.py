"""`shoal train --resume` with a double for the algorithm: what goes on, and what is refused."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest

from shoal.envs.vector import EnvFailure
from shoal.rllib.training import checkpoints
from shoal.scripts.train import main


def test_a_best_checkpoint_that_is_damaged_is_named_on_resume(run_dir, capsys, train):
    train(run_dir)
    (run_dir / "checkpoints" / "best" / "policy.safetensors").write_bytes(b"")
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 2
    assert "best/policy.safetensors is damaged" in capsys.readouterr().err


def test_a_resumed_run_goes_on_from_its_newest_checkpoint_with_its_settings(
    run_dir, story, train, saved_steps, logged_steps
):
    train(run_dir, "--rollout-steps", "5", "--checkpoint-interval-steps", "20")
    story.events.clear()
    assert main(["--resume", str(run_dir), "--total-steps", "70"]) == 0
    assert "restore 50" in story.events
    assert logged_steps(run_dir) == list(range(5, 75, 5))
    assert json.loads((run_dir / "config.json").read_text())["config"]["total_steps"] == 70
    assert saved_steps(run_dir)[-1] == 70


def test_rows_after_the_checkpoint_are_made_again(run_dir, story, train, logged_steps):
    def fail_late(steps: int) -> None:
        if steps == 40:
            raise EnvFailure("worker 0, environment 1: its step raised")

    story.on_step = fail_late
    assert train(run_dir, "--checkpoint-interval-steps", "20") == 2
    assert logged_steps(run_dir) == [10, 20, 30]
    story.on_step = lambda steps: None
    assert main(["--resume", str(run_dir)]) == 0
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]


def test_a_run_that_was_stopped_before_its_evaluation_gets_it_on_resume(run_dir, story, train, logged_steps):
    train(run_dir)
    (run_dir / "evaluation.json").unlink()
    assert main(["--resume", str(run_dir)]) == 0
    assert (run_dir / "evaluation.json").exists()
    assert logged_steps(run_dir) == [10, 20, 30, 40, 50]


def test_a_directory_that_holds_a_run_is_refused(run_dir, story, capsys, train):
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
        (["--algo", "es"], "is one of sample, not of es: drop --algo"),
    ],
)
def test_a_run_that_cannot_go_on_so_is_refused(run_dir, story, capsys, flags, text, train):
    train(run_dir)
    story.events.clear()
    capsys.readouterr()
    assert main(["--resume", str(run_dir), *flags]) == 2
    assert text in capsys.readouterr().err
    assert story.events == []


def test_a_run_without_a_checkpoint_has_one_way_out_whichever_flag_names_it(run_dir, story, capsys, train):
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


def test_an_evaluation_of_earlier_steps_does_not_stand_for_the_last_one(run_dir, story, train):
    at: list[int] = []
    story.on_evaluate = lambda: os.kill(os.getpid(), signal.SIGINT) if at[-1] == 50 else None
    story.on_step = lambda steps: at.append(steps)
    assert train(run_dir, "--eval-interval-steps", "20") == 130
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 40
    story.on_evaluate = lambda: None
    assert main(["--resume", str(run_dir)]) == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 50
    assert main(["--resume", str(run_dir)]) == 2


def test_an_evaluation_that_was_cut_while_it_was_written_is_made_again(run_dir, train):
    train(run_dir)
    (run_dir / "evaluation.json").write_text('{"steps": 5')
    assert main(["--resume", str(run_dir)]) == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["steps"] == 50


def test_a_run_directory_in_use_is_refused_to_a_second_run_in_one_line(run_dir, story, capsys, train):
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


def test_a_damaged_checkpoint_is_named_and_nothing_is_started(run_dir, story, capsys, train, saved_steps):
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
def test_a_checkpoint_that_lacks_something_is_told_and_nothing_is_started(run_dir, story, capsys, change, text, train):
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


def test_resume_wants_the_run_and_not_one_of_its_checkpoints(run_dir, story, capsys, train):
    train(run_dir)
    assert main(["--resume", str(checkpoints.place_for(run_dir, 50))]) == 2
    assert "is a checkpoint: give the run directory that it is in" in capsys.readouterr().err


def test_another_seed_is_refused_on_resume(run_dir, story, capsys, train):
    train(run_dir, "--seed", "3")
    capsys.readouterr()
    assert main(["--resume", str(run_dir), "--seed", "4", "--total-steps", "70"]) == 2
    assert capsys.readouterr().err == f"shoal train: the run in {run_dir} has the seed 3, not 4: drop --seed\n"
    assert main(["--resume", str(run_dir), "--seed", "3", "--total-steps", "70"]) == 0
