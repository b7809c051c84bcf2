"""The folder that a training run leaves behind: its name, its files, and the rules for using one again.

    RUN_DIR/
      config.json                     algorithm, settings, shoal's version
      progress.csv  metrics.jsonl  events.*  curve.png       see rllib/training/loggers.py
      checkpoints/step_000150000/     see rllib/training/checkpoints.py; the newest few
      checkpoints/best/               that of the best evaluation
      videos/step_000150000.mp4       with --record, the first episode of each evaluation
      evaluation.json                 the last evaluation: every return, mean, deviation, interval

A run owns its folder: training never writes into one that holds another run, and while it is at work it holds a lock
on `config.json`, which the operating system frees with the process, however that ends. Used by `train` and `evaluate`.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import shoal
from shoal.rllib import config as configs
from shoal.rllib.rollouts.evaluation import Evaluation
from shoal.rllib.training import checkpoints, loggers
from shoal.scripts.command_line import RunDirectoryError, UsageError

CONFIG = "config.json"
EVALUATION = "evaluation.json"
VIDEOS = "videos"
#: Where runs go that were given no folder.
RUNS = Path("runs")
#: Any of these makes a folder a run's.
_SIGNS_OF_A_RUN = (CONFIG, EVALUATION, checkpoints.FOLDER, loggers.CSV_NAME, loggers.JSON_LINES_NAME)
_NO_LOCKS_HERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


def choose(given: Path | None, algorithm: str, config: configs.AlgorithmConfig) -> Path:
    """The folder for a new run; it is not made yet.

    Args:
      given: what the user asked for; None makes up a name from what is trained and the time.
      algorithm: its name.
      config: its settings.

    Raises:
      UsageError: the folder holds a run already, or is no folder.
    """
    if given is None:
        environment = re.sub(r"[^A-Za-z0-9.-]+", "-", config.env).strip("-.")
        name = f"{algorithm}-{environment}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        taken = 1
        given = RUNS / name
        while given.exists():
            taken += 1
            given = RUNS / f"{name}-{taken}"
    check_place(given, "--run-dir")
    _check_curve(given)
    if _holds_a_run(given):
        find_run(given)
        raise UsageError(f"--run-dir {given} already holds a run: go on with --resume {given}, or name another")
    return given


def check_place(folder: Path, flag: str) -> None:
    """Refuse a folder that could not be made or written.

    Args:
      flag: what names it.

    Raises:
      UsageError: something else is in its place, or it is not the user's.
    """
    try:
        ground = next(place for place in (folder, *folder.absolute().parents) if _is_there(place))
    except OSError as error:
        raise UsageError(f"{flag} {folder} cannot be used: {error.strerror}") from error
    if not ground.is_dir():
        what = f"{flag} {folder}" if ground == folder else f"{flag} {folder}: {ground}"
        raise UsageError(f"{what} is a file: name a folder, or leave the flag away")
    if not os.access(ground, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {folder}: you may not write to {ground}; name another folder")


def _is_there(place: Path) -> bool:
    """As `lexists`, but a name that cannot be looked up is an error."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_curve(run_dir: Path) -> None:
    if (run_dir / loggers.CURVE_NAME).is_dir():
        raise UsageError(f"{run_dir / loggers.CURVE_NAME} is a folder, and the curve shall go there: move it away")


def check_logs(run_dir: Path) -> None:
    """Make sure that the logs of a run can be gone on with.

    Raises:
      UsageError: one is damaged; names it.
    """
    _check_curve(run_dir)
    for name in (loggers.CSV_NAME, loggers.JSON_LINES_NAME):
        try:
            (run_dir / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except UnicodeError as error:
            raise UsageError(f"{run_dir / name} is damaged: it is not UTF-8 text; move it away to go on") from error
        except OSError as error:
            raise UsageError(f"{run_dir / name} cannot be read: {error.strerror}; move it away to go on") from error


@contextmanager
def writing(run_dir: Path) -> Iterator[None]:
    """A block that writes files of a run.

    Raises:
      RunDirectoryError: that failed; one line with the reason.
    """
    try:
        yield
    except (OSError, UnicodeError, csv.Error) as error:
        if not run_dir.is_dir():
            raise RunDirectoryError(f"the run directory {run_dir} is gone") from error
        reason = (getattr(error, "strerror", None) or str(error), getattr(error, "filename", None))
        told = f"{reason[0]} ({reason[1]})" if reason[1] else reason[0]
        raise RunDirectoryError(f"cannot write to the run directory {run_dir}: {told}") from error


def find_run(run_dir: Path) -> Path:
    """The newest checkpoint of a run that nobody is at work on.

    Raises:
      UsageError: it is being worked on, or it saved no checkpoint.
      CheckpointError: the folder holds no run at all.
    """
    if (run_dir / CONFIG).is_file():
        lock(run_dir).close()
    try:
        return checkpoints.latest(run_dir)
    except checkpoints.CheckpointError:
        if not _holds_a_run(run_dir):
            raise
        raise UsageError(
            f"the run in {run_dir} saved no checkpoint, so it cannot go on: "
            f"delete the folder, or start anew with another --run-dir"
        ) from None


def lock(run_dir: Path) -> TextIO:
    """Keep other runs out of the folder until the file that is returned is closed, or the process has ended.

    Raises:
      UsageError: another process holds it, or the folder cannot be written.
    """
    try:
        held = (run_dir / CONFIG).open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to the run directory {run_dir}: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise UsageError(
            f"another shoal train is at work in {run_dir}: wait for its end, or name another folder"
        ) from None
    except OSError as error:
        # Some network file systems have no locks. Training there is worth more than the protection.
        if error.errno not in _NO_LOCKS_HERE:
            held.close()
            raise UsageError(f"cannot lock the run directory {run_dir}: {error.strerror}") from error
    return held


def is_evaluated(run_dir: Path, steps: int) -> bool:
    """Whether the evaluation that the folder holds is of the policy after so many steps, and whole."""
    try:
        told = json.loads((run_dir / EVALUATION).read_bytes())
    except (OSError, ValueError):  # none yet, or one that was cut while it was written: it is made again
        return False
    return isinstance(told, dict) and told.get("steps") == steps


def _holds_a_run(folder: Path) -> bool:
    return any((folder / sign).exists() for sign in _SIGNS_OF_A_RUN)


def prepare(run_dir: Path, algorithm: str, config: configs.AlgorithmConfig, *, is_resumed: bool) -> None:
    """Make the folder and write down what will be run there.

    Args:
      run_dir: the folder.
      algorithm: its name.
      config: its settings.
      is_resumed: the folder holds the run that goes on; otherwise it must hold none.

    Raises:
      UsageError: the folder cannot be made or written; or another run took it since `choose`.
    """
    told = {"algorithm": algorithm, "config": configs.to_dict(config), "shoal_version": shoal.__version__}
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run directory {run_dir}: {error.strerror}") from error
    try:
        # "x": of two runs that start in the same moment with the same name, one is told.
        with (run_dir / CONFIG).open("w" if is_resumed else "x", encoding="utf-8") as file:
            file.write(json.dumps(told, indent=2) + "\n")
    except FileExistsError as error:
        raise UsageError(f"another run has just started in {run_dir}: name another --run-dir") from error
    except OSError as error:
        raise UsageError(f"cannot write to the run directory {run_dir}: {error.strerror}") from error


def remove_unused(run_dir: Path) -> bool:
    """Remove the folder of a run that ended before its first iteration did, unless there is more in it than what was
    written before that.

    Returns:
      Whether it is gone.
    """
    try:
        places = list(run_dir.iterdir())
        if not all(map(_is_of_the_start, places)):
            return False
        for place in places:
            place.unlink()
        run_dir.rmdir()
    except OSError:  # it is a courtesy: what cannot be removed stays, as it would have anyway
        return False
    return True


def _is_of_the_start(place: Path) -> bool:
    """Whether this is there before the first row is."""
    is_empty_log = place.name in (loggers.CSV_NAME, loggers.JSON_LINES_NAME) and place.stat().st_size == 0
    return is_empty_log or place.name == CONFIG or place.name.startswith(loggers.EVENTS_PREFIX)


def find_checkpoint(place: Path) -> Path:
    """The checkpoint that a user means: a checkpoint itself, or the newest of a run directory.

    Raises:
      CheckpointError: there is none.
    """
    return place if (place / checkpoints.MANIFEST).is_file() else checkpoints.latest(place)


def write_evaluation(run_dir: Path, evaluation: Evaluation, steps: int) -> None:
    """Write down an evaluation of the policy after so many environment steps."""
    told = {
        "steps": steps,
        "episodes": len(evaluation.returns),
        "mean": evaluation.mean,
        "std": evaluation.std,
        "ci95": evaluation.ci95 if math.isfinite(evaluation.ci95) else None,
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
    }
    (run_dir / EVALUATION).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def as_best(checkpoint: checkpoints.Checkpoint, evaluation: Evaluation) -> checkpoints.Checkpoint:
    """The checkpoint with what its policy earned, for `checkpoints/best`."""
    told = {"mean": evaluation.mean, "std": evaluation.std, "episodes": len(evaluation.returns)}
    return dataclasses.replace(checkpoint, extra={**checkpoint.extra, "evaluation": told})


def best_mean(run_dir: Path) -> float:
    """What the best policy of a run has earned so far; minus infinity if none was evaluated.

    Raises:
      CheckpointError: its checkpoint is damaged.
    """
    place = checkpoints.best_place(run_dir)
    if not place.is_dir():
        return -math.inf
    mean = checkpoints.load(place).extra.get("evaluation", {}).get("mean")
    if not isinstance(mean, int | float):
        raise checkpoints.CheckpointError(f"{place} does not tell what its policy earned: remove it to go on")
    return float(mean)


def place_for_film(run_dir: Path, steps: int) -> Path:
    """Where the film of the evaluation after so many steps belongs: `RUN_DIR/videos/step_000150000.mp4`."""
    (run_dir / VIDEOS).mkdir(exist_ok=True)
    return run_dir / VIDEOS / f"step_{steps:09d}.mp4"


def describe(evaluation: Evaluation) -> str:
    """An evaluation in one line, for the terminal."""
    count = len(evaluation.returns)
    text = f"{count} episode{'s' if count > 1 else ''}, mean return {evaluation.mean:.2f}"
    if count == 1:
        return f"{text} (one episode has no spread)"
    low, high = evaluation.mean - evaluation.ci95, evaluation.mean + evaluation.ci95
    return f"{text}, standard deviation {evaluation.std:.2f}, 95 % interval {low:.2f} to {high:.2f}"
