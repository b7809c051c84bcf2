"""Many learners as one, without a server: ``AllReduceGroup`` is a ``Learner`` of N actors that sum up their gradients
among themselves (torch.distributed, gloo), and each takes the same step with its own optimiser.

A replica's state is (step, weights, optimiser's memory), the same in all of them between two steps. For a step it
differentiates its part of the minibatch, weighs gradient and metrics by rows, and all sums come in one vector
[P + metrics]: so each knows what the whole step reports, and clips by the norm of the whole.

    idle --submit N--> summing --sums are there--> apply --> idle, step + 1
                          '--- a replica is dead: the sums of the others fail ---> recovery

Who dies, and what follows. A replica: the others' sums fail as soon as its sockets close. The driver makes a successor,
gives the state of whoever is furthest to all others, lets all join a new process group (a *generation*), and, unless
somebody had taken the step, asks for it again. Bits are those of a group that lives, for what is summed is the same, in
the same order. A replica whose loss raises leaves the group, so that nobody waits for it, and all meet again. All
replicas at once: their weights are lost, ``WorkerLostError``; the run goes on from its last checkpoint. The driver: as
with a single learner.

Replicas need processes of their own: inline, where all share one thread, two of them cannot wait for each other.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import api, errors
from .learner import Columns, DivergedError, GradientLearner, Metrics
from .learner_group import parts_by_rows
from .policy_spec import PolicySpec
from .threads import limit_matrix_threads
from .weights import Weights
from .worker_set import MAX_DEATHS_IN_A_ROW, WorkerLostError

#: Seconds for which a replica waits for the others' part of a sum, or for them to join.
WAIT_S = 120.0


class SumFailedError(RuntimeError):
    """A sum did not come about: another replica died, left, or did not come in time. The weights are as they were."""


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

    Raises:
      ValueError: it is one of many in the driver's own process.
    """

    def __init__(self, make: Callable[[], GradientLearner], number: int, count: int, *, driver_pid: int) -> None:
        if os.getpid() != driver_pid:
            limit_matrix_threads(1)
        elif count > 1:
            raise ValueError(
                f"{count} learners cannot sum up their gradients in one process, as on the engine inline; take another "
                f"engine, or synchronise by a parameter server"
            )
        self._learner = make()
        self._number = number
        self._count = count
        self._step = 0
        self._report: dict[str, float] = {}

    def join(self, meeting_point: Path) -> None:
        """Join the others in a new process group; returns when all have.

        Args:
          meeting_point: A file by which they find each other; of no group before.
        """
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
        store = distributed.FileStore(str(meeting_point), self._count)  # type: ignore[attr-defined]
        timeout = dt.timedelta(seconds=WAIT_S)
        distributed.init_process_group("gloo", store=store, rank=self._number, world_size=self._count, timeout=timeout)

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
        self,
        step: int,
        columns: Mapping[str, np.ndarray],
        settings: Mapping[str, float],
        learning_rate: float,
        share: float,
    ) -> dict[str, float]:
        """Take a step together with the others.

        Args:
          step: Its number: how many were taken before.
          columns: [n, ...] each, this replica's part of the minibatch.
          settings: Of the loss.
          learning_rate: For this step.
          share: n over the rows of the whole minibatch.

        Returns:
          What the loss reports of the whole minibatch, and ``grad_norm``.

        Raises:
          DivergedError: the sum is not finite; in all replicas.
          SumFailedError: a replica is not there any more, or did not come in time.
          Exception: the loss raised it. This replica has left the group then.
        """
        import torch
        from torch import distributed

        if step != self._step:
            raise RuntimeError(f"replica {self._number} was asked for step {step}; its next is step {self._step}")
        try:
            # Arrays from the object store are read-only, of which torch makes no tensors.
            mine = {name: np.require(column, requirements="W") for name, column in columns.items()}
            gradient, metrics = self._learner.gradients(self._learner.to_device(mine), settings)
            means = self._learner.means([metrics])
        except Exception:
            distributed.destroy_process_group()
            raise
        bucket = np.concatenate([gradient, np.fromiter(means.values(), np.float32)]) * np.float32(share)
        try:
            distributed.all_reduce(torch.from_numpy(bucket))
        except RuntimeError as error:
            raise SumFailedError(f"replica {self._number} had no sum of step {step}: {error}") from error
        self._learner.set_learning_rate(learning_rate)
        norm = self._learner.apply(bucket[: len(gradient)])
        of_all = dict(zip(means, bucket[len(gradient) :].tolist(), strict=True))
        self._step, self._report = step + 1, {**of_all, "grad_norm": norm}
        return self._report


class AllReduceGroup:
    """N learners that sum up their gradients, as one learner.

    Args:
      spec: The policy's shape, without recurrence.
      make: Makes a learner of this policy, with the same weights in each replica; travels there.
      count: N, at least 1.
      learning_rate: To begin with.

    Raises:
      ValueError: the policy is recurrent, or N is out of range.
      WorkerLostError: replicas do not start.
    """

    def __init__(
        self, spec: PolicySpec, make: Callable[[], GradientLearner], count: int, *, learning_rate: float
    ) -> None:
        if spec.is_recurrent:
            raise ValueError(f"many learners cannot share a recurrent policy ({spec.network.recurrent}); take one")
        if count < 1:
            raise ValueError(f"there is at least 1 learner, not {count}")
        self._spec = spec
        self._make = make
        self._count = count
        self._learning_rate = learning_rate
        self._step = 0
        self._generation = 0
        self.replacements = 0  #: learners that died and were replaced so far
        self._folder = Path(tempfile.mkdtemp(prefix="shoal-learners-"))
        self._replicas: list[Any] = []
        try:
            self._replicas = [self._start(number) for number in range(count)]
            self._meet()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._count

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def set_learning_rate(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays: each replica moves its part to where it computes."""
        return dict(columns)

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """As in ``Learner``.

        Raises:
          DivergedError: the gradient is not finite; the weights are as they were.
          ValueError: there are fewer rows than learners.
          WorkerLostError: learners keep dying, or all have.
        """
        parts = parts_by_rows(minibatch, self._count)
        rows = [len(next(iter(part.values()))) for part in parts]
        failures: list[Exception] = []
        for _ in range(MAX_DEATHS_IN_A_ROW):
            asked = [
                replica.take_step.remote(self._step, part, dict(settings), self._learning_rate, mine / sum(rows))
                for replica, part, mine in zip(self._replicas, parts, rows, strict=True)
            ]
            reports = [_outcome(ref) for ref in asked]  # of all: nobody works on when this is over
            failures = [report for report in reports if isinstance(report, Exception)]
            if not failures:
                self._step += 1
                return dict(reports[0])
            raised = [each for each in failures if not isinstance(each, SumFailedError | errors.ActorError)]
            if all(isinstance(failure, DivergedError) for failure in failures):  # found after the sum: nobody has left
                raise failures[0]
            state = self._recover()
            if raised:
                raise raised[0]
            if state.step > self._step:
                self._step = state.step
                return dict(state.report)
        raise WorkerLostError(f"learners died in {MAX_DEATHS_IN_A_ROW} attempts at one step") from failures[0]

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        return {name: math.fsum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def weights(self, version: int) -> Weights:
        return Weights(version, self._spec, self._state().weights)

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return dict(self._state().optimizer)

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = api.get(self._replicas[0].optimizer_shapes.remote())
        return shapes

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        state = ReplicaState(self._step, weights, optimizer, {})
        api.get([replica.take_over.remote(state) for replica in self._replicas])

    def close(self) -> None:
        """Kill the learners. May be called twice."""
        while self._replicas:
            api.kill(self._replicas.pop())
        shutil.rmtree(self._folder, ignore_errors=True)  # a dying replica may hold a file in it

    def _start(self, number: int) -> Any:
        made = api.remote(SummingReplica).options(num_cpus=0)
        return made.remote(self._make, number, self._count, driver_pid=os.getpid())

    def _meet(self) -> None:
        """Have all replicas join in a new generation."""
        self._generation += 1
        meeting_point = self._folder / f"generation.{self._generation}"
        api.get([replica.join.remote(meeting_point) for replica in self._replicas])

    def _state(self) -> ReplicaState:
        outcome = _outcome(self._replicas[0].state.remote())
        return self._recover() if isinstance(outcome, Exception) else outcome

    def _recover(self) -> ReplicaState:
        """Replace who is dead, and let all go on from the state of whoever is furthest, which is given."""
        outcomes = [_outcome(replica.state.remote()) for replica in self._replicas]
        alive = [outcome for outcome in outcomes if isinstance(outcome, ReplicaState)]
        if not alive:
            raise WorkerLostError(
                f"all {self._count} learners have died, and the weights with them; go on from the last checkpoint"
            ) from next(outcome for outcome in outcomes if isinstance(outcome, Exception))
        furthest = max(alive, key=lambda state: state.step)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                self._replicas[number] = self._start(number)
                self.replacements += 1
        state = api.put(furthest)
        api.get([replica.take_over.remote(state) for replica in self._replicas])
        self._meet()
        return furthest


def _outcome(ref: Any) -> Any:
    """The result of a call, or how it failed: its actor's death, or what it raised."""
    try:
        return api.get(ref)
    except errors.ActorError as error:
        return error
    except errors.TaskError as error:
        return error.cause or error
