"""Many learners as one: ``LearnerGroup`` is a ``Learner`` whose gradients are computed by N actors.

    minibatch --N parts--> replicas --gradient of each part--> shards of a parameter server --mean by rows--> Adam
                              ^                                                                                |
                              '------------------------------ weights of the next step ------------------------'

A step. The driver cuts the minibatch into N parts, equal to one row, and asks each replica (``compute``). A replica
pulls the weights of this step, differentiates its part and pushes. When all have answered, the shards have told the
squared norms of their slices, the driver finds the scale that clips the whole, and commits. So a step is that of one
learner with the whole minibatch, but for the order in which float32 sums are made: about 1e-7 of a weight.

    idle --submit N--> computing --all answered--> complete --commit--> idle, step + 1
                           '------- a gradient is not finite: commit(None) -------^   DivergedError; weights as before

Who dies, and what follows. A replica: ``WorkerSet`` makes another and asks it again; it pulls the same weights, for the
step has not been committed, and has the same gradient; if the dead one had pushed, the shards know it and take nothing
twice. A shard: comes back from its log, see ``parameter_server.py``. Neither changes a bit of the weights. The driver
holds nothing but the number of the step; with it everything ends, and the run goes on from its last checkpoint.

Recurrent policies are refused: their minibatches are sequences, which cannot be cut by rows.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import api
from .learner import Columns, DivergedError, GradientLearner, Metrics, diverged
from .parameter_server import ParameterClient, ParameterServer, ShardStatus
from .parameter_shard import ShardSettings
from .policy_spec import PolicySpec
from .threads import limit_matrix_threads
from .weights import Weights, by_name, flattened
from .worker_set import WorkerSet

#: What Adam remembers of a parameter, beside its number of steps.
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Computed:
    """What a replica says when the shards have its gradient."""

    rows: int  #: of its part
    metrics: dict[str, float]  #: what the loss reports of these
    squared_norms: list[float | None]  #: by shard, of the whole step; where it was the last to push


class Replica:
    """A learner in an actor; a plain class, of which ``LearnerGroup`` makes actors.

    Args:
      make: Makes the learner; its weights are of no account, and its optimiser has nothing to do.
      client: Of the parameter server.
      number: Which learner it is.
      driver_pid: The process that started it.
    """

    def __init__(
        self, make: Callable[[], GradientLearner], client: ParameterClient, number: int, *, driver_pid: int
    ) -> None:
        if os.getpid() != driver_pid:  # inline, the actor lives in the driver
            limit_matrix_threads(1)
        self._learner = make()
        self._client = client
        self._number = number

    def compute(
        self, step: int, columns: Mapping[str, np.ndarray], settings: Mapping[str, float], learning_rate: float
    ) -> Computed:
        """Push the gradient of some rows; returns when the shards have it for good.

        Args:
          step: Its number, of the weights to differentiate at, too.
          columns: [n, ...] each, as ``samples`` gives them.
          settings: Of the loss.
          learning_rate: For the server's Adam.

        Raises:
          DivergedError: the gradient is not finite; it was not pushed.
        """
        if self._client.pull(step):
            self._learner.set_flat_weights(self._client.weights)
        # Arrays from the object store are read-only, of which torch makes no tensors.
        mine = {name: np.require(column, requirements="W") for name, column in columns.items()}
        gradient, metrics = self._learner.gradients(self._learner.to_device(mine), settings)
        norm = math.sqrt(np.square(gradient, dtype=np.float64).sum())
        if not math.isfinite(norm):
            raise diverged(norm, None)
        rows = len(next(iter(columns.values())))
        acks = self._client.push(self._number, step, gradient, rows=rows, learning_rate=learning_rate)
        return Computed(rows, self._learner.means([metrics]), [ack.squared_norm for ack in acks])


class LearnerGroup:
    """N learners and a parameter server with Adam, as one learner.

    Args:
      spec: The policy's shape, without recurrence.
      weights: To begin with, by the names of ``spec.array_shapes``.
      make: Makes a learner of this policy, in each replica; travels there.
      count: N, at least 1.
      num_shards: Of the parameter server.
      learning_rate: Of Adam.
      epsilon: Of Adam.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them as they are.

    Raises:
      ValueError: the policy is recurrent, or a number is out of range.
    """

    def __init__(
        self,
        spec: PolicySpec,
        weights: Mapping[str, np.ndarray],
        make: Callable[[], GradientLearner],
        count: int,
        *,
        learning_rate: float,
        epsilon: float,
        max_grad_norm: float | None,
        num_shards: int = 1,
    ) -> None:
        if spec.is_recurrent:
            raise ValueError(f"many learners cannot share a recurrent policy ({spec.network.recurrent}); take one")
        self._spec = spec
        self._shapes = spec.array_shapes()
        self._learning_rate = learning_rate
        self._max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self._step = 0  # of the server: that which the next minibatch is
        settings = ShardSettings(count, epsilon=epsilon, awaits_scale=True)
        self._server = ParameterServer(flattened(weights, self._shapes), settings, num_shards=num_shards)
        self._client = self._server.client()
        driver_pid = os.getpid()

        def replica(worker: int, replacement: int) -> Any:  # noqa: ARG001  a successor is made as the first was
            made = api.remote(Replica).options(num_cpus=0)
            return made.remote(make, self._server.client(), worker, driver_pid=driver_pid)

        try:
            self._replicas = WorkerSet(replica, count, kind="learner", is_quick=False)
        except BaseException:
            self._server.close()
            raise

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    @property
    def replacements(self) -> int:
        """Learners that died and were replaced so far."""
        return self._replicas.replacements

    def statuses(self) -> list[ShardStatus]:
        """How each shard of the parameter server is."""
        return self._server.statuses()

    def set_learning_rate(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays: each replica moves its part to where it computes."""
        return dict(columns)

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """As in ``Learner``.

        Raises:
          DivergedError: a gradient is not finite; the weights are as they were.
          ValueError: there are fewer rows than learners.
          WorkerLostError: a learner keeps dying.
        """
        parts = parts_by_rows(minibatch, len(self))
        try:
            answers: list[Computed] = self._replicas.map(
                "compute", [(self._step, part, dict(settings), self._learning_rate) for part in parts]
            )
        except DivergedError:
            self._let_others_finish()
            self._commit(None)
            raise
        norm = math.sqrt(math.fsum(_squared_norms(answers)))
        if not math.isfinite(norm):
            self._commit(None)
            raise diverged(norm, None)
        self._commit(min(1.0, self._max_grad_norm / (norm + 1e-6)))  # as torch.nn.utils.clip_grad_norm_ has it
        total = sum(answer.rows for answer in answers)
        return {
            **{
                name: math.fsum(answer.metrics[name] * answer.rows for answer in answers) / total
                for name in answers[0].metrics
            },
            "grad_norm": norm,
        }

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        return {name: math.fsum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def weights(self, version: int) -> Weights:
        self._client.pull(self._step)
        return Weights(version, self._spec, by_name(self._client.weights.copy(), self._shapes))

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        state = self._server.arrays()
        if not state["steps"]:
            return {}
        moments = {quantity: by_name(state[quantity], self._shapes) for quantity in _MOMENTS}
        step = np.array(state["steps"], np.float32)
        memory = {name: {"step": step, **{each: moments[each][name] for each in _MOMENTS}} for name in self._shapes}
        return {f"{name}/{quantity}": array for name, mine in memory.items() for quantity, array in mine.items()}

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in self._shapes.items():
            shapes |= {f"{name}/step": (), f"{name}/exp_avg": shape, f"{name}/exp_avg_sq": shape}
        return shapes

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        flat = flattened(weights, self._shapes)
        moments = {quantity: np.zeros_like(flat) for quantity in _MOMENTS}
        if optimizer:
            for quantity in _MOMENTS:
                end = f"/{quantity}"
                mine = {name.removesuffix(end): array for name, array in optimizer.items() if name.endswith(end)}
                moments[quantity] = flattened(mine, self._shapes)
        counts = {int(array) for name, array in optimizer.items() if name.endswith("/step")} or {0}
        if len(counts) > 1:
            raise RuntimeError(f"the optimiser's parameters have taken different numbers of steps: {sorted(counts)}")
        self._step += 1  # a version that no client has
        numbers = {"steps": counts.pop(), "version": self._step, "clocks": [self._step] * len(self)}
        arrays = {name: np.array(number, np.int64) for name, number in numbers.items()}
        self._server.load({"weights": flat, **moments, **arrays})

    def close(self) -> None:
        """Kill learners and shards. May be called twice."""
        self._replicas.close()
        self._server.close()

    def _commit(self, scale: float | None) -> None:
        self._client.commit(self._step, scale)
        self._step += 1

    def _let_others_finish(self) -> None:
        """Until nothing is in flight: a push that comes later would be of a step that is over."""
        while any(self._replicas.in_flight(worker) for worker in range(len(self))):
            with contextlib.suppress(DivergedError):  # one has been told of
                for _ in self._replicas.completed():
                    pass


def _squared_norms(answers: Sequence[Computed]) -> list[float]:
    """By shard, of the step's gradient. Whoever pushed last to a shard was told."""
    by_shard = zip(*(answer.squared_norms for answer in answers), strict=True)
    return [next(square for square in squares if square is not None) for squares in by_shard]


def parts_by_rows(minibatch: Mapping[str, Any], count: int) -> list[dict[str, np.ndarray]]:
    """The rows of a minibatch in so many parts, which differ by one row at most.

    Raises:
      ValueError: there are fewer rows than parts.
    """
    rows = len(next(iter(minibatch.values())))
    if rows < count:
        raise ValueError(f"a minibatch of {rows} rows cannot be shared by {count} learners; take a larger one")
    bounds = [index * rows // count for index in range(count + 1)]
    return [
        {name: column[bounds[index] : bounds[index + 1]] for name, column in minibatch.items()}
        for index in range(count)
    ]
