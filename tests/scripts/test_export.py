"""`shoal export`: a file beside the run, and what is refused in one line."""

import errno
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.training import checkpoints
from shoal.scripts import export as exporting
from shoal.scripts.export import main


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    shoal.init(engine="inline")
    try:
        algorithm = PPO(PPOConfig(num_workers=1, num_envs=2, rollout_steps=16, hidden_sizes=(8,), device="cpu"))
        algorithm.step()
        checkpoints.save(algorithm.checkpoint(), checkpoints.place_for(run_dir, algorithm.steps))
        algorithm.close()
    finally:
        shoal.shutdown()
    return run_dir


def test_a_run_becomes_an_onnx_file_beside_it(run_dir, capsys):
    assert main([str(run_dir)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{run_dir / 'policy.onnx'}: ppo on CartPole-v1 after 32 steps"
    assert out[1] == "inputs observation; outputs action, parameters, value"
    assert out[2].startswith("at most ")
    session = onnxruntime.InferenceSession((run_dir / "policy.onnx").read_bytes())
    actions = session.run(["action"], {"observation": np.zeros((5, 4), np.float32)})[0]
    assert actions.shape == (5, 1)


def test_a_checkpoint_becomes_a_torchscript_file_where_it_was_asked_for(run_dir, tmp_path, capsys):
    place, output = checkpoints.place_for(run_dir, 32), tmp_path / "mine.pt"
    assert main([str(place), "--format", "torchscript", "--output", str(output)]) == 0
    assert torch.jit.load(output)(torch.zeros(3, 4))[2].shape == (3,)


@pytest.mark.parametrize(
    ("more", "text"),
    [(["--output", "/no/such/folder/p.onnx"], "its folder does not exist"), (["--format", "pickle"], "--format")],
)
def test_what_cannot_be_done_is_one_line(run_dir, capsys, more, text):
    assert main([str(run_dir), *more]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_a_missing_library_is_told_with_the_way_to_it(run_dir, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(run_dir)]) == 2
    assert "an ONNX file needs onnx and onnxruntime: pip install 'shoal[onnx]'" in capsys.readouterr().err


def test_a_file_that_would_act_otherwise_is_not_written(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting.exporting, "difference", lambda *_, **__: float("inf"))
    assert main([str(run_dir), "--output", str(tmp_path / "p.onnx")]) == 1
    assert "other numbers than shoal's own policy" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_checkpoints_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_a_file_that_was_there_stays_when_the_disk_is_full(run_dir, tmp_path, monkeypatch, capsys):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "p.onnx"
    output.write_bytes(b"the policy of before")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([str(run_dir), "--output", str(output)]) == 2
    assert capsys.readouterr().err == f"shoal export: --output {output} cannot be written: No space left on device\n"
    assert output.read_bytes() == b"the policy of before"
    assert list(tmp_path.iterdir()) == [output]
