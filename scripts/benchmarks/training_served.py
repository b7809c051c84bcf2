"""What it costs training to have its policy answer meanwhile, and what training costs the answers.

PPO on CartPole-v1 with two rollout workers, by `shoal train`, alone and with `--serve` and 100 requests a second; each
in a process of its own that has all cores. The steps are those of its logs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from shoal.rllib.training import loggers
from shoal.scripts.benchmarks import loads
from shoal.scripts.serving_beside import TOKEN
from shoal.serving.client import PolicyClient

_FLAGS = "--env CartPole-v1 --num-workers 2 --num-envs 8 --total-steps 1000000000"
#: Seconds that a run has to begin, and to end; and before it is at full speed.
_PATIENCE_S, _WARM_S = 60.0, 1.0
REQUESTS_PER_S = 100.0


def alone(seconds: float) -> float:
    """Steps a second of a run that serves nobody."""
    with _training() as (run_dir, _):
        return _steps_per_second(run_dir, seconds, lambda: time.sleep(seconds))


def served(seconds: float) -> tuple[float, loads.Load]:
    """Steps a second of a run that serves, and what became of the requests."""
    load = loads.Load()
    with _training("--serve", ":0") as (run_dir, output):
        url = output.read_text().partition("serving at ")[2].partition(",")[0]
        observation = np.zeros((1, 4), np.float32)
        with PolicyClient(url, token=run_dir / TOKEN) as client:

            def ask() -> None:
                count = int(REQUESTS_PER_S * seconds)
                load.answered += loads.in_turn(
                    lambda: client.act("policy", observation), per_second=REQUESTS_PER_S, count=count, is_awake=False
                ).answered

            steps_per_s = _steps_per_second(run_dir, seconds, ask)
    return steps_per_s, load


@contextmanager
def _training(*flags: str) -> Iterator[tuple[Path, Path]]:
    """A run at full speed: its directory, and the file with what it prints."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run_dir, output = Path(folder) / "run", Path(folder) / "output"
        with output.open("w") as file:
            command = [
                sys.executable,
                "-m",
                "shoal.scripts",
                "train",
                *_FLAGS.split(),
                "--run-dir",
                str(run_dir),
                *flags,
            ]
            training = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            deadline_s = time.monotonic() + _PATIENCE_S
            while not _rows(run_dir):
                if training.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"shoal train did not begin: {output.read_text()}")
                time.sleep(0.05)
            time.sleep(_WARM_S)
            yield run_dir, output
        finally:
            training.terminate()
            try:
                training.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                training.kill()
                training.wait()


def _steps_per_second(run_dir: Path, seconds: float, meanwhile: Callable[[], None]) -> float:
    before, began_s = _rows(run_dir)[-1], time.monotonic()
    meanwhile()
    after, passed_s = _rows(run_dir)[-1], time.monotonic() - began_s
    return (after["steps"] - before["steps"]) / max(passed_s, seconds)


def _rows(run_dir: Path) -> list[dict[str, float]]:
    try:
        lines = (run_dir / loggers.JSON_LINES_NAME).read_text().splitlines()
    except FileNotFoundError:
        return []
    # The last may be half written.
    return [json.loads(line) for line in lines if line.endswith("}") and '"iteration"' in line]
