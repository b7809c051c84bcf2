"""`shoal train`: train an algorithm on an environment, from flags to a run directory.

    flags -> config -> shoal.init -> Algorithm -> step, step, ... -> checkpoint -> evaluation -> shoal.shutdown

The flags are the fields of the algorithm's config. `--resume RUN_DIR` takes them from the run's newest checkpoint and
goes on; flags given beside it override (a larger `--total-steps`, other intervals). Ctrl-C or SIGTERM lets the
iteration in progress finish, saves a checkpoint and leaves; a second one leaves at once.

What can be refused without a process is refused before one is started: flags, the environment's name, the run
directory, a checkpoint that is damaged.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Generic, TypeVar

import tyro

import shoal
from shoal import algorithms
from shoal.envs import registry
from shoal.rllib import checkpoints
from shoal.rllib.algorithm import Algorithm
from shoal.rllib.checkpoints import Checkpoint
from shoal.rllib.config import AlgorithmConfig, from_dict
from shoal.rllib.loggers import EVALUATION, RunLog
from shoal.rllib.progress import Progress
from shoal.scripts import run_directory
from shoal.scripts.command_line import UsageError, parse, run_command, value_of

PROG = "shoal train"
DEFAULT_ALGORITHM = "ppo"

C = TypeVar("C", bound=AlgorithmConfig)


@dataclass(frozen=True, kw_only=True)
class Options(Generic[C]):
    """What `shoal train` can be told: the run, and the settings of its algorithm."""

    algo: str = DEFAULT_ALGORITHM
    """Algorithm to train with; decides which of the settings below there are."""

    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the results; by default a new one in runs/, named after algorithm, environment, seed and time."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN_DIR")] = None
    """Go on with the run in this folder, from its newest checkpoint and with its settings; flags override them."""

    config: tyro.conf.OmitArgPrefixes[C]


@dataclass(frozen=True)
class Plan:
    """A run that nothing speaks against, as far as can be told before it starts."""

    algorithm: type[Algorithm[Any]]
    config: AlgorithmConfig
    run_dir: Path
    resume_from: Checkpoint | None


class Interruption:
    """What SIGINT and SIGTERM do: raise `KeyboardInterrupt` at once, or wait while something must be finished."""

    def __init__(self) -> None:
        self.requested = False
        self._is_deferred = False
        self._on_request: Callable[[], None] | None = None
        self.exit_code = 128 + signal.SIGINT

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take the signals for the length of the block. In the main thread only, as Python wants it."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self, on_request: Callable[[], None]) -> Iterator[None]:
        """In this block a first signal only sets `requested`, and calls `on_request`; a second one raises."""
        self._is_deferred, self._on_request = True, on_request
        try:
            yield
        finally:
            self._is_deferred = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.exit_code = 128 + number
        if self.requested or not self._is_deferred:
            raise KeyboardInterrupt
        self.requested = True
        if self._on_request is not None:
            self._on_request()


def main(arguments: Sequence[str]) -> int:
    """Run `shoal train` with these arguments and return its exit code."""
    return run_command(PROG, lambda: train(plan(arguments)))


def plan(arguments: Sequence[str]) -> Plan:
    """Understand the command line and check all that can be checked before a process is started.

    Raises:
      UsageError, ConfigError, UnknownEnvironment, CheckpointError: what is wrong, in one line.
    """
    resume = value_of("--resume", arguments)
    checkpoint = checkpoints.load(_newest(Path(resume))) if resume else None
    name = value_of("--algo", arguments) or (checkpoint.algorithm if checkpoint else DEFAULT_ALGORITHM)
    algorithm = algorithms.load(name)
    config_class = algorithms.config_class(name)
    config = from_dict(config_class, checkpoint.config) if checkpoint else config_class()
    options: Options[AlgorithmConfig] = parse(
        Options[config_class],  # type: ignore[valid-type]
        arguments,
        prog=PROG,
        description=f"Train {name} on an environment. Other algorithms: --algo {', '.join(algorithms.NAMES)}.",
        default=Options(algo=name, config=config),
    )
    registry.check(options.config.env)
    if checkpoint is None:
        run_dir = run_directory.choose(options.run_dir, name, options.config)
    else:
        run_dir = _resumed(options, checkpoint, config.env)
    return Plan(algorithm, options.config, run_dir, checkpoint)


def _newest(resume: Path) -> Path:
    """The checkpoint that a run goes on from."""
    if (resume / checkpoints.MANIFEST).is_file():
        raise UsageError(f"--resume {resume} is a checkpoint: give the run directory that it is in")
    return run_directory.find_run(resume)


def _resumed(options: Options[AlgorithmConfig], checkpoint: Checkpoint, learns: str) -> Path:
    """The directory of the run that goes on, after a look at whether it can."""
    run_dir = options.resume
    if run_dir is None:  # `--resume` stood where tyro read it as another flag's value
        raise UsageError("--resume needs the run directory behind it")
    if options.run_dir is not None:
        raise UsageError("--resume goes on in the run's own directory: leave --run-dir away")
    if options.algo != checkpoint.algorithm:
        raise UsageError(f"the run in {run_dir} is one of {checkpoint.algorithm}, not of {options.algo}: drop --algo")
    if options.config.env != learns:
        raise UsageError(f"the run in {run_dir} learns {learns}, not {options.config.env}: drop --env")
    steps = checkpoint.counter("steps")
    if steps >= options.config.total_steps and run_directory.is_evaluated(run_dir, steps):
        raise UsageError(f"the run in {run_dir} has done its {steps:,} steps: to go on, give a larger --total-steps")
    return run_dir


def train(planned: Plan) -> int:
    """Carry the plan out; whatever happens, nothing is left running.

    Returns:
      The exit code: 0, or 128 + signal if the run was interrupted.
    """
    interruption = Interruption()
    with interruption.handled(), ExitStack() as held:
        if planned.resume_from is not None:
            held.enter_context(run_directory.lock(planned.run_dir))
        try:
            # Every rollout worker holds one CPU of the core's accounts, also where there are fewer cores than workers.
            shoal.init(num_cpus=max(os.cpu_count() or 1, planned.config.num_workers))
            algorithm = planned.algorithm(planned.config)
            try:
                return Run(planned, algorithm, interruption, held).go()
            finally:
                algorithm.close()
        except KeyboardInterrupt as interrupt:
            _say(str(interrupt) or "interrupted before training began; nothing was saved")
            return interruption.exit_code
        finally:
            shoal.shutdown()


class Run:
    """One training run: the loop, and what it leaves in the run directory."""

    def __init__(self, planned: Plan, algorithm: Algorithm[Any], interruption: Interruption, held: ExitStack) -> None:
        """
        Args:
          held: what is let go when the run is over; takes the lock on the run directory.
        """
        self._plan = planned
        self._held = held
        self._config = planned.config
        self._algorithm = algorithm
        self._interruption = interruption
        self._saved_at: int | None = None

    def go(self) -> int:
        """Train, save, evaluate.

        Raises:
          KeyboardInterrupt: a second signal; its text says what is saved.
        """
        planned, algorithm = self._plan, self._algorithm
        is_resumed = planned.resume_from is not None
        if planned.resume_from is not None:
            algorithm.restore(planned.resume_from)
            self._saved_at = algorithm.steps
        run_directory.prepare(planned.run_dir, algorithm.name, self._config, is_resumed=is_resumed)
        if not is_resumed:  # as soon as there is something to lock
            self._held.enter_context(run_directory.lock(planned.run_dir))
        _say(f"run directory: {planned.run_dir}")
        started_at = algorithm.steps
        title = f"{algorithm.name} on {self._config.env}, seed {self._config.seed}"
        try:
            with RunLog(planned.run_dir, title=title, resume_at=started_at if is_resumed else None) as log:
                with Progress(self._config.total_steps, sys.stdout, start_steps=started_at) as progress:
                    self._train(log, progress)
                if self._interruption.requested:
                    _say(f"interrupted at {algorithm.steps:,} steps; {self._how_to_go_on()}")
                    return self._interruption.exit_code
                evaluation = self._evaluate(log)
                _say(f"evaluation at {algorithm.steps:,} steps: {evaluation}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._how_to_go_on()}") from None
        return 0

    def _train(self, log: RunLog, progress: Progress) -> None:
        """Iterate until the steps are done or a signal asks to stop; then save."""
        config, algorithm = self._config, self._algorithm
        asked = "stopping after this iteration; once more to leave at once without saving"
        with self._interruption.deferred(lambda: progress.note(asked)):
            began_s = before_s = time.monotonic()
            while algorithm.steps < config.total_steps and not self._interruption.requested:
                steps_before = algorithm.steps
                row = algorithm.step()
                now_s = time.monotonic()
                row["steps_per_second"] = (algorithm.steps - steps_before) / (now_s - before_s)
                row["time/elapsed_s"] = now_s - began_s
                before_s = now_s
                log.write(row)
                progress.update(row)
                is_over = algorithm.steps >= config.total_steps
                if not is_over and _crossed(config.checkpoint_interval_steps, steps_before, algorithm.steps):
                    self._save()
                if not is_over and _crossed(config.eval_interval_steps, steps_before, algorithm.steps):
                    progress.note(f"evaluation at {algorithm.steps:,} steps: {self._evaluate(log)}")
                    before_s = time.monotonic()
            self._save()

    def _save(self) -> None:
        if self._saved_at != self._algorithm.steps:
            place = checkpoints.place_for(self._plan.run_dir, self._algorithm.steps)
            checkpoints.save(self._algorithm.checkpoint(), place)
            self._saved_at = self._algorithm.steps

    def _evaluate(self, log: RunLog) -> str:
        """Play with the frozen policy, write the result down, and tell it."""
        evaluation = self._algorithm.evaluate(self._config.eval_episodes)
        steps = self._algorithm.steps
        run_directory.write_evaluation(self._plan.run_dir, evaluation, steps)
        row = {"steps": steps, EVALUATION: evaluation.mean, "evaluation/return_std": evaluation.std}
        if math.isfinite(evaluation.ci95):
            row["evaluation/return_ci95"] = evaluation.ci95
        log.write(row)
        return run_directory.describe(evaluation)

    def _how_to_go_on(self) -> str:
        if self._saved_at is None:
            return "no checkpoint was saved"
        return f"a checkpoint of {self._saved_at:,} steps is saved: shoal train --resume {self._plan.run_dir}"


def _crossed(interval: int, before: int, after: int) -> bool:
    """Whether a multiple of `interval` lies in (before, after]; never if it is 0."""
    return interval > 0 and after // interval > before // interval


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
