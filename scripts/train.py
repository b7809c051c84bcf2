"""`shoal train`: train an algorithm on an environment, from flags to a run directory.

    flags -> config -> shoal.init -> Algorithm -> step, step, ... -> checkpoint -> evaluation -> shoal.shutdown

The flags are the fields of the algorithm's config. `--resume RUN_DIR` takes them from the run's newest checkpoint and
goes on; flags given beside it override (a larger `--total-steps`, other intervals). Ctrl-C, SIGTERM
or SIGHUP lets the iteration in progress finish, saves a checkpoint and leaves; a second one leaves at once. What else
ends a run is told with its last checkpoint. A display that is lost (a full disk, a reader that leaves) ends nothing.

What can be refused without a process is refused before one is started: flags, the environment's name, the run
directory, a checkpoint that is damaged.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TextIO, TypeVar, cast

import tyro

import shoal
from shoal import algorithms, exceptions
from shoal.envs import registry
from shoal.envs.vector import EnvFailure
from shoal.rllib import checkpoints
from shoal.rllib.algorithm import Algorithm
from shoal.rllib.checkpoints import Checkpoint
from shoal.rllib.config import AlgorithmConfig, from_dict
from shoal.rllib.learner import DivergedError
from shoal.rllib.loggers import EVALUATION, RunLog
from shoal.rllib.progress import Progress
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts import run_directory
from shoal.scripts.command_line import (
    RunDirectoryError,
    Stopped,
    UsageError,
    parse,
    run_command,
    value_of,
)
from shoal.scripts.interruption import Interruption
from shoal.scripts.standard_streams import Outlet, leave, say

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


def main(arguments: Sequence[str]) -> int:
    """Run `shoal train` with these arguments and return its exit code."""
    return run_command(PROG, lambda: train(plan(arguments)))


def plan(arguments: Sequence[str]) -> Plan:
    """Understand the command line and check all that can be checked before a process is started.

    Raises:
      UsageError, ConfigError, UnknownEnvironment, CheckpointError: what is wrong, in one line.
    """
    resume = value_of("--resume", arguments)
    if resume == "":
        raise UsageError("--resume is empty: give the run directory of an earlier `shoal train`")
    if value_of("--run-dir", arguments) == "":
        raise UsageError("--run-dir is empty: name a folder, or leave the flag away")
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
        run_dir = _resumed(options, checkpoint, config)
    return Plan(algorithm, options.config, run_dir, checkpoint)


def _newest(resume: Path) -> Path:
    """The checkpoint that a run goes on from."""
    if (resume / checkpoints.MANIFEST).is_file():
        raise UsageError(f"--resume {resume} is a checkpoint: give the run directory that it is in")
    return run_directory.find_run(resume)


def _resumed(options: Options[AlgorithmConfig], checkpoint: Checkpoint, learnt: AlgorithmConfig) -> Path:
    """The directory of the run that goes on, after a look at whether it can."""
    run_dir, learns, seed = options.resume, learnt.env, learnt.seed
    if run_dir is None:  # `--resume` stood where tyro read it as another flag's value
        raise UsageError("--resume needs the run directory behind it")
    if options.run_dir is not None:
        raise UsageError("--resume goes on in the run's own directory: leave --run-dir away")
    if options.algo != checkpoint.algorithm:
        raise UsageError(f"the run in {run_dir} is one of {checkpoint.algorithm}, not of {options.algo}: drop --algo")
    if options.config.env != learns:
        raise UsageError(f"the run in {run_dir} learns {learns}, not {options.config.env}: drop --env")
    if options.config.seed != seed:
        raise UsageError(f"the run in {run_dir} has the seed {seed}, not {options.config.seed}: drop --seed")
    run_directory.check_logs(run_dir)
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
    display = Display()
    with interruption.handled(), ExitStack() as held:
        if planned.resume_from is not None:
            held.enter_context(run_directory.lock(planned.run_dir))
        try:
            # Every rollout worker holds one CPU of the core's accounts, also where there are fewer cores than workers.
            shoal.init(num_cpus=max(os.cpu_count() or 1, planned.config.num_workers))
            algorithm = planned.algorithm(planned.config)
            try:
                return Run(planned, algorithm, interruption, display, held).go()
            finally:
                interruption.over()
                algorithm.close()
        except KeyboardInterrupt as interrupt:
            interruption.over()
            display.say(str(interrupt) or "interrupted before training began; nothing was saved")
            return interruption.exit_code
        finally:
            interruption.over()
            shoal.shutdown()


class Display:
    """stdout for as long as it can be written, then stderr for what matters."""

    def __init__(self) -> None:
        self._outlet = Outlet(sys.stdout, self._tell_loss)

    @property
    def stream(self) -> TextIO:
        """Where the progress goes."""
        return cast(TextIO, self._outlet)

    def say(self, text: str) -> None:
        """Write a line of its own."""
        if not self._outlet.is_lost:
            self._outlet.write(f"{text}\n")
            self._outlet.flush()
        if self._outlet.is_lost:
            say(text)

    @staticmethod
    def _tell_loss(error: OSError) -> None:
        say(f"{PROG}: stdout cannot be written ({error.strerror}): going on without display")


#: What may end a run in the middle: told with the checkpoint that is left.
_TROUBLE = (
    EnvFailure,
    WorkerLostError,
    DivergedError,
    RunDirectoryError,
    exceptions.HeadDiedError,
    exceptions.SessionError,
)


class Run:
    """One training run: the loop, and what it leaves in the run directory."""

    def __init__(
        self,
        planned: Plan,
        algorithm: Algorithm[Any],
        interruption: Interruption,
        display: Display,
        held: ExitStack,
    ) -> None:
        """
        Args:
          held: what is let go when the run is over; takes the lock on the run directory.
        """
        self._display = display
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
          Stopped: something else ended the run after a checkpoint was saved.
        """
        planned, algorithm = self._plan, self._algorithm
        is_resumed = planned.resume_from is not None
        if planned.resume_from is not None:
            algorithm.restore(planned.resume_from)
            self._saved_at = algorithm.steps
        run_directory.prepare(planned.run_dir, algorithm.name, self._config, is_resumed=is_resumed)
        if not is_resumed:  # as soon as there is something to lock
            self._held.enter_context(run_directory.lock(planned.run_dir))
        self._display.say(f"run directory: {planned.run_dir}")
        started_at = algorithm.steps
        title = f"{algorithm.name} on {self._config.env}, seed {self._config.seed}"
        try:
            with self._log(title=title, resume_at=started_at if is_resumed else None) as log:
                with Progress(self._config.total_steps, self._display.stream, start_steps=started_at) as progress:
                    self._train(log, progress)
                if self._interruption.requested:
                    self._display.say(f"interrupted at {algorithm.steps:,} steps; {self._how_to_go_on()}")
                    return self._interruption.exit_code
                evaluation = self._evaluate(log)
                self._display.say(f"evaluation at {algorithm.steps:,} steps: {evaluation}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._how_to_go_on()}") from None
        except _TROUBLE as error:
            if self._saved_place() is None:
                raise
            raise Stopped(self._how_to_go_on()) from error
        return 0

    @contextmanager
    def _log(self, *, title: str, resume_at: int | None) -> Iterator[RunLog]:
        run_dir = self._plan.run_dir
        with run_directory.writing(run_dir):
            log = RunLog(run_dir, title=title, resume_at=resume_at)
        try:
            yield log
        except BaseException:
            with suppress(RunDirectoryError), run_directory.writing(run_dir):  # the first trouble is the one to tell
                log.close()
            raise
        with run_directory.writing(run_dir):
            log.close()

    def _train(self, log: RunLog, progress: Progress) -> None:
        """Iterate until the steps are done or a signal asks to stop; then save."""
        config, algorithm = self._config, self._algorithm
        asked = "stopping after this iteration; once more to leave at once without saving"
        with self._interruption.deferred(lambda: progress.note(asked)):
            replaced = 0.0
            began_s = before_s = time.monotonic()
            while algorithm.steps < config.total_steps and not self._interruption.requested:
                steps_before = algorithm.steps
                row = algorithm.step()
                now_s = time.monotonic()
                row["steps_per_second"] = (algorithm.steps - steps_before) / (now_s - before_s)
                row["time/elapsed_s"] = now_s - began_s
                before_s = now_s
                with run_directory.writing(self._plan.run_dir):
                    log.write(row)
                if row.get("workers_replaced", replaced) > replaced:
                    replaced = row["workers_replaced"]
                    progress.note(
                        "a rollout worker died and was replaced; its rollout was made again: "
                        f"{algorithm.workers.last_death}"
                    )
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
            if not self._plan.run_dir.is_dir():  # saving would make it anew, without the rest of the run
                raise RunDirectoryError(f"the run directory {self._plan.run_dir} is gone")
            with run_directory.writing(self._plan.run_dir):
                checkpoints.save(self._algorithm.checkpoint(), place)
            self._saved_at = self._algorithm.steps

    def _evaluate(self, log: RunLog) -> str:
        """Play with the frozen policy, write the result down, and tell it."""
        evaluation = self._algorithm.evaluate(self._config.eval_episodes)
        steps = self._algorithm.steps
        row = {"steps": steps, EVALUATION: evaluation.mean, "evaluation/return_std": evaluation.std}
        if math.isfinite(evaluation.ci95):
            row["evaluation/return_ci95"] = evaluation.ci95
        with run_directory.writing(self._plan.run_dir):
            run_directory.write_evaluation(self._plan.run_dir, evaluation, steps)
            log.write(row)
        return run_directory.describe(evaluation)

    def _saved_place(self) -> Path | None:
        """The last checkpoint, unless there is none, or it was deleted."""
        if self._saved_at is None:
            return None
        place = checkpoints.place_for(self._plan.run_dir, self._saved_at)
        return place if place.is_dir() else None

    def _how_to_go_on(self) -> str:
        if self._saved_place() is None:
            return "no checkpoint was saved"
        return f"a checkpoint of {self._saved_at:,} steps is saved: shoal train --resume {self._plan.run_dir}"


def _crossed(interval: int, before: int, after: int) -> bool:
    """Whether a multiple of `interval` lies in (before, after]; never if it is 0."""
    return interval > 0 and after // interval > before // interval


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
