"""Many learners as one, without a server: ``AllReduceGroup`` is a ``Learner`` of N actors that sum up their gradients
among themselves (torch.distributed, gloo), and each takes the same step with its own optimiser
(``summing_replica.py``).

    idle --submit N--> summing --sums are there--> apply --> idle, step + 1
                          '--- a replica is dead: the sums of the others fail ---> recovery

The driver asks for up to ``_MOST_IN_FLIGHT`` steps ahead, so replicas need not wait for it: ``update`` returns when a
step is asked for, ``means`` waits for all.

Who dies, and what follows. A replica: the others' sums fail as soon as its sockets close. The driver makes a successor,
gives the state of whoever is furthest to all others, lets all join a new process group (``meeting_place.py``), and asks
again for the steps that nobody had taken. Bits are those of a group that lives, for what is summed is the same, in
the same order. A replica whose loss raises leaves the group, so that nobody waits for it, and all meet again. All
replicas at once: their weights are lost, ``WorkerLostError``; the run goes on from its last checkpoint. The driver: as
with a single learner.

Replicas need processes of their own: inline, where all share one thread, two of them cannot wait for each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core import api, errors
from ..learning.learner import Columns, DivergedError, Metrics
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights
from ..worker_set import MAX_DEATHS_IN_A_ROW, WorkerLostError
from .bucketed_sum import SumFailedError
from .meeting_place import MeetingPlace
from .replica import MakeLearner, mean_of_steps, parts_by_rows
from .summing_replica import BUCKET_MB, ReplicaState, SummingReplica

#: Steps that replicas are asked for before the first is over.
_MOST_IN_FLIGHT = 4


@dataclass
class _Asked:
    """A step that is in flight."""

    number: int
    arguments: list[tuple[Any, ...]]  #: of ``take_step`` behind the number, by replica
    refs: list[Any]  #: by replica


class AllReduceGroup:
    """N learners that sum up their gradients, as one learner.

    Args:
      spec: The policy's shape, without recurrence.
      make: Makes a learner of this policy, with the same weights in each replica; travels there.
      count: N, at least 1.
      learning_rate: To begin with.
      bucket_mb: How much of the gradient is summed up at once, in MiB, while learners compute the rest.

    Raises:
      ValueError: the policy is recurrent, or a number is out of range.
      OneProcessError: the engine has no processes.
      WorkerLostError: replicas do not start.
    """

    def __init__(
        self,
        spec: PolicySpec,
        make: MakeLearner,
        count: int,
        *,
        learning_rate: float,
        bucket_mb: float = BUCKET_MB,
    ) -> None:
        if spec.is_recurrent:
            raise ValueError(f"many learners cannot share a recurrent policy ({spec.network.recurrent}); take one")
        if count < 1:
            raise ValueError(f"there is at least 1 learner, not {count}")
        if not bucket_mb > 0.0:
            raise ValueError(f"bucket_mb must be positive, not {bucket_mb}")
        self._spec = spec
        self._make = make
        self._count = count
        self._learning_rate = learning_rate
        self._bucket_mb = bucket_mb
        self._next = 0  # number of the next step
        self._asked: deque[_Asked] = deque()
        self._reports: dict[int, Mapping[str, float]] = {}  # of steps that are over, by number
        self._deaths_in_a_row = 0
        self._replacements = 0
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
        """As in ``Learner``."""
        return self._spec

    def set_learning_rate(self, learning_rate: float) -> None:
        """As in ``Learner``."""
        self._learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays: each replica moves its part to where it computes."""
        return dict(columns)

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """Ask for a step; what comes of it ``means`` tells.

        Raises:
          DivergedError: the gradient of an earlier step is not finite; the weights are as they were before that.
          WorkerLostError: learners keep dying, or all have.
          Exception: the loss of an earlier step raised it; the weights are as they were before that.
        """
        while len(self._asked) >= _MOST_IN_FLIGHT:
            self._finish_one()
        parts = parts_by_rows(minibatch, self._count)
        rows = sum(part.rows for part in parts)
        arguments = [(part, dict(settings), self._learning_rate, part.rows / rows) for part in parts]
        self._asked.append(self._ask(self._next, arguments))
        self._next += 1
        return {_NUMBER: self._next - 1}

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        """As in ``Learner``; waits for all steps.

        Raises:
          Exception: as ``update``.
        """
        self._finish_all()
        return mean_of_steps([self._reports.pop(step[_NUMBER]) for step in steps])

    def weights(self, version: int) -> Weights:
        """As in ``Learner``."""
        return Weights(version, self._spec, self._told("weights"))

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """As in ``Learner``."""
        return dict(self._told("state").optimizer)

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        """As in ``Learner``."""
        return dict(self._told("optimizer_shapes"))

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        """As in ``Learner``."""
        self._finish_all()
        state = ReplicaState(self._next, weights, optimizer, {})
        while failures := self._take_over(state):
            if not isinstance(failures[0], errors.ActorError):
                raise failures[0]
            self._recover()

    def counters(self) -> dict[str, float]:
        """``replaced``: learners that died and were replaced so far."""
        return {"replaced": self._replacements}

    def close(self) -> None:
        """Kill the learners. May be called twice."""
        while self._replicas:
            api.kill(self._replicas.pop())
        self._asked.clear()

    def _start(self, number: int) -> Any:
        made = api.remote(SummingReplica).options(num_cpus=0)
        return made.remote(self._make, number, self._count, driver_pid=os.getpid(), bucket_mb=self._bucket_mb)

    def _ask(self, number: int, arguments: list[tuple[Any, ...]]) -> _Asked:
        refs = [
            replica.take_step.remote(number, *mine) for replica, mine in zip(self._replicas, arguments, strict=True)
        ]
        return _Asked(number, arguments, refs)

    def _finish_all(self) -> None:
        while self._asked:
            self._finish_one()

    def _finish_one(self) -> None:
        """Wait for the oldest step that was asked for."""
        outcomes = [_outcome(ref) for ref in self._asked[0].refs]  # of all: nobody works on it when this is over
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if not failures:
            self._reports[self._asked.popleft().number] = outcomes[0]
            self._deaths_in_a_row = 0
            return
        asked = list(self._asked)
        self._asked.clear()
        found = [outcomes, *([_outcome(ref) for ref in each.refs] for each in asked[1:])]
        if all(isinstance(failure, DivergedError) for failure in failures):  # found after the sum: nobody has left
            self._next = asked[0].number
            self._reports.clear()
            raise failures[0]
        state = self._recover()
        raised = [each for each in failures if not isinstance(each, SumFailedError | errors.ActorError)]
        if raised:
            self._next, self._deaths_in_a_row = state.step, 0
            self._reports.clear()
            raise raised[0]
        for each, of_each in zip(asked, found, strict=True):
            if each.number < state.step:  # whoever is furthest has told, unless the answer died with another's
                told = [outcome for outcome in of_each if not isinstance(outcome, Exception)]
                self._reports[each.number] = told[0] if told else state.report
            else:
                self._asked.append(self._ask(each.number, each.arguments))

    def _told(self, method: str) -> Any:
        """What a replica answers, between two steps."""
        self._finish_all()
        while isinstance(outcome := _outcome(getattr(self._replicas[0], method).remote()), Exception):
            if not isinstance(outcome, errors.ActorError):
                raise outcome
            self._recover()
        return outcome

    def _recover(self) -> ReplicaState:
        """Replace who is dead, and let all go on from the state of whoever is furthest, which is given."""
        while True:
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row > MAX_DEATHS_IN_A_ROW:
                raise WorkerLostError(f"learners died {MAX_DEATHS_IN_A_ROW} times in a row, and no step was finished")
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
                    self._replacements += 1
            if not self._take_over(furthest) and self._have_met():
                return furthest

    def _take_over(self, state: ReplicaState) -> list[Exception]:
        """Have all replicas go on from this state; gives how that failed in some."""
        given = api.put(state)
        taken = [_outcome(ref) for ref in [replica.take_over.remote(given) for replica in self._replicas]]
        return [outcome for outcome in taken if isinstance(outcome, Exception)]

    def _meet(self) -> None:
        """Have all replicas join for the first time."""
        if not self._have_met():
            self._recover()

    def _have_met(self) -> bool:
        """Whether all replicas have joined in a new process group; False: one has died, or the place where they meet.

        Raises:
          Exception: one cannot.
        """
        place = api.remote(MeetingPlace).options(num_cpus=0).remote()
        under_way = [replica.join.remote(place) for replica in self._replicas]
        outcomes: list[Any] = []
        while under_way and not any(isinstance(outcome, Exception) for outcome in outcomes):
            done, under_way = api.wait(under_way, num_returns=1)
            outcomes += [_outcome(ref) for ref in done]
        outcomes.append(_outcome(place.set.remote("over", b"")))  # it may be what has died
        api.kill(place)  # nobody waits there any more for one that does not come
        outcomes += [_outcome(ref) for ref in under_way]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures and not any(isinstance(failure, errors.ActorError) for failure in failures):
            raise failures[0]
        return not failures


#: The number of a step, in what ``update`` returns.
_NUMBER = "number"


def _outcome(ref: Any) -> Any:
    """The result of a call, or how it failed: its actor's death, or what it raised."""
    try:
        return api.get(ref)
    except errors.ActorError as error:
        return error
    except errors.TaskError as error:
        return error.cause or error
