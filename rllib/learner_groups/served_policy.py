"""A policy whose numbers and Adam are in a parameter server: ``ServedPolicy`` gives and takes them by name.

Many learners push gradients to it, each in its own way: together as one (``learner_group.py``), each minibatch by
whoever is free (``asynchronous_learners.py``), or workers that play and learn at once (``algorithms/a3c.py``). What is
common to these is here: names and shapes, checkpoints, the clock of each learner, who died. Lives in the driver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..learning.learner import diverged
from ..learning.optimizer_memory import memory_by_name, memory_from, memory_shapes
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights, by_name, flattened
from .parameter_server import ParameterClient, ParameterServer
from .parameter_shard import ShardSettings


class ServedPolicy:
    """A policy in a parameter server of its own.

    Args:
      spec: The policy's shape, without recurrence.
      weights: To begin with, by the names of ``spec.array_shapes``.
      settings: Of the server's shards.
      num_shards: How many there are.

    Attributes:
      clocks: The number of each learner's next step.

    Raises:
      ValueError: the policy is recurrent.
      ConfigError: there are fewer weights than shards.
    """

    def __init__(
        self, spec: PolicySpec, weights: Mapping[str, np.ndarray], settings: ShardSettings, *, num_shards: int
    ) -> None:
        if spec.is_recurrent:
            raise ValueError(f"many learners cannot share a recurrent policy ({spec.network.recurrent}); take one")
        self._spec = spec
        self._shapes = spec.array_shapes()
        self.clocks = [0] * settings.learners
        self._server = ParameterServer(flattened(weights, self._shapes), settings, num_shards=num_shards)
        self._client = self._server.client()

    @property
    def spec(self) -> PolicySpec:
        """As in ``LearnedPolicy``."""
        return self._spec

    def client(self) -> ParameterClient:
        """What another learner pushes and pulls with; it may be sent to actors."""
        return self._server.client()

    def weights(self, version: int) -> Weights:
        """As in ``LearnedPolicy``."""
        self._client.pull()
        return Weights(version, self._spec, by_name(self._client.weights.copy(), self._shapes))

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """As in ``LearnedPolicy``; nobody may be pushing."""
        state = self._server.arrays()
        return memory_by_name(int(state["steps"]), state, self._shapes)

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        """As in ``LearnedPolicy``."""
        return memory_shapes(self._shapes)

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        """As in ``LearnedPolicy``; nobody may be pushing."""
        flat = flattened(weights, self._shapes)
        steps, moments = memory_from(optimizer, self._shapes)
        # A version that no client has, and steps that no learner has taken: what is late belongs to the past.
        version = 1 + max(status.version for status in self._server.statuses())
        self.clocks = [version] * len(self.clocks)
        numbers = {"steps": steps, "version": version, "clocks": self.clocks}
        arrays = {name: np.array(number, np.int64) for name, number in numbers.items()}
        self._server.load({"weights": flat, **moments, **arrays})

    def apply(self, squared_norms: Sequence[Sequence[float | None]], max_grad_norm: float | None) -> float:
        """Have the shards take a step of bulk that all learners have pushed to, clipped by the norm of the whole.

        Args:
          squared_norms: What each learner was told by each shard: whoever pushed last to it the norm of its slice.
          max_grad_norm: The gradient is scaled down to it; None leaves it.

        Returns:
          The norm before.

        Raises:
          DivergedError: it is not finite; the weights are as they were, and the next step may come.
        """
        by_shard = zip(*squared_norms, strict=True)
        norm = math.sqrt(math.fsum(next(square for square in shard if square is not None) for shard in by_shard))
        if not math.isfinite(norm):
            self.give_up()
            raise diverged(norm, None)
        limit = math.inf if max_grad_norm is None else max_grad_norm
        self._commit(min(1.0, limit / (norm + 1e-6)))  # as torch.nn.utils.clip_grad_norm_ has it
        return norm

    def give_up(self) -> None:
        """Let the shards forget the step of bulk that has been pushed to; no push of it may come any more."""
        self._commit(None)

    def read_clocks(self) -> None:
        """Set ``clocks`` by who has pushed and who has not, which the shards know; nobody may be pushing."""
        self.clocks = list(self._server.statuses()[0].clocks)

    def counters(self) -> dict[str, float]:
        """``shards_restarted``: processes of shards that died and were followed by others so far."""
        return {"shards_restarted": sum(status.lives - 1 for status in self._server.statuses())}

    def close(self) -> None:
        """Kill the shards. May be called twice."""
        self._server.close()

    def _commit(self, scale: float | None) -> None:
        step = self.clocks[0]
        self._client.commit(step, scale)
        self.clocks = [step + 1] * len(self.clocks)
