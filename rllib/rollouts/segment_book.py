"""Which rollouts were asked of whom, have arrived, and are used when. A table: no actors, no clock, no arrays.

A *segment* is one rollout of one worker: T steps of its environment copies. It is asked for with the weights of some
version, lies *in flight*, *arrives*, is *held*, and is *taken* into a batch. Every one goes through all of that, once:

    ask -> in flight -> arrive -> held -> take          asked = taken + held + in flight;  dropped = 0, always

The *lag* of a segment is the learner's version when it is taken less the version that acted. With ``max_lag`` = L it is
never more than L, and nothing is thrown away for it. Three rules see to that:

- Oldest version first, then by arrival: so a worker's segments are taken in the order in which they were played.
- A batch is not full (``is_full``) while a segment that would be too old for the next one is in flight: the learner
  waits for the laggard. Such a segment is part of the batch even if that makes it larger than was asked for.
- Nobody is asked ahead of use: what is in flight or held is at most what the batches take until the version asked with
  is too old, and a segment more. But a worker that owes nothing is always asked: all of them stay at work.

So L = 0 is a barrier at each batch. Without a bound (None) everybody always has ``max_in_flight`` requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

#: Lags that are counted apart: name -> the largest.
LAG_BUCKETS: dict[str, float] = {"0": 0, "1": 1, "2": 2, "3_to_4": 4, "5_to_8": 8, "9_up": float("inf")}


@dataclass(frozen=True)
class Asked:
    """A request for a segment."""

    number: int  #: counts the run's requests, from 0
    worker: int
    version: int  #: of the weights that act


class SegmentBook:
    """The segments of a run.

    Args:
      rows: Rows of a segment, steps times copies, by worker.
      max_in_flight: Most requests in flight on each worker, at least 1.
      max_lag: L, at least 0; None: no bound.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(self, rows: Sequence[int], *, max_in_flight: int = 1, max_lag: int | None = None) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        if max_lag is not None and max_lag < 0:
            raise ValueError(f"max_lag must be None or at least 0, not {max_lag}")
        self.version = 0  #: of the newest weights
        self._rows = tuple(rows)
        self._max_in_flight = max_in_flight
        self._max_lag = max_lag
        self._in_flight: list[deque[Asked]] = [deque() for _ in rows]
        self._held: list[Asked] = []
        self._batch_rows = 0  # of the batch that was asked for last
        self._is_taken = False  # a batch was taken at this version
        self._asked = self._taken = 0
        self._owed_rows = 0  # in flight or held
        self._lags: list[int] = []  # of the last batch
        self._lag_counts = dict.fromkeys(LAG_BUCKETS, 0)
        self._seconds = [0.0] * len(self._rows)
        self._arrivals = [0] * len(self._rows)

    @property
    def in_flight(self) -> int:
        """Segments in flight."""
        return sum(map(len, self._in_flight))

    @property
    def held(self) -> int:
        """Segments that have arrived and were not taken yet."""
        return len(self._held)

    @property
    def dropped(self) -> int:
        """Segments that were asked for and are nowhere: 0, or the table is wrong."""
        return self._asked - self._taken - self.held - self.in_flight

    def publish(self, version: int) -> None:
        """There are newer weights.

        Args:
          version: Theirs; that of the last ones is nothing new.

        Raises:
          ValueError: it is older; or there is a bound on the lag, and it is newer by more than one, or no batch was
            taken with the last one: the bound is kept one batch at a time.
        """
        if version == self.version:
            return
        if version < self.version:
            raise ValueError(f"version {version} is older than the newest, {self.version}")
        if self._max_lag is not None and (version > self.version + 1 or not self._is_taken):
            raise ValueError(
                f"version {version} follows {self.version} {'' if self._is_taken else 'without a batch in between '}"
                f"while segments may lag by {self._max_lag} at most: raise it by one after each batch"
            )
        self.version = version
        self._is_taken = False

    def begin(self, num_rows: int) -> None:
        """A batch is wanted.

        Args:
          num_rows: Its size, at least 1.
        """
        if num_rows < 1:
            raise ValueError(f"a batch must have at least 1 row, not {num_rows}")
        self._batch_rows = num_rows
        self._is_taken = False

    def may_ask(self, worker: int) -> bool:
        """Whether a worker may be asked for another segment now."""
        if len(self._in_flight[worker]) >= self._max_in_flight:
            return False
        if self._max_lag is None:
            return True
        batches = self._max_lag + (not self._is_taken)  # that may still use what this version plays
        if not batches:
            return False
        owes = self._in_flight[worker] or any(held.worker == worker for held in self._held)
        return not owes or self._owed_rows < self._batch_rows * batches

    def next_to_ask(self) -> int | None:
        """Of the workers that may be asked one with the fewest requests in flight; None: nobody may be."""
        askable = [worker for worker in range(len(self._rows)) if self.may_ask(worker)]
        return min(askable, key=lambda worker: len(self._in_flight[worker]), default=None)

    def ask(self, worker: int) -> Asked:
        """A worker was asked, with the newest weights.

        Raises:
          ValueError: it may not be asked now.
        """
        if not self.may_ask(worker):
            raise ValueError(f"worker {worker} may not be asked now: {len(self._in_flight[worker])} in flight")
        asked = Asked(self._asked, worker, self.version)
        self._in_flight[worker].append(asked)
        self._asked += 1
        self._owed_rows += self._rows[worker]
        return asked

    def arrive(self, worker: int, seconds: float) -> Asked:
        """The oldest segment in flight on a worker is there.

        Args:
          worker: Whose it is.
          seconds: How long the worker took to play it.

        Raises:
          ValueError: nothing is in flight there.
        """
        if not self._in_flight[worker]:
            raise ValueError(f"a segment of worker {worker} arrived that nobody asked for")
        asked = self._in_flight[worker].popleft()
        self._held.append(asked)
        self._seconds[worker] += seconds
        self._arrivals[worker] += 1
        return asked

    def is_full(self) -> bool:
        """Whether the batch that was begun has its rows, and need not wait for what would be too old for the next."""
        if any(self._is_due(queue[0]) for queue in self._in_flight if queue):
            return False
        return sum(self._rows[held.worker] for held in self._held) >= self._batch_rows

    def take(self) -> list[Asked]:
        """The batch that was begun: the oldest segments held, as many as it wants rows, and what the bound demands."""
        self._held.sort(key=lambda held: held.version)  # stable: by arrival within a version
        count = rows = 0
        for held in self._held:
            if rows >= self._batch_rows and not self._is_due(held):
                break
            count += 1
            rows += self._rows[held.worker]
        self._is_taken = True
        return self._take(count)

    def take_all(self) -> list[Asked]:
        """All that is held, in the order of arrival, whoever waits for what."""
        return self._take(len(self._held))

    def metrics(self) -> dict[str, float]:
        """Counts, and the lags of the last batch; NaN where there is none yet.

        Returns:
          in_flight, held, lag_mean, lag_max (of the last batch), lag_0 ... lag_9_up (segments of the run by lag),
          straggler_ratio (mean seconds of a segment: the slowest worker's over the median worker's), dropped.
        """
        lags = self._lags
        return {
            "in_flight": self.in_flight,
            "held": self.held,
            "lag_mean": sum(lags) / len(lags) if lags else float("nan"),
            "lag_max": max(lags) if lags else float("nan"),
            **{f"lag_{name}": count for name, count in self._lag_counts.items()},
            "straggler_ratio": self._straggler_ratio(),
            "dropped": self.dropped,
        }

    def _is_due(self, segment: Asked) -> bool:
        """Whether a segment would be too old for the batch after this one."""
        return self._max_lag is not None and self.version - segment.version >= self._max_lag

    def _take(self, count: int) -> list[Asked]:
        taken, self._held = self._held[:count], self._held[count:]
        self._taken += count
        self._owed_rows -= sum(self._rows[segment.worker] for segment in taken)
        self._lags = [self.version - segment.version for segment in taken]
        for lag in self._lags:
            self._lag_counts[next(name for name, largest in LAG_BUCKETS.items() if lag <= largest)] += 1
        return taken

    def _straggler_ratio(self) -> float:
        of_workers = zip(self._seconds, self._arrivals, strict=True)
        means = sorted(seconds / count for seconds, count in of_workers if count)
        if not means or not means[(len(means) - 1) // 2]:
            return float("nan")
        return means[-1] / means[(len(means) - 1) // 2]
