"""One training run: iterations, checkpoints, evaluations, callbacks, and what they leave in the run directory.

    step -> callbacks -> logs -> checkpoint? -> evaluation begun? -> evaluations that are finished -> step ...

An evaluation at an interval is played beside training; its row in the logs comes when it is finished, with the steps
of the policy that it is of. The policy of the best mean so far is kept as `checkpoints/best`, whole: what is best is
known only when training has gone on, so each policy under evaluation is held in memory until then. After the last
iteration the rollout workers evaluate, all at once.

`train.py` makes a `Plan` of flags and hands it over with a running session.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from shoal import exceptions
from shoal.envs.vector import EnvFailure
from shoal.rllib.config import AlgorithmConfig
from shoal.rllib.external_settings import is_external
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.policies.policy import Policy
from shoal.rllib.rollouts.evaluation import Evaluation
from shoal.rllib.rollouts.external import StoppedWaiting
from shoal.rllib.trainable import Trainable
from shoal.rllib.training import checkpoints
from shoal.rllib.training.callbacks import Callback, CallbackFailure, Callbacks
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.rllib.training.loggers import EVALUATION, RunLog
from shoal.rllib.training.metrics import Pace
from shoal.rllib.training.progress import Progress
from shoal.rllib.training.video import record
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts import run_directory
from shoal.scripts.command_line import RunDirectoryError, Stopped
from shoal.scripts.interruption import Interruption
from shoal.scripts.serving_beside import ServedAt
from shoal.scripts.session_flags import NATIVE, SessionFlags
from shoal.scripts.standard_streams import Outlet, say

PROG = "shoal train"


@dataclass(frozen=True)
class Plan:
    """A run that nothing speaks against, as far as can be told before it starts."""

    algorithm: type[Trainable]
    config: AlgorithmConfig
    run_dir: Path
    resume_from: Checkpoint | None
    callbacks: tuple[Callback, ...] = ()
    records: bool = False  #: make a film of the first episode of each evaluation
    session: SessionFlags = NATIVE
    serves_at: ServedAt | None = None  #: where the policy answers while it is trained
    played_since_s: float | None = None  #: when simulators could begin, by time.monotonic(); None: with the first step


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
    CallbackFailure,
    WorkerLostError,
    DivergedError,
    RunDirectoryError,
    exceptions.HeadDiedError,
    exceptions.SessionError,
)


#: Counters in the rows of a run, and what to say when one rises.
_DEATHS = {
    "workers_replaced": "a rollout worker died and was replaced; its rollout was made again",
    "learners/replaced": "a learner died and was replaced; its gradient was made again",
    "learners/shards_restarted": "a shard of the parameter server died and came back from its log",
}

#: Seconds over which the rate of steps that external simulators play is a mean.
_OUTSIDE_S = 10.0

#: Lines about environments that are shown after one iteration.
_MOST_INCIDENTS = 3


class Run:
    """One training run: the loop, and what it leaves in the run directory."""

    def __init__(
        self,
        planned: Plan,
        algorithm: Trainable,
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
        self._callbacks = Callbacks(planned.callbacks)
        self._saved_at: int | None = None
        self._under_evaluation: dict[int, Checkpoint] = {}
        self._best_mean = -math.inf
        self._deaths: dict[str, float] = {}  # as far as they have been told of

    def go(self) -> int:
        """Train, save, evaluate.

        Raises:
          KeyboardInterrupt: a second signal; its text says what is saved.
          Stopped: something else ended the run after a checkpoint was saved.
          CheckpointError: the best checkpoint of the run that goes on is damaged.
        """
        planned, algorithm = self._plan, self._algorithm
        is_resumed = planned.resume_from is not None
        if planned.resume_from is not None:
            self._best_mean = run_directory.best_mean(planned.run_dir)
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
                began_s = time.monotonic() if planned.played_since_s is None else planned.played_since_s
                with Progress(
                    self._config.total_steps, self._display.stream, start_steps=started_at, started_s=began_s
                ) as progress:
                    self._train(log, progress, began_s)
                if not self._interruption.requested:
                    self._conclude(log)
                self._callbacks.on_end(algorithm)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._how_to_go_on()}") from None
        except _TROUBLE as error:
            if self._saved_place() is None:
                raise
            raise Stopped(self._how_to_go_on()) from error
        if self._interruption.requested:
            self._display.say(f"interrupted at {algorithm.steps:,} steps; {self._how_to_go_on()}")
            return self._interruption.exit_code
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

    def _train(self, log: RunLog, progress: Progress, began_s: float) -> None:
        """Iterate until the steps are done, or a callback or a signal asks to stop; then save.

        Args:
          began_s: When the first of the steps could be made.
        """
        config, algorithm = self._config, self._algorithm
        asked = "stopping after this iteration; once more to leave at once without saving"
        with self._interruption.deferred(lambda: progress.note(asked)):
            pace = Pace(0.0 if self._plan.played_since_s is None else _OUTSIDE_S, algorithm.steps, began_s)
            is_over = algorithm.is_done
            while not is_over and not self._interruption.requested:
                steps_before = algorithm.steps
                try:
                    row = algorithm.step()
                except StoppedWaiting:  # by a signal
                    break
                now_s = time.monotonic()
                row["steps_per_second"] = pace.after(algorithm.steps, now_s)
                row["time/elapsed_s"] = now_s - began_s
                is_over = self._callbacks.on_iteration(algorithm, row) or algorithm.is_done
                with run_directory.writing(self._plan.run_dir):
                    log.write(row)
                self._tell_incidents(progress)
                self._tell_deaths(progress, row)
                progress.update(row)
                if not is_over and _crossed(config.checkpoint_interval_steps, steps_before, algorithm.steps):
                    self._save()
                if not is_over and _crossed(config.eval_interval_steps, steps_before, algorithm.steps):
                    self._under_evaluation[algorithm.steps] = algorithm.checkpoint()
                    algorithm.begin_evaluation(config.eval_episodes, films=self._plan.records)
                self._take_evaluations(log, progress, wait=False)
            self._save()
            self._take_evaluations(log, progress, wait=True)

    def _tell_deaths(self, progress: Progress, row: Mapping[str, float]) -> None:
        """Say who died and was replaced in an iteration."""
        for name, what in _DEATHS.items():
            if row.get(name, 0.0) > self._deaths.get(name, 0.0):
                why = f": {self._algorithm.last_death}" if name == "workers_replaced" else ""
                progress.note(f"{what}{why}")
            self._deaths[name] = row.get(name, 0.0)

    def _tell_incidents(self, progress: Progress) -> None:
        """Say what happened to environments; of many lines at once the first few."""
        lines = self._algorithm.incidents
        for line in lines[:_MOST_INCIDENTS]:
            progress.note(line)
        if len(lines) > _MOST_INCIDENTS:
            progress.note(f"... and {len(lines) - _MOST_INCIDENTS} more of the kind")
        lines.clear()

    def _take_evaluations(self, log: RunLog, progress: Progress, *, wait: bool) -> None:
        """Write down what the evaluations beside training have found out."""
        for evaluated in self._algorithm.evaluations(wait=wait):
            self._note_evaluation(log, evaluated.steps, evaluated.evaluation)
            if evaluated.film is not None:
                with run_directory.writing(self._plan.run_dir):
                    run_directory.place_for_film(self._plan.run_dir, evaluated.steps).write_bytes(evaluated.film)
            self._keep_if_best(self._under_evaluation.pop(evaluated.steps), evaluated.evaluation)
            progress.note(f"evaluation at {evaluated.steps:,} steps: {run_directory.describe(evaluated.evaluation)}")

    def _conclude(self, log: RunLog) -> None:
        """What is done when all steps are."""
        if is_external(self._config):
            self._display.say("no evaluation: external simulators play, and the returns are of their episodes")
        else:
            self._evaluate(log)

    def _evaluate(self, log: RunLog) -> None:
        """Play with the policy as it is in the end."""
        evaluation = self._algorithm.evaluate(self._config.eval_episodes)
        steps = self._algorithm.steps
        self._note_evaluation(log, steps, evaluation)
        self._keep_if_best(self._algorithm.checkpoint(), evaluation)
        if self._plan.records:
            with run_directory.writing(self._plan.run_dir):
                film = run_directory.place_for_film(self._plan.run_dir, steps)
                policy = Policy(self._algorithm.weights())
                record(self._config.env, policy, film, seed=self._config.seed, checks=self._config.checks)
        self._display.say(f"evaluation at {steps:,} steps: {run_directory.describe(evaluation)}")

    def _note_evaluation(self, log: RunLog, steps: int, evaluation: Evaluation) -> None:
        row = {"steps": steps, EVALUATION: evaluation.mean, "evaluation/return_std": evaluation.std}
        if math.isfinite(evaluation.ci95):
            row["evaluation/return_ci95"] = evaluation.ci95
        with run_directory.writing(self._plan.run_dir):
            run_directory.write_evaluation(self._plan.run_dir, evaluation, steps)
            log.write(row)
        self._callbacks.on_evaluation(self._algorithm, steps, evaluation)

    def _keep_if_best(self, checkpoint: Checkpoint, evaluation: Evaluation) -> None:
        if evaluation.mean > self._best_mean:
            self._best_mean = evaluation.mean
            told = run_directory.as_best(checkpoint, evaluation)
            self._write(told, checkpoints.best_place(self._plan.run_dir))

    def _save(self) -> None:
        if self._saved_at != self._algorithm.steps:
            checkpoint = self._algorithm.checkpoint()  # may wait for what is under way, and count it
            place = checkpoints.place_for(self._plan.run_dir, self._algorithm.steps)
            self._write(checkpoint, place)
            self._saved_at = self._algorithm.steps
            with run_directory.writing(self._plan.run_dir):
                checkpoints.keep_newest(self._plan.run_dir, self._config.keep_checkpoints)
            self._callbacks.on_checkpoint(self._algorithm, place)

    def _write(self, checkpoint: Checkpoint, place: Path) -> None:
        if not self._plan.run_dir.is_dir():  # saving would make it anew, without the rest of the run
            raise RunDirectoryError(f"the run directory {self._plan.run_dir} is gone")
        with run_directory.writing(self._plan.run_dir):
            checkpoints.save(checkpoint, place)

    def _saved_place(self) -> Path | None:
        """The last checkpoint, unless there is none, or it was deleted."""
        if self._saved_at is None:
            return None
        place = checkpoints.place_for(self._plan.run_dir, self._saved_at)
        return place if place.is_dir() else None

    def _how_to_go_on(self) -> str:
        if self._saved_place() is None:
            return "no checkpoint was saved"
        command, at = ["shoal", "train", "--resume", str(self._plan.run_dir)], self._plan.serves_at
        if at is not None and is_external(self._config):  # without a server it could not go on
            command += at.arguments
        return f"a checkpoint of {self._saved_at:,} steps is saved: {shlex.join(command)}"


def _crossed(interval: int, before: int, after: int) -> bool:
    """Whether a multiple of `interval` lies in (before, after]; never if it is 0."""
    return interval > 0 and after // interval > before // interval
