"""What `shoal train`, callbacks and the list of algorithms ask of an algorithm, however it learns.

``Algorithm`` (``algorithm.py``) learns by gradients from rollouts; evolution strategies weigh whole episodes and have
no gradients. A run is the same for both:

    step, step, ... -> checkpoint? -> begin_evaluation? -> evaluations ... -> evaluate -> close

A protocol: what has these methods is one. Called on the driver, by one thread.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from .config import AlgorithmConfig
from .policies.policy import Policy
from .policies.weights import Weights
from .rollouts.evaluation import Evaluation
from .training.checkpoints import Checkpoint
from .training.evaluator import Evaluated


class Trainable(Protocol):
    """An algorithm under way: ``Trainable(config)`` makes one, when ``shoal.init`` has been called.

    Attributes:
      name: as in ``--algo``.
      Config: its settings.
      steps: environment steps done so far.
      incidents: what happened to environments and workers, a line each, since whoever shows it emptied the list.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]
    steps: int
    incidents: list[str]

    def __init__(self, config: Any) -> None: ...

    @property
    def is_done(self) -> bool:
        """Whether training is over: its steps are done, or what it was to reach is reached."""
        ...

    @property
    def last_death(self) -> str:
        """Why the worker that was replaced last had died: signal or exit code, end of its stderr."""
        ...

    def step(self) -> dict[str, float]:
        """One iteration.

        Returns:
          What happened: ``steps``, ``iteration``, ``return_mean``, ``episode_length_mean``, ``workers_replaced``, ...

        Raises:
          EnvFailure, WorkerLostError, DivergedError: what ends a run.
        """
        ...

    def evaluate(self, episodes: int) -> Evaluation:
        """Play the evaluation episodes with the present policy, frozen, with its likeliest actions; does not count as
        training.

        Args:
          episodes: How many: the same ones each time, whatever the number of workers.
        """
        ...

    def begin_evaluation(self, episodes: int, *, films: bool = False) -> None:
        """Have the present policy play these in an actor of its own while training goes on; see ``evaluations``. Waits
        only if two such evaluations are under way already.

        Args:
          episodes: How many.
          films: Whether to make a film of the first, see ``video.py``.

        Raises:
          EnvFailure, WorkerLostError: an earlier one failed.
        """
        ...

    def evaluations(self, *, wait: bool = False) -> list[Evaluated]:
        """What ``begin_evaluation`` began and has finished since the last call, oldest first.

        Args:
          wait: Until nothing is under way.

        Raises:
          EnvFailure, WorkerLostError: one failed.
        """
        ...

    def checkpoint(self) -> Checkpoint:
        """All that going on needs, between two steps."""
        ...

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same algorithm, environment and network.

        Raises:
          CheckpointError: it does not fit; nothing was changed.
        """
        ...

    def weights(self) -> Weights:
        """The policy as it is now."""
        ...

    def close(self) -> None:
        """Kill the workers. May be called twice."""
        ...

    @staticmethod
    def policy_from(checkpoint: Checkpoint) -> Policy:
        """The policy of a checkpoint, ready to act.

        Raises:
          CheckpointError: the checkpoint holds no policy, or not all of one.
        """
        ...
