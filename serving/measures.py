"""How serving goes, in numbers: what ``Policies.metrics`` answers. Frozen values; ``prometheus.py`` writes them out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Bounds of histograms of seconds: 50 us to 10 s in steps of 1, 2, 5.
SECONDS = (5e-5, *(digit * 10.0**power for power in range(-4, 1) for digit in (1, 2, 5)), 10.0)
#: Bounds of histograms of rows.
ROWS = tuple(float(2**power) for power in range(13))


@dataclass(frozen=True)
class Histogram:
    """How many values were how large."""

    bounds: tuple[float, ...]  #: greatest value of each bucket but the last, which has no bound
    counts: tuple[int, ...]  #: of each bucket, one more than bounds
    total: float  #: sum of all values


class Tally:
    """A histogram that is being filled. One thread."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def read(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total)


@dataclass(frozen=True, kw_only=True)
class PolicyMetrics:
    """How serving of one policy goes, since it is served."""

    policy: str
    latency_s: Histogram  #: of a request, from its arrival in the queue to its answer
    queue_s: Histogram  #: of a request, until its batch began
    batch_rows: Histogram  #: rows of a batch
    in_flight: int  #: requests that wait for their answer now
    version: int  #: the newest that serves
    answers: dict[str, int] = field(default_factory=dict)  #: "ok", or the code of the error -> requests


@dataclass(frozen=True, kw_only=True)
class ServingMetrics:
    """How serving goes."""

    policies: tuple[PolicyMetrics, ...]
    sessions: int = 0  #: recurrent states that the server keeps
    refused_weights: int = 0  #: checkpoints and versions that did not fit and were not taken
