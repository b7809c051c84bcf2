"""Rollouts as they come: nobody waits for the slowest worker, and nothing that was played is thrown away.

    publish(weights, version)   newest weights: whoever may be asked is asked for a segment with them
    take(num_rows)              waits until a batch is full; each segment that arrives is followed by another request
    ready()                     whatever is there, without waiting

What is taken when, and what a bound on the lag means, is ``segment_book.py``'s to say; here requests go out to a
``WorkerSet`` and results come in. Whoever takes rollouts learns from segments of different versions, each with the
log-probabilities of the weights that acted, and of one worker there may be several in a batch, in the order in which
they were played: one goes on where the other stopped.

If a worker dies, another goes on behind its last segment that arrived (``arrived`` tells whoever makes workers where
that is) and plays again what was in flight, with the weights and random streams that it was asked with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..worker_set import Completed, WorkerSet
from .batch import Batch
from .env_runner import Collected
from .segment_book import Asked, SegmentBook


@dataclass(frozen=True)
class Segment:
    """One rollout of one worker."""

    worker: int  #: index of the worker
    batch: Batch  #: [T, B_w]; its version is that of the weights that acted
    lag: int  #: versions that were published between those weights and the taking of the segment


class DynamicCollection:
    """Segments of a run's workers, as they come. Made and used on the driver; not thread-safe.

    Args:
      workers: Actors with ``EnvRunner.collect``. Nothing else may be in flight on them; their limit of requests in
        flight becomes this one's.
      num_steps: T of a segment.
      copies: Environment copies of each worker.
      max_in_flight: Most requests in flight on each worker.
      max_lag: Most versions between the weights that acted and those that learn; None: no bound.
      next_rollout: Gives each request the number that picks its random streams.
      arrived: Told of each segment when it comes, before anything else happens to its worker.
      taken: Told of each segment when it is taken.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self,
        workers: WorkerSet,
        num_steps: int,
        copies: Sequence[int],
        *,
        max_in_flight: int,
        max_lag: int | None,
        next_rollout: Callable[[], int],
        arrived: Callable[[int, Collected], None],
        taken: Callable[[int, Collected], None],
    ) -> None:
        self._workers, self._num_steps = workers, num_steps
        self._max_in_flight, self._max_lag = max_in_flight, max_lag
        self._next_rollout, self._arrived, self._taken = next_rollout, arrived, taken
        self._rows = [num_steps * count for count in copies]
        self._book = SegmentBook(self._rows, max_in_flight=max_in_flight, max_lag=max_lag)
        self._collected: dict[int, Collected] = {}
        self._weights_ref: Any = None
        self._is_running = False
        workers.max_in_flight = max_in_flight

    @property
    def is_new(self) -> bool:
        """Nothing was asked for yet, or since ``restart``."""
        return not self._is_running

    def publish(self, weights_ref: Any, version: int) -> None:
        """Newer weights for all requests from now on. Workers that have nothing to do are asked at once.

        Args:
          weights_ref: ``Weights`` in the object store.
          version: Theirs; with a bound on the lag one more than the last, after a batch was taken.

        Raises:
          ValueError: it is not.
        """
        self._book.publish(version)
        self._weights_ref = weights_ref
        if self._is_running:
            self._ask_all()

    def take(self, num_rows: int) -> list[Segment]:
        """Wait for a batch.

        Args:
          num_rows: Its rows at least, steps times copies. It has more if segments do not add up to so many, or if those
            that must not become older are more.

        Returns:
          Segments by version, then by arrival; those of one worker in the order in which they were played.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: a worker keeps dying.
        """
        self._book.begin(num_rows)
        self._start()
        while not self._book.is_full():
            for completed in self._workers.completed():
                self._receive(completed)
                self._ask_all()
                if self._book.is_full():
                    break
        segments = self._segments(self._book.take())
        self._ask_all()
        return segments

    def ready(self) -> list[Segment]:
        """All that has arrived, in the order of arrival, without waiting. Whoever sent it is asked again.

        Raises:
          RuntimeError: there is a bound on the lag, which only whoever waits can keep.
          EnvFailure, WorkerLostError: as ``take``.
        """
        if self._max_lag is not None:
            raise RuntimeError(f"segments may lag by {self._max_lag} at most, and that may need waiting: use take()")
        self._start()
        for completed in self._workers.ready():
            self._receive(completed)
            self._ask_all()
        return self._segments(self._book.take_all())

    def settle(self) -> None:
        """Wait for all that is in flight and hold it, so that other requests can be made of the workers. The next
        ``take``, ``ready`` or ``publish`` goes on.

        Raises:
          EnvFailure, WorkerLostError: as ``take``.
        """
        for completed in self._workers.completed():
            self._receive(completed)

    def restart(self, version: int) -> None:
        """The run goes on from elsewhere: what is held is of another past, and is let go. Nothing may be in flight.

        Args:
          version: The newest weights' then; they are to be published.
        """
        self._book = SegmentBook(self._rows, max_in_flight=self._max_in_flight, max_lag=self._max_lag)
        self._book.version = version
        self._collected.clear()
        self._is_running = False

    def metrics(self) -> dict[str, float]:
        """How it went so far; see ``SegmentBook.metrics``. ``made_again``: requests that went out a second time, since
        their worker had died.
        """
        return {**self._book.metrics(), "made_again": self._workers.made_again}

    def _start(self) -> None:
        if self._weights_ref is None:
            raise RuntimeError("no weights have been published yet: call publish() first")
        self._is_running = True
        self._ask_all()

    def _ask_all(self) -> None:
        """Everybody who may be asked is."""
        while (worker := self._book.next_to_ask()) is not None:
            self._book.ask(worker)
            self._workers.submit(worker, "collect", self._weights_ref, self._num_steps, self._next_rollout())

    def _receive(self, completed: Completed) -> None:
        collected: Collected = completed.value
        self._arrived(completed.worker, collected)
        asked = self._book.arrive(completed.worker, collected.seconds)
        self._collected[asked.number] = collected

    def _segments(self, taken: Sequence[Asked]) -> list[Segment]:
        segments = []
        for asked in taken:
            collected = self._collected.pop(asked.number)
            self._taken(asked.worker, collected)
            segments.append(Segment(asked.worker, collected.batch, self._book.version - asked.version))
        return segments
