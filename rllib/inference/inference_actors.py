"""The driver's side of inference actors: they are made, told to the workers, counted, and ended here.

They are restarted by the runtime when they die, by themselves and without end; a worker that has asked one thrice in
vain ends the run. Who dies how often is known from the answers, each of which names the life that gave it.
"""

from __future__ import annotations

import math
from typing import Any

from ...core import api, errors, state
from ..config import ConfigError
from .inference import InferenceActor
from .inference_client import MAX_ATTEMPTS, Exchange, InStore


class InferenceActors:
    """Some actors, each for its share of the rollout workers; or none, and workers act by themselves.

    Args:
      count: How many; 0: none.
      num_rows: Environment copies of the run.
      device: Where they compute: cpu; cuda, for which they share the session's GPUs; auto, these if there are any.

    Raises:
      ConfigError: there is no such device.
    """

    def __init__(self, count: int, *, num_rows: int, device: str = "cpu") -> None:
        self._actors: list[Any] = []
        self._lives: list[set[int]] = [set() for _ in range(count)]
        self._requests = self._batch_rows = self._asked_again = 0
        self._waited_s = self._played_s = 0.0
        if not count:
            return
        gpus = state.cluster_resources().get("GPU", 0.0) if device != "cpu" else 0.0
        if device == "cuda" and not gpus:
            raise ConfigError("inference_device must be cpu or auto in a session without GPUs, not 'cuda'")
        # No CPU of the session's accounts: the workers hold those, and wait while these compute.
        made = api.remote(InferenceActor).options(
            num_cpus=0,
            num_gpus=1 if gpus >= count else math.floor(1000.0 * gpus / count) / 1000.0,
            max_restarts=-1,
            max_task_retries=MAX_ATTEMPTS - 1,
        )
        for _ in range(count):
            self._actors.append(made.remote(num_rows=num_rows, device="cuda" if gpus else "cpu"))
        try:
            api.get([actor.check.remote() for actor in self._actors])
        except BaseException as error:
            self.close()
            if isinstance(error, errors.TaskError) and error.cause is not None:
                raise error.cause from error
            raise

    def of(self, worker: int) -> tuple[Any, int] | None:
        """Handle and index of the actor that a rollout worker asks."""
        if not self._actors:
            return None
        index = worker % len(self._actors)
        return self._actors[index], index

    def weights_of(self, ref: Any) -> Any:
        """What to tell workers to act with.

        Args:
          ref: Reference to ``Weights``, which the runtime fetches for workers that act by themselves.
        """
        return InStore(ref) if self._actors else ref

    def note(self, exchange: Exchange | None, seconds: float) -> None:
        """A rollout has come.

        Args:
          exchange: What passed between worker and actor, if there is one.
          seconds: How long the rollout took.
        """
        if exchange is None:
            return
        self._lives[exchange.actor] |= exchange.lives
        self._requests += exchange.requests
        self._batch_rows += exchange.batch_rows
        self._asked_again += exchange.asked_again
        self._waited_s += exchange.waited_s
        self._played_s += seconds

    def metrics(self) -> dict[str, float]:
        """How it went so far; NaN before the first rollout, and nothing without actors.

        Returns:
          inference/restarts; asked_again (requests that another life had to be asked again); batch_rows (mean rows of
          the batch that a request was in); waiting (share of the rollouts' time that workers waited for answers).
        """
        if not self._lives:
            return {}
        return {
            "inference/restarts": sum(max(0, len(lives) - 1) for lives in self._lives),
            "inference/asked_again": self._asked_again,
            "inference/batch_rows": self._batch_rows / self._requests if self._requests else float("nan"),
            "inference/waiting": self._waited_s / self._played_s if self._played_s else float("nan"),
        }

    def close(self) -> None:
        """Kill the actors. May be called twice."""
        while self._actors:
            api.kill(self._actors.pop())
