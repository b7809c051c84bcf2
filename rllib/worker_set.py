"""The rollout workers of a run, as seen from the driver: requests go in, results come out as they are ready.

One primitive carries every way of collecting. ``submit`` puts a request in flight on a worker, up to ``max_in_flight``
each; ``completed`` yields results in the order in which ``wait`` reports them, and the caller may submit more while it
runs. Taking one from each and then stepping is synchronous (``map``); submitting again on each result, and stopping
when there is enough, is dynamic completion, where a straggler holds up nobody.

Results of one worker come in the order of its requests, for the second may go on where the first stopped. So when a
request fails because its worker died, all that the worker finished before has been given out, and whoever makes its
successor knows where that must begin.

Nothing is dropped in silence. If a worker dies, another takes its place and every request that was in flight on it is
made again, in the same order; ``replacements`` and ``made_again`` count both. If it keeps dying before it finishes
anything, ``WorkerLostError`` tells why, and hands back its requests: whoever can find out more goes on with the same
set, in which the worker is made anew when it is asked next. An exception that a worker's code raised is raised here as
it was there.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import api, errors

_log = logging.getLogger(__name__)

#: Seconds without any result after which workers that have never answered are named in a warning.
NOTICE_AFTER_S = 5.0
#: Further seconds without any result after which those at work are named, once.
LONG_WORK_S = 115.0

#: Workers that one message names.
_MOST_LISTED = 10

#: A worker that dies so often without finishing a request will not be helped by another attempt.
MAX_DEATHS_IN_A_ROW = 3


@dataclass(frozen=True)
class Request:
    """What a worker is asked for."""

    worker: int  #: its index
    method: str
    arguments: tuple[Any, ...]
    max_deaths: int = MAX_DEATHS_IN_A_ROW  #: deaths of the worker in a row after which nobody is asked again


class WorkerLostError(RuntimeError):
    """A worker died, again and again. The cause says how: signal or exit code.

    Attributes:
      requests: Those that were in flight on it, the one that it died of first; none where a new one would not start.
    """

    def __init__(self, message: str, requests: Sequence[Request] = ()) -> None:
        super().__init__(message)
        self.requests = tuple(requests)

    def __reduce__(self) -> tuple[type[WorkerLostError], tuple[str]]:
        return WorkerLostError, (str(self),)  # in another process there is nobody who could make them again


@dataclass(frozen=True)
class Completed:
    """A request's result."""

    worker: int  #: index of the worker
    value: Any  #: what the method returned


class WorkerSet:
    """A fixed number of workers, each replaced when it dies.

    Args:
      make: (worker index, how often it was replaced) -> handle of a new actor.
      count: Number of workers.
      max_in_flight: Most requests in flight on each.
      kind: What to call a worker in messages.
      is_quick: Each answers its first request as soon as it has started, and others before long: one that does not is
        named, for it may be waiting for a CPU, or hang.
      max_deaths: Deaths of one in a row, without a request finished, after which it is given up.
      about: Behind the name of a worker that is given up: what it does, and what would help.
    """

    def __init__(
        self,
        make: Callable[[int, int], Any],
        count: int,
        *,
        max_in_flight: int = 1,
        kind: str = "rollout worker",
        is_quick: bool = True,
        max_deaths: int = MAX_DEATHS_IN_A_ROW,
        about: str = "",
    ) -> None:
        self._make = make
        self._about = f" ({about})" if about else ""
        self._max_deaths = max_deaths
        self._kind = kind
        self.max_in_flight = max_in_flight
        self.made_again = 0  #: requests that went out a second time so far, as their worker had died
        self._actors: list[Any] = []  # None in the place of one that was given up
        self._replacements = [0] * count
        self.last_death = ""  #: why the worker that was replaced last died: signal or exit code, end of its stderr
        self._deaths_in_a_row = [0] * count
        self._is_quick = is_quick
        self._has_told_of_long_work = False
        self._silent = set(range(count)) if is_quick else set()
        self._in_flight: dict[Any, Request] = {}
        self._counts = [0] * count  # of these, by worker: thousands of workers are asked for it again and again
        try:
            for worker in range(count):
                self._actors.append(make(worker, 0))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._actors)

    @property
    def replacements(self) -> int:
        """Workers that died and were replaced so far."""
        return sum(self._replacements)

    def in_flight(self, worker: int) -> int:
        """Requests in flight on a worker."""
        return self._counts[worker]

    def submit(self, worker: int, method: str, *arguments: Any) -> None:
        """Put a request in flight.

        Args:
          worker: Index of the worker.
          method: Name of the method to call.
          arguments: Its arguments; references are resolved on the way.

        Raises:
          RuntimeError: the worker has ``max_in_flight`` requests already.
        """
        if self.in_flight(worker) >= self.max_in_flight:
            raise RuntimeError(f"worker {worker} has {self.max_in_flight} requests in flight; take a result first")
        self._send(Request(worker, method, arguments, self._max_deaths))

    def ask(self, worker: int, method: str, *arguments: Any, max_deaths: int) -> Any:
        """Make a request of a worker that has none in flight, and wait for its result alone; others' stay where they
        are.

        Args:
          worker, method, arguments: As for ``submit``.
          max_deaths: Deaths of the worker in a row after which it is given up.

        Raises:
          RuntimeError: the worker has requests in flight.
          Exception: as ``completed``.
        """
        if self.in_flight(worker):
            raise RuntimeError(
                f"worker {worker} has {self.in_flight(worker)} requests in flight; take their results first"
            )
        self._send(Request(worker, method, arguments, max_deaths))
        while True:  # a death in between makes it another reference
            ref = next(ref for ref, request in self._in_flight.items() if request.worker == worker)
            api.wait([ref], num_returns=1)
            if (result := self._take(ref)) is not None:
                return result.value

    def completed(self) -> Iterator[Completed]:
        """Results as they are ready, those of one worker in the order of its requests, until nothing is in flight.

        Raises:
          WorkerLostError: a worker keeps dying.
          Exception: whatever a request raised in its worker. That request is gone; the others stay in flight.
        """
        while self._in_flight:
            for ref in self._wait():
                if (result := self._take(ref)) is not None:
                    yield result

    def ready(self) -> Iterator[Completed]:
        """Results that are there, without waiting for others; of requests that were in flight at the call, and not of
        those that are made meanwhile.

        Raises:
          Exception: as ``completed``.
        """
        at_most = Counter(request.worker for request in self._in_flight.values())
        while refs := [ref for ref in self._oldest() if at_most[self._in_flight[ref].worker]]:
            ready, _ = api.wait(refs, num_returns=len(refs), timeout=0)
            for ref in ready:
                at_most[self._in_flight[ref].worker] -= 1
                if (result := self._take(ref)) is not None:
                    yield result
            if not ready:
                break

    def map(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method once on each of the first ``len(arguments)`` workers and wait for all.

        Returns:
          Results by worker, whatever the order in which they came.

        Raises:
          RuntimeError: requests are in flight that are not this call's.
          Exception: as ``completed``.
        """
        if self._in_flight:
            raise RuntimeError(f"{len(self._in_flight)} requests are still in flight; take their results first")
        for worker, worker_arguments in enumerate(arguments):
            self.submit(worker, method, *worker_arguments)
        results = {result.worker: result.value for result in self.completed()}
        return [results[worker] for worker in range(len(arguments))]

    def close(self) -> None:
        """Kill every worker. Requests in flight are given up."""
        while self._actors:
            if (actor := self._actors.pop()) is not None:
                api.kill(actor)
        # What ended the set has been raised. That others have failed likewise is no news, and not to be logged as such.
        if self._in_flight and api.is_initialized():
            ready, _ = api.wait(list(self._in_flight), num_returns=len(self._in_flight), timeout=0)
            for ref in ready:
                with contextlib.suppress(errors.TaskError, errors.ActorError):
                    api.get(ref)
        self._in_flight.clear()
        self._counts = [0] * len(self._counts)

    def _take(self, ref: Any) -> Completed | None:
        """A request's result; None if its worker died, and the request was made again."""
        request = self._in_flight.pop(ref)
        self._counts[request.worker] -= 1
        try:
            value = api.get(ref)
        except errors.ActorError as error:
            self._replace(request, error)
            return None
        except errors.TaskError as error:
            raise (error.cause or error) from error
        self._deaths_in_a_row[request.worker] = 0
        self._silent.discard(request.worker)
        return Completed(request.worker, value)

    def _oldest(self) -> list[Any]:
        """The oldest request in flight on each worker, oldest first."""
        oldest: dict[int, Any] = {}
        for ref, request in self._in_flight.items():
            oldest.setdefault(request.worker, ref)
        return list(oldest.values())

    def _wait(self) -> list[Any]:
        # As long as it takes: a rollout lasts as its environments do, and the runtime reports a worker's death. But a
        # worker that waits for a CPU looks the same, so those that never answered are named; and an environment that
        # hangs looks like a slow one, so those that work for long are named once.
        refs = self._oldest()
        ready, _ = api.wait(refs, num_returns=1, timeout=NOTICE_AFTER_S)
        if ready:
            return ready
        if waiting := sorted(self._silent & {request.worker for request in self._in_flight.values()}):
            _log.warning(
                "%ss %s have not started yet: their environments are slow to make, or the session has too "
                "few CPUs for %d workers (shoal.init(num_cpus=...))",
                self._kind,
                _listed(waiting),
                len(self._actors),
            )
            self._silent.clear()
        if self._is_quick and not self._has_told_of_long_work:
            ready, _ = api.wait(refs, num_returns=1, timeout=LONG_WORK_S)
            if ready:
                return ready
            self._has_told_of_long_work = True
            _log.warning(
                "%ss %s have given no answer for %.0f s: their environments are slow, or one of them hangs "
                "(--vector parallel replaces those that hang)",
                self._kind,
                _listed(sorted({request.worker for request in self._in_flight.values()})),
                NOTICE_AFTER_S + LONG_WORK_S,
            )
        ready, _ = api.wait(refs, num_returns=1)
        return ready

    def _send(self, request: Request) -> None:
        worker = request.worker
        if self._actors[worker] is None:
            self._renew(worker)
        ref = getattr(self._actors[worker], request.method).remote(*request.arguments)
        self._in_flight[ref] = request
        self._counts[worker] += 1

    def _replace(self, request: Request, error: errors.ActorError) -> None:
        worker = request.worker
        self._deaths_in_a_row[worker] += 1
        # The failed request was the oldest. None behind it can count, whatever comes of it.
        behind = [ref for ref, other in self._in_flight.items() if other.worker == worker]
        self._counts[worker] -= len(behind)
        lost = [request, *(self._in_flight.pop(ref) for ref in behind)]
        # One that is only out of reach, as on a machine of a cluster that has just gone, may be alive and have done the
        # request: it must not come back with other episodes than those that are known.
        api.kill(self._actors[worker])
        self._actors[worker] = None
        self.last_death = " ".join(str(error).split())
        if error.actor_init_failed or self._deaths_in_a_row[worker] >= request.max_deaths:
            deaths, self._deaths_in_a_row[worker] = self._deaths_in_a_row[worker], 0
            again = f" {deaths} times in a row" if deaths > 1 else ""
            raise WorkerLostError(
                f"{self._kind} {worker}{self._about} died{again} without finishing {request.method!r}: {error}",
                () if error.actor_init_failed else lost,
            ) from error
        for each in lost:
            self._send(each)
            self.made_again += 1

    def _renew(self, worker: int) -> None:
        self._replacements[worker] += 1
        self._actors[worker] = self._make(worker, self._replacements[worker])
        if self._is_quick:
            self._silent.add(worker)  # there may be no room for it where the other was


def _listed(workers: Sequence[int]) -> str:
    """Indices for a message; of very many the first."""
    more = f" and {len(workers) - _MOST_LISTED} more" if len(workers) > _MOST_LISTED else ""
    return f"{', '.join(map(str, workers[:_MOST_LISTED]))}{more}"
