"""`--engine` and `--address`: what they mean, and what is said where they mean nothing. No Ray is needed."""

from __future__ import annotations

import sys

import pytest

from shoal.scripts import bench, evaluate, train
from shoal.scripts.command_line import UsageError
from shoal.scripts.session_flags import SessionFlags


@pytest.fixture(autouse=True)
def _no_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_an_engine_of_this_machine_gets_what_the_command_wants(engine):
    flags = SessionFlags(engine=engine)
    flags.check()
    assert not flags.joins
    assert flags.arguments(num_cpus=3) == {"engine": engine, "num_cpus": 3}
    with pytest.raises(UsageError, match=f"the engine is {engine}: give --engine ray"):
        SessionFlags(engine=engine, address="auto").check()


def test_a_ray_of_its_own_gets_what_the_command_wants(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    flags = SessionFlags(engine="ray", address="local")
    flags.check()
    assert not flags.joins
    told = flags.arguments(num_cpus=3)
    assert (told["engine"], told["address"], told["num_cpus"]) == ("ray", "local", 3)
    monkeypatch.delenv("RAY_ADDRESS")
    assert SessionFlags(engine="ray").arguments(num_cpus=3)["address"] == "local"


@pytest.mark.parametrize(("address", "environ"), [("auto", ""), ("head:6379", ""), (None, "head:6379")])
def test_a_cluster_that_is_joined_has_its_own_resources(address, environ, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", environ)
    flags = SessionFlags(engine="ray", address=address)
    assert flags.joins
    told = flags.arguments(num_cpus=3)
    assert (told["address"], "num_cpus" in told) == (address, False)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(train, ["--total-steps", "1000"]), (bench, ["core", "--only", "tasks sync"])],
    ids=["train", "bench"],
)
def test_every_command_tells_in_a_line_what_is_missing(command, arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command.main([*arguments, "--address", "auto"]) == 2
    assert "give --engine ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command.main([*arguments, "--engine", "ray"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'shoal[ray]'" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_evaluate_tells_it_too(monkeypatch, capsys, tmp_path):
    assert evaluate.main([str(tmp_path), "--address", "auto"]) == 2
    assert "the engine is inline: give --engine ray" in capsys.readouterr().err
