"""An inference actor: holds the policies that rollout workers act with, and answers rows of several workers together.

    worker                                   actor
    begin(worker, key, [weights])   ->       fetches the weights once, whoever brings them first; its life's number
    step(worker, key, rows, states) ->       waits in the queue of the policy until its batch closes (``batching.py``)
           ...                      <-       Answer: what to draw actions from, values, next states
    values(worker, key, rows, ...)  ->       at once; the worker steps no more until it begins again
                                    <-       Unknown: this life has not begun with these weights: begin, and ask again

A *key* names weights, as objects in the store do, so policies are never mixed: a batch is of one of them, and workers
that play with older ones, where rollouts come as they come, are answered by those. A policy is kept until all workers
that began with it have begun with another.

What a worker asks is a pure function of weights, rows and states, which it sends along: noise, masks and memory stay
with it. So an answer does not depend on who shares its batch, on how many actors there are, or on whether this one has
died in between: on a CPU it is what the worker's own ``Policy`` would say, to the last bit.

The actor is asynchronous, one thread. While a batch is computed requests pile up, and make the next.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..policies.acting import Acted
from ..policies.policy import Policy
from ..policies.torch_policy import TorchPolicies
from ..policies.weights import Weights
from ..threads import limit_matrix_threads
from ..worker_set import MAX_DEATHS_IN_A_ROW
from .batch_times import BatchTimes
from .batching import BatchQueue, RequestBatch

Rows = Mapping[str, np.ndarray]

#: Seconds: an event loop sleeps for whole milliseconds, so a batch that is due sooner is due now.
_TIMER_S = 0.0005


class Answer(NamedTuple):
    """To ``step``."""

    version: int  #: of the weights that answered
    life: int  #: of the actor
    batch_rows: int  #: rows that were computed together
    parameters: np.ndarray  #: [n, P] float32
    values: np.ndarray | None  #: [n] float32; None where the critic takes no part in acting
    states: np.ndarray | None  #: [n, S] float32; None without recurrence


class Valued(NamedTuple):
    """To ``values``."""

    life: int
    values: np.ndarray  #: [n] float32


class Unknown(NamedTuple):
    """These weights are not here: this life of the actor began after the worker had brought them."""

    life: int


class ActingPolicy(Protocol):
    """What answers: ``Policy``, or its twin on a GPU."""

    version: int

    def step(self, observations: Rows, states: np.ndarray) -> Acted:
        """See ``Policy.step``."""
        ...

    def values(self, observations: Rows, states: np.ndarray | None = None) -> np.ndarray:
        """See ``Policy.values``."""
        ...


class _Asked(NamedTuple):
    """Rows that wait for an answer."""

    observations: Rows
    states: np.ndarray
    answer: asyncio.Future[Answer]


class _Lane:
    """Requests to one policy.

    Args:
      policy: Which.
      num_rows: Environment copies of the workers that ask.
      times: How long batches take, as others have seen.
    """

    def __init__(self, policy: ActingPolicy, num_rows: int, times: BatchTimes) -> None:
        self.policy = policy
        # A worker's last request may come when it is dead, and has a successor: so often until the run is given up.
        most_rows = num_rows * (1 + MAX_DEATHS_IN_A_ROW)
        self.queue = BatchQueue(full_rows=num_rows, max_waiting_rows=most_rows, version=policy.version)
        self.queue.times = times
        self.asked: dict[int, _Asked] = {}  # by number of the request

    def withdraw(self, worker: int) -> None:
        """What a worker has asked that is gone."""
        for request in self.queue.withdraw(worker):
            self.asked.pop(request.number).answer.cancel()

    def answer(self, batch: RequestBatch, life: int) -> None:
        """Compute a batch, and hand the answers out, but to those whose calls have been cancelled."""
        asked = [self.asked.pop(request.number) for request in batch.requests]
        try:
            acted = self.policy.step(*_joined(asked))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who asked
            for each in asked:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        ends = np.cumsum([request.rows for request in batch.requests]).tolist()
        for each, request, end in zip(asked, batch.requests, ends, strict=True):
            rows = slice(end - request.rows, end)
            answer = Answer(
                batch.version,
                life,
                batch.rows,
                acted.parameters[rows],
                None if acted.values is None else acted.values[rows],
                acted.states[rows] if acted.states.shape[1] else None,
            )
            if not each.answer.done():
                each.answer.set_result(answer)


class InferenceActor:
    """Answers the workers of a run, or some of them. A plain class, of which ``InferenceActors`` makes actors.

    Args:
      num_rows: Environment copies of these workers: no more rows can be asked for at a time.
      device: Where to compute, see ``torch_policy.py``; "cpu" is ``Policy``.
    """

    def __init__(self, *, num_rows: int, device: str = "cpu") -> None:
        self._num_rows, self._device = num_rows, device
        self._made_by: Callable[[Weights], ActingPolicy] | None = None
        self._life = secrets.randbits(48)
        self._times = BatchTimes()  # of all policies: they are of one shape
        self._lanes: dict[str, _Lane] = {}
        self._key_of: dict[int, str] = {}  # of each worker that plays
        self._loading = asyncio.Lock()
        self._next_look: asyncio.Handle | None = None
        limit_matrix_threads(1)  # as in rollout workers

    async def check(self) -> None:
        """Raises ConfigError: the device is not there."""
        self._maker()

    async def begin(self, worker: int, key: str, weights: Sequence[Any]) -> int:
        """A worker, or another life of it, begins to act with these weights.

        Args:
          worker: Its index.
          key: Names the weights.
          weights: One reference to ``Weights``.

        Returns:
          The number of this life of the actor.
        """
        while key not in self._lanes:
            async with self._loading:
                if key not in self._lanes:
                    self._lanes[key] = _Lane(self._maker()(await weights[0]), self._num_rows, self._times)
        before = self._lanes.get(self._key_of.get(worker, ""))
        if before is not None:
            before.queue.close(worker)
            before.withdraw(worker)
        self._key_of[worker] = key
        self._lanes[key].queue.open(worker)
        for unused in [each for each in self._lanes if each not in self._key_of.values()]:
            del self._lanes[unused]
        self._look()
        return self._life

    async def step(self, worker: int, key: str, observations: Rows, states: np.ndarray | None) -> Answer | Unknown:
        """What the policy makes of a step.

        Args:
          worker: Who asks.
          key: What it began with.
          observations: Columns [n, *shape].
          states: [n, S] recurrent ones before the step; None without recurrence, as another array costs 20 us.
        """
        lane = self._lanes.get(key)
        if lane is None:
            return Unknown(self._life)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if states is None:
            states = np.zeros((len(next(iter(observations.values()))), 0), np.float32)
        request = lane.queue.offer(worker, len(states), time.monotonic())
        lane.asked[request.number] = _Asked(observations, states, answer)
        self._look()
        return await answer

    async def values(self, worker: int, key: str, observations: Rows, states: np.ndarray | None) -> Valued | Unknown:
        """What the critic makes of rows of a rollout that has been played, [n] each; see ``Policy.values``."""
        lane = self._lanes.get(key)
        if lane is None:
            return Unknown(self._life)
        lane.queue.close(worker)
        self._look()
        return Valued(self._life, lane.policy.values(observations, states))

    def _look(self) -> None:
        """See to it that the next batch is run when it is due."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        due_s = min((lane.queue.due_s() for lane in self._lanes.values()), default=float("inf"))
        if due_s == float("inf"):
            return
        loop, wait_s = asyncio.get_running_loop(), due_s - time.monotonic()
        # Not at once: other requests may have come that this loop has not got to yet.
        self._next_look = loop.call_soon(self._run) if wait_s < _TIMER_S else loop.call_later(wait_s, self._run)

    def _run(self) -> None:
        """Compute the batch that is due first."""
        self._next_look = None
        lane = min(self._lanes.values(), key=lambda lane: lane.queue.due_s(), default=None)
        if lane is not None and lane.queue.due_s() - time.monotonic() < _TIMER_S:
            batch = lane.queue.take(time.monotonic())
            lane.answer(batch, self._life)
            lane.queue.finish(time.monotonic())
        self._look()

    def _maker(self) -> Callable[[Weights], ActingPolicy]:
        if self._made_by is None:
            self._made_by = Policy if self._device == "cpu" else TorchPolicies(self._device)
        return self._made_by


def _joined(asked: Sequence[_Asked]) -> tuple[Rows, np.ndarray]:
    """One below the other."""
    if len(asked) == 1:
        return asked[0].observations, asked[0].states
    observations = {name: np.concatenate([each.observations[name] for each in asked]) for name in asked[0].observations}
    return observations, np.concatenate([each.states for each in asked])
