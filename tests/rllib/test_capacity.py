"""What no machine has room for is refused before anything is started, by the settings that ask for it."""

from dataclasses import replace

import pytest

from shoal.algorithms.es import ESConfig
from shoal.algorithms.ppo import PPOConfig
from shoal.core.scheduling import memory as memory_of
from shoal.rllib import capacity
from shoal.rllib.config import ConfigError
from shoal.scripts import train

#: Of the machine that is made up here.
MEMORY_BYTES = 24_000_000_000


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    monkeypatch.setattr(capacity, "memory_bytes", lambda: MEMORY_BYTES)


@pytest.mark.parametrize(
    ("changes", "rows", "gigabytes"),
    [
        ({"num_envs": 10**9}, "128,000,000,000", "4,200"),
        ({"rollout_steps": 10**11}, "800,000,000,000", "20,000"),
        ({"num_envs": 30_000_000, "rollout_steps": 1}, "30,000,000", "31"),
    ],
)
def test_a_rollout_that_no_memory_holds_is_refused(changes, rows, gigabytes):
    told = rf"^num_envs .*: a rollout of {rows} rows needs {gigabytes} GB at least; there are 24 GB here"
    with pytest.raises(ConfigError, match=told):
        capacity.check_rollouts_fit(replace(PPOConfig(), **changes))


def test_what_may_fit_is_let_through():
    batched = PPOConfig(num_envs=30_000_000, rollout_steps=1, vector="batched")
    for config in (PPOConfig(), PPOConfig(num_envs=1_000_000), batched, ESConfig()):
        capacity.check_rollouts_fit(config)
    capacity.check_workers_fit(PPOConfig(num_envs=1_000, num_workers=1_000))


def test_more_workers_than_there_is_memory_for_are_refused():
    for config in (PPOConfig(num_envs=5_000, num_workers=5_000), ESConfig(num_workers=5_000)):
        with pytest.raises(
            ConfigError, match=r"^num_workers 5,000: so many processes need 50 GB at least; there are 24 GB here"
        ):
            capacity.check_workers_fit(config)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--num-envs 1000000000", "num_envs 1,000,000,000 and rollout_steps 128: a rollout of"),
        ("--rollout-steps 100000000000", "rollout_steps 100,000,000,000: a rollout of"),
        ("--num-workers 5000", "num_envs must be at least num_workers (5000), not 8"),
        ("--num-learners 5000", "num_workers 2 and num_learners 5,000: so many processes need 50 GB at least"),
        ("--num-learners 2 --sync ps --num-shards 9999", "num_learners 2 and num_shards 9,999: so many processes need"),
        ("--algo a3c --num-shards 9999", "num_workers 2 and num_shards 9,999: so many processes need 100 GB at least"),
        (
            "--num-envs 4000 --vector parallel --env-processes 2000",
            "num_workers 2 and env_processes 2,000: so many processes need 40 GB at least",
        ),
        ("--num-workers 5000 --num-envs 5000", "num_workers 5,000: so many processes need 50 GB at least"),
    ],
)
def test_on_a_command_line_that_is_one_line_and_starts_nothing(flags, text, tmp_path, capsys):
    assert train.main([*flags.split(), "--run-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_the_container_has_no_room_for_is_refused_though_the_machine_had(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()  # the memory that is made up here
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("100000000\n")
    monkeypatch.setattr(memory_of, "_PROCESS_GROUPS", tmp_path / "self")
    monkeypatch.setattr(memory_of, "_GROUPS", tmp_path)
    assert train.main(["--num-workers", "20", "--num-envs", "20", "--run-dir", str(tmp_path / "run")]) == 2
    told = "num_workers 20: so many processes need 0.2 GB at least; there are 0.1 GB here: take as many as there are"
    assert told in capsys.readouterr().err
