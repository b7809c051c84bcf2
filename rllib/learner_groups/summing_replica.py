"""A learner in an actor that sums up its gradients with others: ``SummingReplica``, one of an ``AllReduceGroup``.

Its state is (step, weights, optimiser's memory), the same in all of them between two steps. For a step it
differentiates its part of the minibatch, weighs gradient and metrics by rows, sums them up with the others
(``bucketed_sum.py``), and applies the sum: so each knows what the whole step reports, and clips by the norm of the
whole. It refuses a step that is not its next, so what follows one that failed fails, too, and moves nothing.
"""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..threads import limit_matrix_threads
from .bucketed_sum import BucketedSum, SumFailedError
from .meeting_place import store
from .replica import MakeLearner, Part, writable

#: Seconds for which a replica waits for the others' part of a sum, or for them to join.
WAIT_S = 120.0
#: What torch's DistributedDataParallel takes, too.
BUCKET_MB = 25.0


class OneProcessError(RuntimeError):
    """Learners that shall sum up their gradients would be in one process, where none can wait for another."""


@dataclass(frozen=True)
class ReplicaState:
    """What replicas have in common between two steps."""

    step: int  #: how many it has taken
    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    report: Mapping[str, float]  #: of the last step


class SummingReplica:
    """A learner in an actor; a plain class, of which ``AllReduceGroup`` makes actors.

    Args:
      make: Makes the learner.
      number: Which replica it is.
      count: How many there are.
      driver_pid: The process that started it.
      bucket_mb: How much of the gradient is summed up at once, in MiB.
    """

    def __init__(
        self, make: MakeLearner, number: int, count: int, *, driver_pid: int, bucket_mb: float = BUCKET_MB
    ) -> None:
        self._is_in_driver = os.getpid() == driver_pid
        if not self._is_in_driver:
            limit_matrix_threads(1)
        self._learner = make()
        self._number = number
        self._count = count
        self._bucket_length = max(1, int(bucket_mb * (1 << 20)) // np.dtype(np.float32).itemsize)
        num_weights = sum(math.prod(shape) for shape in self._learner.spec.array_shapes().values())
        self._has_many_buckets = num_weights > self._bucket_length
        self._step = 0
        self._report: dict[str, float] = {}

    def join(self, place: Any) -> None:
        """Join the others in a new process group; returns when all have.

        Args:
          place: Handle of a ``MeetingPlace``, of no group before.

        Raises:
          OneProcessError: all are in the driver's own process.
          SumFailedError: another did not come, or cannot be reached.
        """
        from torch import distributed

        if self._is_in_driver and self._count > 1:
            raise OneProcessError(
                f"{self._count} learners cannot sum up their gradients in one process, as on the engine inline; take "
                f"another engine, or synchronise by a parameter server"
            )

        if distributed.is_initialized():
            distributed.destroy_process_group()
        try:
            distributed.init_process_group(
                "gloo",
                store=store(place, WAIT_S),
                rank=self._number,
                world_size=self._count,
                timeout=dt.timedelta(seconds=WAIT_S),
            )
        except Exception as error:  # what torch makes of it, or of the end of the meeting place
            # Torch numbers a process's groups, and those who meet must have the same number: one who tried in vain
            # would never find a newcomer. The end of a group, as of one by itself, begins the count anew.
            if not distributed.is_initialized():
                alone = distributed.HashStore()  # type: ignore[attr-defined]  # as ``Store``, of C++
                distributed.init_process_group("gloo", store=alone, rank=0, world_size=1)
            distributed.destroy_process_group()
            raise SumFailedError(f"replica {self._number} could not join the others: {error}") from error

    def weights(self) -> Mapping[str, np.ndarray]:
        """A copy of its weights."""
        return self._learner.weights(0).arrays

    def state(self) -> ReplicaState:
        """A copy of its state."""
        weights = self._learner.weights(0).arrays
        return ReplicaState(self._step, weights, self._learner.optimizer_arrays(), self._report)

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        """As in ``Learner``."""
        return self._learner.optimizer_shapes()

    def take_over(self, state: ReplicaState) -> None:
        """Go on from this state, bit for bit.

        Raises:
          RuntimeError: it is of another policy.
        """
        self._learner.load(state.weights, state.optimizer)
        self._step, self._report = state.step, dict(state.report)

    def take_step(
        self, step: int, part: Part, settings: Mapping[str, float], learning_rate: float, share: float
    ) -> dict[str, float]:
        """Take a step together with the others.

        Args:
          step: Its number: how many were taken before.
          part: Of the minibatch.
          settings: Of the loss.
          learning_rate: For this step.
          share: What the part counts of the whole minibatch: its rows over all.

        Returns:
          What the loss reports of the whole minibatch, and ``grad_norm``.

        Raises:
          DivergedError: the sum is not finite; in all replicas.
          SumFailedError: a replica is not there any more, or did not come in time, or a step before this failed.
          Exception: the loss raised it. This replica has left the group then.
        """
        from torch import distributed

        if step != self._step:
            raise SumFailedError(f"replica {self._number} was asked for step {step}; its next is step {self._step}")
        total = BucketedSum(share, self._bucket_length)
        try:
            columns = self._learner.to_device(writable(part.columns))
            # One that is summed up as a whole is quicker found as a whole.
            watcher = total.final_from if self._has_many_buckets else None
            gradient, metrics = self._learner.gradients(columns, settings, final_from=watcher)
            means = self._learner.means([metrics])
        except Exception:
            distributed.destroy_process_group()
            raise
        try:
            of_all = total.finish(gradient, np.fromiter(means.values(), np.float32))
        except SumFailedError as error:
            raise SumFailedError(f"replica {self._number} had no sum of step {step}: {error}") from error
        self._learner.set_learning_rate(learning_rate)
        norm = self._learner.apply(gradient)
        self._step, self._report = step + 1, {**dict(zip(means, of_all.tolist(), strict=True)), "grad_norm": norm}
        return self._report
