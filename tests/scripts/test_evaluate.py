"""`shoal evaluate`: plays a checkpoint in this process and prints what it earns."""

from dataclasses import replace

import pytest

import shoal
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.scripts.evaluate import main

#: For a test that runs something in a session; the fixture ``story`` replaces them by others that only tell of it.
_SESSION = {"init": shoal.init, "shutdown": shoal.shutdown}


@pytest.fixture
def run_dir(tmp_path, story):
    for steps in (100, 200):
        checkpoint = Checkpoint(
            algorithm="sample",
            config={"env": "CartPole-v1", "seed": 5, "eval_episodes": 3},
            counters={"steps": steps},
            tensors={},
        )
        checkpoints.save(checkpoint, checkpoints.place_for(tmp_path, steps))
    return tmp_path


def test_it_plays_the_newest_checkpoint_with_the_runs_own_settings(run_dir, capsys):
    assert main([str(run_dir)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"sample on CartPole-v1 after 200 steps ({checkpoints.place_for(run_dir, 200)})"
    assert second.startswith("3 episodes, mean return ")
    assert ", standard deviation " in second
    assert ", 95 % interval " in second


def test_the_same_seed_plays_the_same_episodes(run_dir, capsys):
    told = []
    for seed in ("5", "5", "6"):
        assert main([str(run_dir), "--seed", seed]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != told[2]


def test_a_checkpoint_of_its_own_can_be_played(run_dir, capsys):
    assert main([str(checkpoints.place_for(run_dir, 100)), "--episodes", "1"]) == 0
    assert "after 100 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "RUN_DIR is missing, as in `shoal evaluate RUN_DIR`: Run directory, whose newest checkpoint"),
        (["nowhere"], "nowhere is no directory"),
        (["RUN", "--episodes", "0"], "--episodes must be at least 1, not 0"),
        (["RUN", "--seed", "-1"], "--seed must be at least 0, not -1"),
        (["RUN", "--nosuch"], "unknown flag --nosuch; there are these: --episodes, --seed"),
    ],
)
def test_bad_input_is_one_line(run_dir, capsys, arguments, text):
    assert main([str(run_dir) if argument == "RUN" else argument for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("shoal evaluate: ")
    assert text in err
    assert err.count("\n") == 1


def test_a_checkpoint_without_its_steps_is_told_before_anything_is_played(run_dir, capsys):
    checkpoint = replace(checkpoints.load(checkpoints.latest(run_dir)), counters={})
    checkpoints.save(checkpoint, checkpoints.place_for(run_dir, 200))
    assert main([str(run_dir)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "shoal evaluate: the checkpoint has no counter 'steps'; it counts nothing\n"


def test_a_damaged_checkpoint_is_told(run_dir, capsys):
    (checkpoints.place_for(run_dir, 200) / "manifest.json").write_text("{")
    assert main([str(run_dir)]) == 2
    assert "manifest.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("env", ["Acrobot-v1", "shoal.envs.probes:Corridor"])
def test_a_policy_that_does_not_fit_its_environment_any_more_is_one_line(run_dir, capsys, env):
    checkpoint = checkpoints.load(checkpoints.latest(run_dir))
    changed = replace(checkpoint, config={**checkpoint.config, "env": env})
    checkpoints.save(changed, checkpoints.place_for(run_dir, 300))
    assert main([str(run_dir)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"shoal evaluate: env: {env!r} has observations observation (")
    assert "; the checkpoint's policy is for observations observation (4,) (numbers) and actions choices of (2,)" in err
    assert err.count("\n") == 1


def test_an_environment_that_ends_its_process_is_told_with_how_it_ended(tmp_path, story, capsys, monkeypatch):
    (tmp_path / "breakable.py").write_text(
        "import os\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class CartPole(CartPoleEnv):\n"
        "    def step(self, action):\n"
        "        os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    saved = Checkpoint(algorithm="sample", config={"env": "breakable:CartPole"}, counters={"steps": 1}, tensors={})
    checkpoints.save(saved, checkpoints.place_for(tmp_path, 1))
    for name, function in _SESSION.items():  # the real ones
        monkeypatch.setattr(shoal, name, function)
    assert main([str(tmp_path), "--engine", "native"]) == 1
    assert not shoal.is_initialized()
    told = capsys.readouterr().err
    assert told.startswith("shoal evaluate: whoever played breakable:CartPole has died: ")
    assert told.endswith("exit code 7\n")
    assert told.count("\n") == 1
