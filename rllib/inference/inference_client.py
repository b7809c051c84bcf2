"""The rollout worker's side of an inference actor: a policy that is elsewhere, and asks again when the actor dies.

A request is a pure function of weights, rows and recurrent states, so it may be made any number of times. The runtime
makes those that were under way again when the actor has been restarted; the new life does not know the weights and
says so, and the worker begins with it and asks again. So nothing is lost, and nothing differs but the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...core import api, errors
from ..policies.acting import Acted
from ..policies.weights import Weights
from ..worker_set import WorkerLostError
from .inference import Answer, Unknown, Valued

#: An actor that loses one request so often will not answer it: the runtime's attempts at one call, and ours.
MAX_ATTEMPTS = 3

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class InStore:
    """Weights as an object of the store, which a call that has them as an argument does not fetch."""

    ref: Any  #: reference to ``Weights``


@dataclass(frozen=True)
class Exchange:
    """What passed between a worker and its inference actor in one rollout."""

    actor: int  #: index of the actor
    lives: frozenset[int]  #: numbers of its lives that have answered
    requests: int  #: steps of groups of copies that were answered
    batch_rows: int  #: rows of the batch that each of these was in, summed over them
    asked_again: int  #: requests that another life had to be asked again
    waited_s: float  #: time that the worker had nothing to do but wait for answers


class RemotePolicy:
    """An ``Acting`` whose answers come from an inference actor, for one rollout.

    Args:
      actor: Handle of an ``InferenceActor``.
      index: Its index.
      worker: The index of the rollout worker that asks.
      weights: What to act with.

    Raises:
      WorkerLostError: the actor keeps dying.
    """

    is_elsewhere = True

    def __init__(self, actor: Any, index: int, worker: int, weights: InStore) -> None:
        # Arrays of the store are views: what is looked at here are shapes.
        fetched: Weights = api.get(weights.ref)
        self.spec, self.version = fetched.spec, fetched.version
        self._actor, self._index, self._worker = actor, index, worker
        self._weights_ref, self._key = weights.ref, weights.ref.hex()
        self._lives: set[int] = set()
        self._requests = self._batch_rows = self._asked_again = 0
        self._waited_s = 0.0
        self._begin()

    @property
    def exchange(self) -> Exchange:
        """What has passed so far."""
        return Exchange(
            self._index,
            frozenset(self._lives),
            self._requests,
            self._batch_rows,
            self._asked_again,
            self._waited_s,
        )

    def initial_states(self, count: int) -> np.ndarray:
        """See ``Acting``."""
        return np.zeros((count, self.spec.state_size), np.float32)

    def ask(self, observations: Rows, states: np.ndarray) -> Callable[[], Acted]:
        """See ``Acting``."""
        return partial(self._acted, self._send("step", observations, states), observations, states)

    def values(self, observations: Rows, states: np.ndarray | None = None) -> np.ndarray:
        """See ``Acting``."""
        valued: Valued = self._answer(self._send("values", observations, states), "values", observations, states)
        return valued.values

    def _acted(self, ref: Any, observations: Rows, states: np.ndarray) -> Acted:
        answer: Answer = self._answer(ref, "step", observations, states)
        self._requests += 1
        self._batch_rows += answer.batch_rows
        return Acted(answer.parameters, answer.values, states if answer.states is None else answer.states)

    def _send(self, method: str, observations: Rows, states: np.ndarray | None) -> Any:
        carried = states if self.spec.is_recurrent else None
        return getattr(self._actor, method).remote(self._worker, self._key, observations, carried)

    def _answer(self, ref: Any, method: str, observations: Rows, states: np.ndarray | None) -> Any:
        """The answer to a request; to another of the same if the actor has begun another life."""
        for _ in range(MAX_ATTEMPTS):
            answer = self._get(ref)
            is_new = answer.life not in self._lives
            self._lives.add(answer.life)
            if not isinstance(answer, Unknown):
                return answer
            self._asked_again += 1
            # Else another request has heard of this life, and begun since: maybe with a later one, of which more has
            # been asked, and to begin is to withdraw that.
            if is_new:
                self._begin()
            ref = self._send(method, observations, states)
        raise WorkerLostError(f"inference actor {self._index} was restarted {MAX_ATTEMPTS} times during one request")

    def _begin(self) -> None:
        self._lives.add(self._get(self._actor.begin.remote(self._worker, self._key, [self._weights_ref])))

    def _get(self, ref: Any) -> Any:
        # As long as it takes: the runtime reports deaths, and a batch takes as long as the policy does.
        began_s = time.monotonic()
        try:
            return api.get(ref)
        except errors.ActorError as error:
            raise WorkerLostError(f"inference actor {self._index} keeps dying: {error}") from error
        except errors.TaskError as error:
            raise (error.cause or error) from error
        finally:
            self._waited_s += time.monotonic() - began_s
