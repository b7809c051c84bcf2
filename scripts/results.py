"""`shoal results`: train every entry of the zoo with several seeds, and write down what the policies earn.

Each seed is a run of `shoal train --zoo NAME` in a process of its own, with a run directory under `--runs`; one that is
finished there is not made again, one that was interrupted goes on. The returns of the final evaluations (mean over
episodes, deterministic actions) become one row of `algorithms/zoo_results.json`, which `shoal zoo` shows. The mean of
the middle half and its interval are those of rliable (Agarwal et al. 2021): percentile bootstrap over the seeds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import shoal
from shoal.algorithms import zoo
from shoal.algorithms.zoo import Entry, Measured
from shoal.rllib import checkpoints
from shoal.rllib.loggers import CSV_NAME, read_csv
from shoal.scripts import run_directory
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.standard_streams import leave, say

PROG = "shoal results"
#: Samples of the bootstrap.
_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal results` can be told."""

    only: str = ""
    """Measure only this entry of the zoo."""

    seeds: int = 5
    """Runs of each entry, with the seeds 1, 2, 3, ..."""

    runs: str = "runs/zoo"
    """Folder for the runs; those that are finished there are taken as they are."""

    output: str = str(zoo.RESULTS)
    """Where to write what was measured; rows of other entries stay."""


def main(arguments: Sequence[str]) -> int:
    """Run `shoal results` with these arguments and return its exit code."""
    return run_command(PROG, lambda: measure_all(arguments))


def measure_all(arguments: Sequence[str]) -> int:
    """Train, gather, write.

    Raises:
      UsageError, ConfigError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=PROG, description="Measure the returns of the zoo's settings.")
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {options.seeds}")
    output = Path(options.output)
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: its folder does not exist")
    for entry in [zoo.find(options.only)] if options.only else zoo.ENTRIES:
        runs = []
        for seed in range(1, options.seeds + 1):
            run_dir = Path(options.runs) / entry.name / f"seed{seed}"
            if not _is_finished(run_dir, entry.config().total_steps) and (code := _train(entry, seed, run_dir)):
                say(f"{PROG}: {entry.name}, seed {seed} ended with exit code {code}")
                return code if code >= 128 else FAILED
            runs.append(run_dir)
        told = measured(entry, runs)
        write(output, {**zoo.measured(output), entry.name: told})
        say(f"{entry.name}: median {told.median:,.1f} of {len(runs)} seeds (goal {entry.goal:,.0f})")
    return DONE


def measured(entry: Entry, runs: Sequence[Path]) -> Measured:
    """What the finished runs of an entry amount to; run directory i is of seed i + 1."""
    evaluations = [json.loads((run_dir / run_directory.EVALUATION).read_bytes()) for run_dir in runs]
    returns = tuple(float(evaluation["mean"]) for evaluation in evaluations)
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "gymnasium"))
    return Measured(
        steps=int(evaluations[0]["steps"]),
        seeds=tuple(range(1, len(runs) + 1)),
        returns=returns,
        median=statistics.median(returns),
        mean=statistics.fmean(returns),
        iqm=middle_mean(returns),
        interval=bootstrapped(returns),
        wall_s=statistics.median(_elapsed_s(run_dir) for run_dir in runs),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        versions=f"shoal {shoal.__version__}, Python {platform.python_version()}, {libraries}",
        date=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        settings=entry.settings,
    )


def middle_mean(values: Sequence[float]) -> float:
    """The interquartile mean: without the lowest and the highest quarter, rounded down (scipy's ``trim_mean``)."""
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def bootstrapped(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of ``middle_mean``; the same each time it is asked for."""
    drawn = np.random.default_rng(0).choice(np.array(values), (_RESAMPLES, len(values)))
    cut = len(values) // 4
    means = np.sort(drawn, axis=1)[:, cut : len(values) - cut].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def write(output: Path, rows: dict[str, Measured]) -> None:
    """Replace the file at once, its rows in the order of the zoo."""
    order = {entry.name: place for place, entry in enumerate(zoo.ENTRIES)}
    listed = sorted(rows, key=lambda name: (order.get(name, len(order)), name))
    beside = output.with_suffix(".tmp")
    text = json.dumps({name: dataclasses.asdict(rows[name]) for name in listed}, indent=1)
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(output)


def _is_finished(run_dir: Path, total_steps: int) -> bool:
    try:
        steps = checkpoints.load(checkpoints.latest(run_dir)).counter("steps")
    except checkpoints.CheckpointError:
        return False
    return steps >= total_steps and run_directory.is_evaluated(run_dir, steps)


def _train(entry: Entry, seed: int, run_dir: Path) -> int:
    """One run in a process of its own; gives its exit code."""
    command = [sys.executable, "-m", "shoal.scripts", "train"]
    try:
        checkpoints.latest(run_dir)
        command += ["--resume", str(run_dir)]
    except checkpoints.CheckpointError:
        command += ["--zoo", entry.name, "--seed", str(seed), "--run-dir", str(run_dir)]
    return subprocess.run(command, check=False).returncode


def _elapsed_s(run_dir: Path) -> float:
    """Seconds of training; of a run that was resumed, of its parts together."""
    total = last = 0.0
    for row in read_csv(run_dir / CSV_NAME):
        if row.get("time/elapsed_s"):
            elapsed = float(row["time/elapsed_s"])
            total += elapsed - last if elapsed >= last else elapsed
            last = elapsed
    return total


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
