"""Run directories: named after what is trained, never used twice, and their checkpoints are found."""

import json

import pytest

from shoal.rllib.config import AlgorithmConfig
from shoal.rllib.rollouts.evaluation import Evaluation
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import Checkpoint, CheckpointError
from shoal.scripts import run_directory
from shoal.scripts.command_line import UsageError

CONFIG = AlgorithmConfig(env="ALE/Pong-v5", seed=3)


def test_a_made_up_name_says_what_is_trained_and_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260102-030405")
    for expected in ("ppo-ALE-Pong-v5-seed3-20260102-030405", "ppo-ALE-Pong-v5-seed3-20260102-030405-2"):
        chosen = run_directory.choose(None, "ppo", CONFIG)
        assert str(chosen) == f"runs/{expected}"
        chosen.mkdir(parents=True)


def test_a_folder_that_is_empty_or_not_there_may_be_used(tmp_path):
    assert run_directory.choose(tmp_path, "ppo", CONFIG) == tmp_path
    assert run_directory.choose(tmp_path / "new", "ppo", CONFIG) == tmp_path / "new"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("sign", ["config.json", "progress.csv", "metrics.jsonl", "evaluation.json", "checkpoints"])
def test_a_folder_that_holds_a_run_is_refused_with_the_next_step(tmp_path, sign):
    (tmp_path / sign).mkdir() if sign == "checkpoints" else (tmp_path / sign).touch()
    with pytest.raises(UsageError, match=rf"^the run in {tmp_path} saved no checkpoint.*: delete the folder, or start"):
        run_directory.choose(tmp_path, "ppo", CONFIG)
    checkpoint = Checkpoint(algorithm="ppo", config={}, counters={"steps": 10}, tensors={})
    checkpoints.save(checkpoint, checkpoints.place_for(tmp_path, 10))
    with pytest.raises(UsageError, match=rf"^--run-dir {tmp_path} already holds a run: go on with --resume {tmp_path}"):
        run_directory.choose(tmp_path, "ppo", CONFIG)


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        run_directory.choose(tmp_path / "file", "ppo", CONFIG)
    with pytest.raises(UsageError, match="cannot make the run directory"):
        run_directory.prepare(tmp_path / "file" / "below", "ppo", CONFIG, is_resumed=False)


def test_what_is_run_is_written_down(tmp_path):
    run_directory.prepare(tmp_path / "a" / "run", "ppo", CONFIG, is_resumed=False)
    told = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert told["algorithm"] == "ppo"
    assert told["config"]["env"] == "ALE/Pong-v5"
    assert told["shoal_version"]


def test_of_two_runs_that_choose_one_folder_the_second_is_told(tmp_path):
    run_directory.prepare(tmp_path, "ppo", CONFIG, is_resumed=False)
    with pytest.raises(UsageError, match="another run has just started in"):
        run_directory.prepare(tmp_path, "ppo", CONFIG, is_resumed=False)
    run_directory.prepare(tmp_path, "es", CONFIG, is_resumed=True)
    assert json.loads((tmp_path / "config.json").read_text())["algorithm"] == "es"


def test_a_checkpoint_is_found_by_its_run_or_by_itself(tmp_path):
    with pytest.raises(CheckpointError):
        run_directory.find_checkpoint(tmp_path)
    for steps in (10, 20):
        checkpoint = Checkpoint(algorithm="ppo", config={}, counters={"steps": steps}, tensors={})
        checkpoints.save(checkpoint, checkpoints.place_for(tmp_path, steps))
    assert run_directory.find_checkpoint(tmp_path) == checkpoints.place_for(tmp_path, 20)
    older = checkpoints.place_for(tmp_path, 10)
    assert run_directory.find_checkpoint(older) == older


def test_an_evaluation_is_written_and_told_with_its_interval(tmp_path):
    evaluation = Evaluation(returns=(1.0, 2.0, 3.0), lengths=(4, 5, 6))
    run_directory.write_evaluation(tmp_path, evaluation, 100)
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert (told["steps"], told["episodes"], told["mean"], told["std"]) == (100, 3, 2.0, 1.0)
    assert told["ci95"] == pytest.approx(4.303 / 3**0.5, abs=1e-3)  # t quantile of 2 degrees of freedom
    assert (told["returns"], told["lengths"]) == ([1.0, 2.0, 3.0], [4, 5, 6])
    assert run_directory.describe(evaluation) == (
        "3 episodes, mean return 2.00, standard deviation 1.00, 95 % interval -0.48 to 4.48"
    )


def test_one_episode_has_no_interval(tmp_path):
    evaluation = Evaluation(returns=(9.0,), lengths=(4,))
    run_directory.write_evaluation(tmp_path, evaluation, 100)
    assert json.loads((tmp_path / "evaluation.json").read_text())["ci95"] is None
    assert run_directory.describe(evaluation) == "1 episode, mean return 9.00 (one episode has no spread)"
