"""Evaluation beside training: an actor of its own plays with frozen weights while the rollout workers go on.

The driver submits a policy by reference and asks later for what it earned; training does not wait, and as the actor
has environments and seeds of its own, the training curve does not change. Evaluations come out in the order in which
they went in. No more than ``MAX_IN_FLIGHT`` wait: an evaluation that lasts longer than the interval between two slows
training down rather than being left out.

The actor asks for no CPU of the session's accounts, so that it starts in a session whose CPUs the rollout workers hold;
it runs at a lower priority than they do. Imports no torch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core import api
from ...envs.vector import USUAL_CHECKS, Checks
from ..policies.policy import Policy
from ..policies.weights import Weights
from ..rollouts.evaluation import Evaluation, play_episodes
from ..threads import limit_matrix_threads
from ..worker_set import Completed, WorkerSet
from .video import record

#: Evaluations that may be under way or wait for the actor.
MAX_IN_FLIGHT = 2
#: Added to the niceness of the actor's process: training goes first where cores are few.
NICENESS = 5


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and of which policy."""

    steps: int  #: environment steps that the policy had learned from
    evaluation: Evaluation
    film: bytes | None = None  #: of the first episode, if one was asked for: what an MP4 file has in it


class EvaluationActor:
    """Plays whole episodes; a plain class, of which ``Evaluator`` makes an actor.

    Args:
      env_id: The environment's name.
      seed: The run's seed; decides how each episode starts.
      driver_pid: The process that asks.
      checks: Which numbers of the environment are refused.
    """

    def __init__(self, *, env_id: str, seed: int, driver_pid: int, checks: Checks = USUAL_CHECKS) -> None:
        self._env_id = env_id
        self._seed = seed
        self._checks = checks
        if os.getpid() != driver_pid:  # inline, the actor lives in the driver
            os.nice(NICENESS)
            limit_matrix_threads(1)

    def evaluate(self, steps: int, weights: Weights, episodes: Sequence[int]) -> Evaluated:
        """Play the evaluation episodes with these numbers, with the likeliest actions.

        Args:
          steps: Environment steps that the policy had learned from.
          weights: The policy.
          episodes: Numbers of the episodes.

        Raises:
          EnvFailure: an environment raised.
        """
        played = play_episodes(self._env_id, Policy(weights), episodes, self._seed, checks=self._checks)
        return Evaluated(steps, Evaluation.of(played))

    def evaluate_and_film(self, steps: int, weights: Weights, episodes: Sequence[int]) -> Evaluated:
        """As ``evaluate``, with a film of the first episode; it comes back with the result, as this may be another
        machine than the driver's.

        Raises:
          ConfigError: the environment cannot be filmed.
          EnvFailure: an environment raised.
        """
        evaluated = self.evaluate(steps, weights, episodes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            record(self._env_id, Policy(weights), path, seed=self._seed, episode=episodes[0], checks=self._checks)
            return replace(evaluated, film=path.read_bytes())


class Evaluator:
    """The driver's side of the actor, which starts with the first evaluation.

    Args:
      env_id, seed, checks: As in ``EvaluationActor``.
    """

    def __init__(self, *, env_id: str, seed: int, checks: Checks = USUAL_CHECKS) -> None:
        self._env_id = env_id
        self._seed = seed
        self._checks = checks
        self._workers: WorkerSet | None = None
        self._finished: list[Evaluated] = []

    def submit(self, steps: int, weights: Any, episodes: int, *, films: bool = False) -> None:
        """Have a policy evaluated; waits while ``MAX_IN_FLIGHT`` others are.

        Args:
          steps: What the result is to be known by.
          weights: Reference to ``Weights``.
          episodes: How many, from the first on.
          films: Whether to make a film of the first.

        Raises:
          EnvFailure, WorkerLostError: an evaluation before this one failed.
        """
        if self._workers is None:
            self._workers = WorkerSet(
                self._make,
                1,
                max_in_flight=MAX_IN_FLIGHT,
                kind="evaluation actor",
                is_quick=False,
                about=f"it plays {self._env_id}",
            )
        while self._workers.in_flight(0) >= MAX_IN_FLIGHT:
            self._take(next(self._workers.completed()))
        work = "evaluate_and_film" if films else "evaluate"
        self._workers.submit(0, work, steps, weights, range(episodes))

    def finished(self, *, wait: bool) -> list[Evaluated]:
        """What was finished since the last call, by the order of submission.

        Args:
          wait: Until nothing is under way.

        Raises:
          EnvFailure, WorkerLostError: an evaluation failed.
        """
        if self._workers is not None:
            for completed in self._workers.completed() if wait else self._workers.ready():
                self._take(completed)
        finished, self._finished = self._finished, []
        return sorted(finished, key=lambda evaluated: evaluated.steps)

    def close(self) -> None:
        """Kill the actor; what is under way is given up. May be called twice."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _take(self, completed: Completed) -> None:
        self._finished.append(completed.value)

    def _make(self, worker: int, replacement: int) -> Any:
        made = api.remote(EvaluationActor).options(num_cpus=0)
        return made.remote(env_id=self._env_id, seed=self._seed, driver_pid=os.getpid(), checks=self._checks)
