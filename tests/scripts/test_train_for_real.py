"""The commands as users run them: own processes, real workers, PPO. Slow for tests, so few and short.

What every one of them also checks: nothing is left running, in `/dev/shm`, or in the temporary folder.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from shoal.rllib.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60
#: House promise: so long after an end of any kind nothing of a session is left.
GONE_WITHIN_S = 5

BROKEN_ENVIRONMENTS = """
import gymnasium
import numpy as np


class Raises(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, in_constructor):
        if in_constructor:
            raise OSError("no such ROM")
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 50:
            raise ZeroDivisionError("boom")
        return np.zeros(3, np.float32), 0.0, False, False, {}


def in_constructor():
    return Raises(True)


def in_step():
    return Raises(False)
"""


def left_running(temporary: Path) -> list[str]:
    """Processes that were started with this folder for their temporary files, however far they have gone since."""
    return [
        f"{process.pid}: {' '.join(process.info['cmdline'] or [])}"
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("TMPDIR") == str(temporary)
    ]


def segments() -> set[str]:
    """Shared memory of shoal, where it has names."""
    folder = Path("/dev/shm")
    return {place.name for place in folder.iterdir() if "shoal" in place.name} if folder.is_dir() else set()


@pytest.fixture
def shoal_command(tmp_path):
    """Run a shoal command in an empty folder; afterwards nothing may be left of it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    shared = segments()

    def start(*arguments: object, program: tuple[str, ...] = ("-m", "shoal.scripts")) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    yield start
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := left_running(temporary)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert segments() - shared == set()
    # torch makes a cache of its own there and leaves it.
    assert [place.name for place in temporary.iterdir() if not place.name.startswith("torch")] == []


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


@pytest.mark.parametrize("algorithm", ["appo", "ars", "ppo"])
def test_training_leaves_a_run_that_evaluate_plays_and_resume_continues(shoal_command, tmp_path, algorithm):
    run = tmp_path / "run"
    train = ("--algo", algorithm, "--env", "CartPole-v1", "--num-workers", "2", "--seed", "1", "--eval-episodes", "4")
    code, out, err = finish(
        shoal_command(*train, "--total-steps", 3000, "--run-dir", run, program=(str(ROOT / "scripts" / "train.py"),))
    )
    assert (code, err) == (0, "")
    assert "evaluation at" in out.splitlines()[-1]
    for name in ("config.json", "progress.csv", "metrics.jsonl", "events.*", "curve.png", "evaluation.json"):
        assert list(run.glob(name)), f"{name} is missing"

    code, out, err = finish(shoal_command(run, program=(str(ROOT / "scripts" / "evaluate.py"),)))
    assert (code, err) == (0, "")
    told = json.loads((run / "evaluation.json").read_text())
    assert f"4 episodes, mean return {told['mean']:.2f}, standard deviation {told['std']:.2f}" in out

    before = checkpoints.load(checkpoints.latest(run))
    code, out, err = finish(shoal_command("train", "--resume", run, "--total-steps", 4000))
    assert (code, err) == (0, "")
    after = checkpoints.load(checkpoints.latest(run))
    assert after.counters["steps"] >= 4000 > before.counters["steps"]
    moved = [not np.array_equal(old, after.tensors["policy"][name]) for name, old in before.tensors["policy"].items()]
    assert any(moved)


def test_evaluations_are_filmed_in_training_and_afterwards(shoal_command, tmp_path):
    run = tmp_path / "run"
    few = ("--num-workers", "1", "--num-envs", "1", "--rollout-steps", "16", "--eval-episodes", "2")
    steps = ("--total-steps", "32", "--eval-interval-steps", "16", "--run-dir", run)
    code, _, err = finish(shoal_command("train", "--env", "shoal.envs.probes:Filmed", "--record", *few, *steps))
    assert (code, err) == (0, "")
    assert sorted(place.name for place in (run / "videos").iterdir()) == ["step_000000016.mp4", "step_000000032.mp4"]
    assert all(place.stat().st_size > 500 for place in (run / "videos").iterdir())
    code, _, err = finish(shoal_command("evaluate", run, "--record", tmp_path / "later.mp4"))
    assert (code, err) == (0, "")
    assert (tmp_path / "later.mp4").stat().st_size > 500
    not_drawn = ("train", "--env", "shoal.envs.probes:Choice", "--record")
    for refused in (not_drawn, ("evaluate", run, "--record", "a.gif")):
        code, out, err = finish(shoal_command(*refused))
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("whole_group", [True, False], ids=["whole group, as a terminal does", "only the driver"])
def test_ctrl_c_saves_a_checkpoint_and_leaves_with_a_clean_message(shoal_command, tmp_path, whole_group):
    run = tmp_path / "run"
    process = shoal_command("train", "--total-steps", 10_000_000, "--run-dir", run)
    deadline = time.monotonic() + LIMIT_S
    while not ((run / "progress.csv").exists() and (run / "progress.csv").read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert (code, err) == (130, "")
    steps = checkpoints.load(checkpoints.latest(run)).counters["steps"]
    assert out.splitlines()[-1] == (
        f"interrupted at {steps:,} steps; a checkpoint of {steps:,} steps is saved: shoal train --resume {run}"
    )


def test_a_head_that_dies_ends_the_run_in_one_line_with_its_last_checkpoint(shoal_command, tmp_path):
    run = tmp_path / "run"
    steps = ("--total-steps", 10_000_000, "--checkpoint-interval-steps", 1000)
    process = shoal_command("train", *steps, "--run-dir", run)
    deadline = time.monotonic() + LIMIT_S
    while not list(run.glob("checkpoints/step_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (zygote,) = psutil.Process(process.pid).children()
    min(zygote.children(), key=lambda child: child.pid).kill()  # the head is forked first
    code, _, err = finish(process)
    saved = checkpoints.load(checkpoints.latest(run)).counters["steps"]
    assert code == 1
    assert err.startswith("shoal train: ")
    assert err.endswith(f"; a checkpoint of {saved:,} steps is saved: shoal train --resume {run}\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("in_constructor", ["its constructor raised OSError: no such ROM", 'raise OSError("no such ROM")']),
        ("in_step", ["its step raised ZeroDivisionError: boom", 'raise ZeroDivisionError("boom")']),
    ],
)
def test_an_environment_that_raises_is_shown_with_worker_and_index(shoal_command, tmp_path, name, texts):
    (tmp_path / "broken.py").write_text(BROKEN_ENVIRONMENTS)
    run = tmp_path / "run"
    train = ("--env", f"broken:{name}", "--run-dir", run, "--num-envs", 4)
    code, _, err = finish(shoal_command(*train, program=(str(ROOT / "scripts" / "train.py"),)))
    assert code == 2
    assert err.startswith("shoal train: worker ")
    assert ", environment " in err.splitlines()[0]
    for text in (*texts, "broken.py"):
        assert text in err
    assert "shoal/core" not in err
    assert "core/runtime" not in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--algo", "nosuch"], "unknown algorithm 'nosuch'"),
        (["--env", "CartPole-v9"], "unknown environment 'CartPole-v9'"),
        (["--num-workers", "-3"], "num_workers must be at least 1, not -3"),
        (["--no-such-flag"], "unknown flag --no-such-flag"),
        (["--resume", "nowhere"], "nowhere is no directory"),
        (["--device", "cuda:77"], "cuda:77"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(shoal_command, tmp_path, arguments, text):
    code, out, err = finish(shoal_command("train", *arguments))
    assert (code, out) == (2, "")
    assert err.startswith("shoal train: ")
    assert text in err
    assert err.count("\n") == 1
    assert [place.name for place in tmp_path.iterdir()] == ["tmp"]
