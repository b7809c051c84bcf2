"""A policy whose numbers and Adam are in a parameter server: ``ServedPolicy`` gives and takes them by name.

Many learners push gradients to it, each in its own way: together as one (``learner_group.py``), each minibatch by
whoever is free (``asynchronous_learners.py``), or workers that play and learn at once (``algorithms/a3c.py``). What is
common to these is here: names and shapes, checkpoints, the clock of each learner, who died. Lives in the driver.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .optimizer_memory import memory_by_name, memory_from, memory_shapes
from .parameter_server import ParameterClient, ParameterServer
from .parameter_shard import ShardSettings
from .policy_spec import PolicySpec
from .weights import Weights, by_name, flattened


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
      ValueError: the policy is recurrent, or there are fewer weights than shards.
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

    def counters(self) -> dict[str, float]:
        """``shards_restarted``: processes of shards that died and were followed by others so far."""
        return {"shards_restarted": sum(status.lives - 1 for status in self._server.statuses())}

    def close(self) -> None:
        """Kill the shards. May be called twice."""
        self._server.close()
