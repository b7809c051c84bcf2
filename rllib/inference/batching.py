"""When requests that wait become a batch, which of them, and which are turned away. A table: no clock, no actors, no
arrays; the time comes in with each call.

Many ask one server for rows of work, and a batch of rows takes little longer than one. The server runs a batch at a
time. A request is

    offer -> waiting -> take -> running -> finish          or refused by offer; or dropped by withdraw or expire

A batch closes (``due_s``) once the server is free and

- there are as many rows as a batch may have; or
- everybody who could send has sent: of those who are ``open`` each has a request waiting; or
- nobody else is expected soon: of nobody in particular is known that he will send, and between the last requests there
  was more time than the window; or
- the oldest request has waited for the window, or must begin now to be in time.

The *window* is what a batch costs whatever its size (``BatchTimes.fixed_s``): who waits no longer for company than
being alone costs is at most twice as late as who knows when it comes (ski rental, Karlin et al. 1988). So a server that
is asked once in a while waits for nobody, and under load batches grow by themselves while the last one runs.

With an objective for the time from ``offer`` to ``finish`` a batch has at most the rows that take half of it: what
comes when one has just begun waits for that one, and for its own. Or more, as many as the oldest request has time for:
requests of many rows do not fill each batch to the last row, and those after a short one may be longer. Who could not
be served in time is refused at once, so that those who are accepted are: ``QueueFullError``. Without one, only the
bound on waiting rows refuses.

The version of what answers is stamped on a batch when it closes: it changes between batches and never inside one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .batch_times import BatchTimes

_NEVER = float("inf")
#: How many times longer than expected a batch may seem, once there have been some to expect anything by. What really
#: has become slower is believed after a dozen batches.
_MOST_SURPRISE, _FIRST_BATCHES = 3.0, 5
#: One that takes so many times longer tells nothing of those to come if two others since the last such one, which had
#: this share of its rows or more, did not: what large ones take, small ones do not tell.
_HICCUP, _ALIKE = 1.5, 0.5
#: How many times the mean surprise of a batch is held back of the next one's time when requests are taken in: who is
#: in it by a hair would wait for another, if this one ended a little later.
_SPARE = 2.0
#: What the last gap between two requests counts in their mean.
_GAP_SHARE = 0.1


class QueueFullError(RuntimeError):
    """There is no room for a request, or it could not be served in time. It can be made again later.

    Attributes:
      retry_after_s: When, in seconds from now: as long as all that waits will take.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[QueueFullError], tuple[str, float]]:
        return QueueFullError, (str(self), self.retry_after_s)


@dataclass(slots=True)  # frozen by rule
class Request:
    """Rows of work that somebody asked for."""

    number: int  #: counts the queue's requests, from 0
    client: object  #: who asked
    rows: int
    arrived_s: float
    deadline_s: float  #: when it should be finished; infinite if at any time


@dataclass(slots=True)  # frozen by rule
class RequestBatch:
    """Requests that are answered together, oldest first."""

    requests: tuple[Request, ...]
    rows: int  #: of all requests together
    version: int  #: of what answers them
    began_s: float


class BatchQueue:
    """Requests to one server.

    Args:
      full_rows: Most rows of a batch; a larger request makes one by itself.
      max_waiting_rows: Most rows that may wait, at least ``full_rows``.
      objective_s: How long a request should take at most; None: no matter.
      version: Of what answers, to begin with.

    Attributes:
      version: Of what answers the next batch that closes.
      times: How long batches take.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self, *, full_rows: int, max_waiting_rows: int, objective_s: float | None = None, version: int = 0
    ) -> None:
        if full_rows < 1 or max_waiting_rows < full_rows:
            raise ValueError(f"full_rows must be from 1 to max_waiting_rows ({max_waiting_rows}), not {full_rows}")
        if objective_s is not None and not objective_s > 0.0:
            raise ValueError(f"objective_s must be None or greater than 0, not {objective_s}")
        self.version = version
        self.times = BatchTimes()
        self._full_rows, self._max_waiting_rows = full_rows, max_waiting_rows
        self._objective_s = objective_s
        self._waiting: deque[Request] = deque()
        self._waiting_rows = 0
        self._running: RequestBatch | None = None
        self._open: set[object] = set()
        self._waiting_of: dict[object, int] = {}
        self._asked = self._num_batches = 0
        self._quiet_rows = (0, 0)  # of the two largest batches since one took long, larger first
        self._last_arrival_s = -_NEVER
        self._mean_gap_s = _NEVER

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for a batch."""
        return self._waiting_rows

    @property
    def running(self) -> RequestBatch | None:
        """The batch that was taken and has not finished."""
        return self._running

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and no batch runs."""
        return not self._waiting and self._running is None

    @property
    def clients(self) -> frozenset[object]:
        """Those who are open."""
        return frozenset(self._open)

    @property
    def limit_rows(self) -> int:
        """Most rows of a batch, as batches take now."""
        if self._objective_s is None:
            return self._full_rows
        return max(1, int(min(self.times.rows_within(self._objective_s / 2.0), self._full_rows)))

    def open(self, client: object) -> None:
        """This one will send requests, again and again: it is worth waiting for."""
        self._open.add(client)

    def close(self, client: object) -> None:
        """This one will send nothing more. What it has sent stays."""
        self._open.discard(client)

    def offer(self, client: object, rows: int, now_s: float, deadline_s: float | None = None) -> Request:
        """Somebody asks.

        Args:
          client: Who; need not be open.
          rows: How much, at least 1.
          now_s: When.
          deadline_s: When it should be finished; None: by the objective, if there is one.

        Raises:
          QueueFullError: too much waits already, or what waits would make it late.
          ValueError: no rows.
        """
        if rows < 1:
            raise ValueError(f"a request must have at least 1 row, not {rows}")
        if deadline_s is None:
            deadline_s = _NEVER if self._objective_s is None else now_s + self._objective_s
        self._note_arrival(now_s)
        if self._waiting and self._waiting_rows + rows > self._max_waiting_rows:
            raise QueueFullError(
                f"{self._waiting_rows} rows wait already, and {rows} more are over {self._max_waiting_rows}",
                self._finished_s(0, now_s) - now_s,
            )
        if deadline_s != _NEVER and (self._waiting or self._running):  # alone it is served as soon as it can be
            late_s = self._finished_s(rows, now_s) - deadline_s + self.times.surprise_s
            if late_s > 0.0:
                raise QueueFullError(f"{self._waiting_rows} rows wait already: it would be {late_s:.3f} s late", late_s)
        request = Request(self._asked, client, rows, now_s, deadline_s)
        self._asked += 1
        self._waiting.append(request)
        self._waiting_rows += rows
        self._waiting_of[client] = self._waiting_of.get(client, 0) + 1
        return request

    def due_s(self) -> float:
        """When what waits is to be taken: a time that has come, or will; infinite while nothing waits or a batch runs.
        Any other call may change it.
        """
        if self._running is not None or not self._waiting:
            return _NEVER
        arrived_s = self._waiting[0].arrived_s
        if self._waiting_rows >= self.limit_rows:
            return arrived_s
        window_s = self.times.fixed_s
        if self._open:
            is_expected = any(client not in self._waiting_of for client in self._open)
        else:
            is_expected = self._mean_gap_s <= window_s
        if not is_expected:
            return arrived_s
        latest_s = min(request.deadline_s for request in self._waiting) - self.times.seconds(self.limit_rows)
        return min(arrived_s + window_s, latest_s)

    def take(self, now_s: float) -> RequestBatch:
        """Close the batch, and run it: the oldest requests, as many as a batch may have rows.

        Raises:
          ValueError: nothing waits, or another batch runs.
        """
        if self._running is not None or not self._waiting:
            raise ValueError("a batch still runs" if self._running else "nothing waits that could be a batch")
        limit, rows = self._room_rows(now_s), self._waiting[0].rows
        taken = [self._remove_first()]
        while self._waiting and rows + self._waiting[0].rows <= limit:
            rows += self._waiting[0].rows
            taken.append(self._remove_first())
        self._running = RequestBatch(tuple(taken), rows, self.version, now_s)
        return self._running

    def finish(self, now_s: float) -> None:
        """The batch that runs has been answered.

        Raises:
          ValueError: none runs.
        """
        if self._running is None:
            raise ValueError("no batch runs that could finish")
        self.note_batch(self._running.rows, now_s - self._running.began_s)
        self._running = None

    def note_batch(self, rows: int, seconds: float) -> None:
        """A batch has taken so long; also one that did not pass through the queue. One that took far longer than was
        expected, because the process was held up for instance, counts for nothing; or if one before was slow, too, or
        none was as large, as a moderate surprise. Otherwise a second's pause would have everybody refused for a long
        time after.
        """
        if self._num_batches >= _FIRST_BATCHES:
            expected_s = self.times.seconds(rows)
            larger, smaller = self._quiet_rows
            if seconds > _HICCUP * expected_s:
                self._quiet_rows = (0, 0)
                if smaller >= _ALIKE * rows:
                    return
            elif rows > smaller:
                self._quiet_rows = (max(larger, rows), min(larger, rows))
            seconds = min(seconds, _MOST_SURPRISE * expected_s)
        self._num_batches += 1
        self.times.observe(rows, seconds)

    def expire(self, now_s: float) -> list[Request]:
        """Drop the requests whose time has passed while they waited; whoever asked must be told."""
        return self._drop([request for request in self._waiting if request.deadline_s < now_s])

    def withdraw(self, client: object) -> list[Request]:
        """Drop all that waits of somebody who is gone."""
        return self._drop([request for request in self._waiting if request.client == client])

    def _note_arrival(self, now_s: float) -> None:
        gap_s = now_s - self._last_arrival_s
        self._last_arrival_s = now_s
        if self._mean_gap_s == _NEVER:
            self._mean_gap_s = gap_s
        else:
            # One long pause is not to be remembered for as long as it lasted: a burst may follow.
            gap_s = min(gap_s, 10.0 * max(self.times.fixed_s, self._mean_gap_s))
            self._mean_gap_s += _GAP_SHARE * (gap_s - self._mean_gap_s)

    def _finished_s(self, rows: int, now_s: float) -> float:
        """When all that runs and waits, and so many rows more, will be finished; the last with others that come until
        their batch begins.
        """
        limit, free_s = self.limit_rows, now_s
        if self._running is not None:
            free_s = max(now_s, self._running.began_s + self.times.seconds(self._running.rows))
        first = self._room_rows(free_s + _SPARE * self.times.surprise_s) if self._waiting else limit
        behind = self._waiting_rows + rows - first
        if behind <= 0:
            last = limit if self._running is not None else min(self._waiting_rows + rows, limit)
            return free_s + self.times.seconds(last)
        return free_s + self.times.seconds(first) + -(-behind // limit) * self.times.seconds(limit)

    def _room_rows(self, begin_s: float) -> int:
        """Most rows of the next batch, if it begins then."""
        if self._objective_s is None:
            return self._full_rows
        left_s = self._waiting[0].deadline_s - begin_s
        return max(self.limit_rows, int(min(self.times.rows_within(left_s), self._full_rows)))

    def _remove_first(self) -> Request:
        request = self._waiting.popleft()
        self._forget(request)
        return request

    def _drop(self, dropped: list[Request]) -> list[Request]:
        for request in dropped:
            self._waiting.remove(request)
            self._forget(request)
        return dropped

    def _forget(self, request: Request) -> None:
        self._waiting_rows -= request.rows
        left = self._waiting_of[request.client] - 1
        if left:
            self._waiting_of[request.client] = left
        else:
            del self._waiting_of[request.client]
