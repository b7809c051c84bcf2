"""`shoal results`: train every entry of the zoo with several seeds, and write down what the policies earn.

Each seed is a run of `shoal train --zoo NAME` in a process of its own, with a run directory under `--runs`; one that is
finished there is not made again, one that was interrupted goes on, and one that fails takes no other with it. Runs of
other settings than the entry's are refused, not counted. What counts is the policy as it is in the end, never the best
on the way: the returns of the final evaluations (mean over episodes, deterministic actions) become one row of the
file `--output`. That is one beside the runs; `make results` names `algorithms/zoo_results.json`, which `shoal zoo`
shows. A row is never replaced by one of fewer seeds. The mean of the middle half and its interval are those of rliable
(Agarwal et al. 2021): percentile bootstrap over the seeds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import platform
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal.algorithms import zoo
from shoal.algorithms.zoo import Entry, Measured
from shoal.rllib.config import ConfigError, from_dict, to_dict
from shoal.rllib.policies import devices
from shoal.rllib.training import checkpoints
from shoal.rllib.training.loggers import CSV_NAME, read_csv
from shoal.scripts import run_directory
from shoal.scripts.benchmarks.report import counted, machine
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.side_by_side import run_all
from shoal.scripts.standard_streams import leave, say

PROG = "shoal results"
#: Samples of the bootstrap.
_RESAMPLES = 10_000
#: In a run directory: how many runs went on at once, for the time that one takes depends on it.
_COMPANY = "company.json"
#: In a run directory: what the run printed, if others went on beside it.
_OUTPUT = "output.txt"
#: Settings that change how fast a run is and what it keeps, but not what it learns.
_WITHOUT_EFFECT = (
    "num_workers", "env_processes", "env_groups", "inference", "num_inference_actors", "checkpoint_interval_steps",
    "keep_checkpoints",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal results` can be told."""

    only: tuple[str, ...] = ()
    """Measure only these entries of the zoo; by default all, but those that want a GPU only where there is one."""

    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds of the runs of each entry."""

    parallel: int = 1
    """Runs at once; what they print goes to output.txt in their folders. Each is slower than alone: the row tells."""

    num_workers: int = 0
    """Rollout workers of each run; 0: as in the entry's settings, but one if runs go on at once. The returns are the
    same for any number."""

    runs: str = "runs/zoo"
    """Folder for the runs. A row is made of all that are finished there, so that more seeds can be added later."""

    output: str = ""
    """File for what was measured, by default zoo_results.json in the folder of the runs; rows of other entries stay,
    and so does one of more seeds than there would be."""


@dataclass(frozen=True)
class Trial:
    """One seed of one entry."""

    entry: Entry
    seed: int
    run_dir: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.entry.name}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether it was trained to the end, and the policy of the end evaluated."""
        try:
            steps = checkpoints.load(checkpoints.latest(self.run_dir)).counter("steps")
        except checkpoints.CheckpointError:
            return False
        return steps >= self.entry.config().total_steps and run_directory.is_evaluated(self.run_dir, steps)

    @property
    def other_settings(self) -> list[str]:
        """What its run directory, if there is one, was made with that is not in the entry: "gamma 0.9, not 0.99"."""
        told, wanted = _config_of(self.run_dir), self.entry.config(seed=self.seed)
        if not told:
            return []
        made_with = to_dict(from_dict(type(wanted), told))
        return [
            f"{name} {made_with[name]}, not {value}"
            for name, value in to_dict(wanted).items()
            if name not in _WITHOUT_EFFECT and made_with[name] != value
        ]


def output_of(options: Options) -> Path:
    """Where the rows go."""
    return Path(options.output) if options.output else Path(options.runs) / zoo.RESULTS.name


def main(arguments: Sequence[str]) -> int:
    """Run `shoal results` with these arguments and return its exit code."""
    return run_command(PROG, lambda: measure_all(arguments))


def measure_all(arguments: Sequence[str]) -> int:
    """Train, gather, write.

    Returns:
      0, or 1 if a run failed; the others are made all the same.

    Raises:
      UsageError, ConfigError: what is wrong, in one line.
      KeyboardInterrupt: a signal; the runs that were going on have saved checkpoints.
    """
    options = parse(Options, arguments, prog=PROG, description="Measure the returns of the zoo's settings.")
    trials = planned(options)
    output = output_of(options)
    left = Counter(trial.entry.name for trial in trials)
    failed: dict[str, list[int]] = {}
    with closing(_trained(trials, options)) as ended:
        for trial, code in ended:
            name = trial.entry.name
            left[name] -= 1
            if code:
                say(f"{PROG}: {trial.name} ended with exit code {code}{_where_it_says_why(trial, options)}")
                failed.setdefault(name, []).append(trial.seed)
            if left[name] == 0 and name not in failed:
                _write_row(trial.entry, trial.run_dir.parent, output)
    if left.keys() - failed.keys():
        say(f"{PROG}: every number is in {output}")
    for name, seeds in failed.items():
        which = ", ".join(map(str, sorted(seeds)))
        say(f"{PROG}: no row for {name}: seeds that failed: {which}; the same command goes on with them")
    return FAILED if failed else DONE


def _write_row(entry: Entry, folder: Path, output: Path) -> None:
    told = measured(finished(entry, folder))
    write(output, {**zoo.measured(output), entry.name: told})
    verdict = "reached" if told.median >= entry.goal else "missed"
    seeds = counted(len(told.seeds), "seed")
    say(f"{entry.name}: median {told.median:,.1f} of {seeds} (goal {entry.goal:,.0f} {verdict})")


def planned(options: Options) -> list[Trial]:
    """What is asked for, in the order of the zoo.

    Raises:
      UsageError, ConfigError: it cannot be had; nothing has been started.
    """
    if not options.seeds or min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise UsageError("--seeds must be different whole numbers, 0 or more: --seeds 1 2 3")
    if options.parallel < 1:
        raise UsageError(f"--parallel must be at least 1, not {options.parallel}")
    if options.num_workers < 0:
        raise UsageError(f"--num-workers must be at least 1, or 0 for the usual, not {options.num_workers}")
    run_directory.check_place(Path(options.runs), "--runs")
    output = output_of(options)
    if options.output and not output.parent.is_dir():
        raise UsageError(f"--output {output}: its folder does not exist")
    rows = _rows_in(output)
    entries = [zoo.find(name) for name in options.only] or _feasible()
    trials = [
        Trial(entry, seed, Path(options.runs) / entry.name / f"seed{seed}")
        for entry in sorted(entries, key=zoo.ENTRIES.index)
        for seed in sorted(options.seeds)
    ]
    for trial in trials:
        run_directory.check_place(trial.run_dir, "--runs")
        if others := trial.other_settings:
            raise UsageError(
                f"the run in {trial.run_dir} has other settings than the zoo ({'; '.join(others)}): "
                f"delete or move it, or name another folder with --runs"
            )
        trial.entry.config(num_workers=_workers(trial.entry, options))
    _check_seeds(trials, rows, output)
    return trials


def _rows_in(output: Path) -> dict[str, Measured]:
    """The rows that a file has so far.

    Raises:
      UsageError: it cannot be replaced by one with more.
    """
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder: name a file")
    if output.exists() and not output.is_file():
        raise UsageError(f"--output {output} is no regular file: name another")
    try:
        return zoo.measured(output)
    except ConfigError as error:
        what = f"--output {output} holds something else than results of the zoo ({error.__cause__})"
        raise UsageError(f"{what}: name another file, or move it away") from error
    except OSError as error:
        raise UsageError(f"--output {output} cannot be read: {error.strerror}") from error


def _check_seeds(trials: Sequence[Trial], rows: Mapping[str, Measured], output: Path) -> None:
    """Refuse to replace a row by one of fewer seeds, before hours go into it."""
    by_entry: dict[str, list[Trial]] = {}
    for trial in trials:
        by_entry.setdefault(trial.entry.name, []).append(trial)
    for name, asked in by_entry.items():
        done = finished(asked[0].entry, asked[0].run_dir.parent)
        count = len({trial.seed for trial in (*asked, *done)})
        there = len(rows[name].seeds) if name in rows else 0
        if count < there:
            raise UsageError(
                f"{output} has a row of {counted(there, 'seed')} for {name}, and this one would be of {count}: "
                f"give more --seeds, or another file with --output"
            )


def _feasible() -> list[Entry]:
    """The entries that this machine can measure in hours; says which it leaves out."""
    has_gpu = devices.resolve_device("auto").type != "cpu"
    left_out = [entry.name for entry in zoo.ENTRIES if entry.wants_gpu and not has_gpu]
    if left_out:
        say(f"{PROG}: left out, for want of a GPU: {', '.join(left_out)}; --only NAME measures it all the same")
    return [entry for entry in zoo.ENTRIES if entry.name not in left_out]


def _workers(entry: Entry, options: Options) -> int:
    return options.num_workers or (1 if options.parallel > 1 else entry.config().num_workers)


def _trained(trials: Sequence[Trial], options: Options) -> Generator[tuple[Trial, int], None, None]:
    """Each trial with its exit code: at once if it is finished already, the others when their processes end."""
    missing: dict[str, Trial] = {}
    for trial in trials:
        if trial.is_finished:
            yield trial, DONE
        else:
            missing[trial.name] = trial
    jobs = {name: (_command(trial, options), _output(trial, options)) for name, trial in missing.items()}
    for trial in missing.values():
        _note_company(trial.run_dir, options.parallel)
    for name, code in run_all(jobs, options.parallel):
        if code == DONE and options.parallel > 1:
            say(f"{name}: {_evaluation_of(missing[name].run_dir)['mean']:,.1f}")
        yield missing[name], code


def _command(trial: Trial, options: Options) -> list[str]:
    """What trains it: from its last checkpoint, or else from the beginning.

    Raises:
      UsageError: another process is at work in its folder.
    """
    command = [sys.executable, "-m", "shoal.scripts", "train"]
    workers = ["--num-workers", str(_workers(trial.entry, options))]
    try:
        checkpoints.latest(trial.run_dir)
        return [*command, "--resume", str(trial.run_dir), *workers]
    except checkpoints.CheckpointError:
        if (trial.run_dir / run_directory.CONFIG).is_file():  # it ended before it had saved anything
            run_directory.lock(trial.run_dir).close()
            shutil.rmtree(trial.run_dir)
        place = ["--run-dir", str(trial.run_dir)]
        return [*command, "--zoo", trial.entry.name, "--seed", str(trial.seed), *place, *workers]


def _output(trial: Trial, options: Options) -> Path | None:
    return trial.run_dir / _OUTPUT if options.parallel > 1 else None


def _where_it_says_why(trial: Trial, options: Options) -> str:
    place = _output(trial, options)
    return f"; see {place}" if place else ""


def _note_company(run_dir: Path, at_once: int) -> None:
    """Write down how many runs go on at once; of a run that is resumed, the most."""
    run_dir.mkdir(parents=True, exist_ok=True)
    most = max(at_once, _company_of(run_dir))
    (run_dir / _COMPANY).write_text(json.dumps({"runs_at_once": most}) + "\n", encoding="utf-8")


def _company_of(run_dir: Path) -> int:
    try:
        return int(json.loads((run_dir / _COMPANY).read_bytes())["runs_at_once"])
    except FileNotFoundError:
        return 1


def finished(entry: Entry, folder: Path) -> list[Trial]:
    """The finished runs of an entry in a folder, those of its present settings, by seed."""
    seeds = [int(number) for place in folder.glob("seed*") if (number := place.name[len("seed") :]).isdecimal()]
    trials = [Trial(entry, seed, folder / f"seed{seed}") for seed in sorted(seeds)]
    return [trial for trial in trials if trial.is_finished and not trial.other_settings]


def measured(trials: Sequence[Trial]) -> Measured:
    """What the finished runs of an entry amount to."""
    places = [trial.run_dir for trial in trials]
    evaluations = [_evaluation_of(place) for place in places]
    returns = tuple(float(evaluation["mean"]) for evaluation in evaluations)
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "gymnasium"))
    return Measured(
        steps=int(evaluations[0]["steps"]),
        seeds=tuple(trial.seed for trial in trials),
        returns=returns,
        episodes=int(evaluations[0]["episodes"]),
        median=statistics.median(returns),
        mean=statistics.fmean(returns),
        iqm=middle_mean(returns),
        interval=bootstrapped(returns),
        wall_s=statistics.median(_elapsed_s(place) for place in places),
        num_workers=max(int(_config_of(place)["num_workers"]) for place in places),
        runs_at_once=max(_company_of(place) for place in places),
        machine=machine(),
        versions=f"shoal {shoal.__version__}, Python {platform.python_version()}, {libraries}",
        date=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        settings=trials[0].entry.settings,
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


def write(output: Path, rows: Mapping[str, Measured]) -> None:
    """Replace the file at once, its rows in the order of the zoo."""
    order = {entry.name: place for place, entry in enumerate(zoo.ENTRIES)}
    listed = sorted(rows, key=lambda name: (order.get(name, len(order)), name))
    beside = output.with_suffix(".tmp")
    text = json.dumps({name: dataclasses.asdict(rows[name]) for name in listed}, indent=1)
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(output)


def _config_of(run_dir: Path) -> dict[str, Any]:
    """The settings that a run was made with; {} if none has begun there."""
    try:
        config: dict[str, Any] = json.loads((run_dir / run_directory.CONFIG).read_bytes())["config"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{run_dir / run_directory.CONFIG} is damaged ({error}): delete or move the run") from error
    return config


def _evaluation_of(run_dir: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run_dir / run_directory.EVALUATION).read_bytes())
    return told


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
