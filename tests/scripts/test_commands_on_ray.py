"""The commands on a Ray that is started for them: what they print and leave is what this machine's engines give."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

import pytest

from shoal.scripts import evaluate, train

pytestmark = pytest.mark.ray

SMALL = ["--num-workers", "2", "--num-envs", "4", "--rollout-steps", "32", "--total-steps", "512", "--seed", "3"]


@pytest.fixture(autouse=True)
def _own_ray(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def rows(run: Path) -> list[dict[str, str]]:
    """The progress of a run, without what clocks say."""
    with (run / "progress.csv").open() as file:
        told = list(csv.DictReader(file))
    return [{key: text for key, text in row.items() if "time/" not in key and "second" not in key} for row in told]


def test_a_run_on_ray_leaves_the_curve_and_the_evaluation_of_this_machine(tmp_path, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    assert train.main([*SMALL, "--engine", "ray", "--run-dir", str(there)]) == 0
    assert train.main([*SMALL, "--engine", "inline", "--run-dir", str(here)]) == 0
    assert rows(there) == rows(here)
    assert (there / "evaluation.json").read_text() == (here / "evaluation.json").read_text()
    capsys.readouterr()
    for engine in ("inline", "ray"):
        assert evaluate.main([str(there), "--episodes", "2", "--engine", engine]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]


@pytest.mark.parametrize("command", [train.main, lambda flags: evaluate.main([".", *flags])], ids=["train", "evaluate"])
def test_an_address_that_nobody_answers_is_a_line_and_exit_code_2(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    if command is not train.main:
        train.main([*SMALL, "--engine", "inline", "--run-dir", str(tmp_path / "run")])
        monkeypatch.chdir(tmp_path / "run")
        capsys.readouterr()
    assert command(["--engine", "ray", "--address", place]) == 2
    said = capsys.readouterr()
    assert f"no Ray cluster answers at {place} (Connection refused)" in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
