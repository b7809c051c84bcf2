"""The child of `shoal bench simulation`: steps per second of some workers, in one of the ways that are compared.

    dynamic  actors of shoal; who has finished plays on, and a batch is full with as many rollouts as it shall have:
             what is under way then counts for the next, and nobody waits for anybody
    awaited  the same actors, but a batch begins when all of the one before has come: the Ray paper's tasks
    pool     processes of `multiprocessing`: rounds of `Pool.map`, one rollout each, three rounds a batch

`simulating_mpi.py` does with MPI what `pool` does, `single_worker.py` measures one worker beside a bare loop. Whatever
is played is sent to whoever asked for it. Starting is not counted; `dynamic` has a batch before its clock starts, as in
the first all begin together.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

import shoal
from shoal.rllib.worker_set import Completed, WorkerSet
from shoal.scripts.benchmarks.simulators import PER_WORKER, Played, Request, Simulator, lengths


@contextmanager
def _workers(order: dict[str, Any], max_in_flight: int) -> Generator[WorkerSet]:
    """A session with actors that are ready."""
    shoal.init(num_cpus=order["num_workers"])
    try:
        made = shoal.remote(Simulator).options(num_cpus=1)
        workers = WorkerSet(lambda *_: made.remote(order["step_s"]), order["num_workers"], max_in_flight=max_in_flight)
        try:
            workers.map("play", [([],)] * len(workers))
            yield workers
        finally:
            workers.close()
    finally:
        shoal.shutdown()


def _steps(completed: Completed) -> int:
    _, rewards = completed.value
    return len(rewards)


def dynamic(order: dict[str, Any]) -> dict[str, float]:
    """Two requests in flight on each worker, so that none waits for the driver."""
    size, batches = PER_WORKER * order["num_workers"], order["batches"]
    with _workers(order, max_in_flight=2) as workers:
        in_flight = workers.max_in_flight * len(workers)
        requests = enumerate(lengths(order["seed"], size * (1 + batches) + in_flight))
        for request in itertools.islice(requests, in_flight):
            workers.submit(request[0] % len(workers), "play", [request])
        steps, began_s = 0, 0.0
        for count, completed in enumerate(workers.completed(), 1):
            steps += _steps(completed)
            if count == size:
                steps, began_s = 0, time.perf_counter()
            if count == size * (1 + batches):
                break
            workers.submit(completed.worker, "play", [next(requests)])
        return {"steps_per_second": steps / (time.perf_counter() - began_s)}


def awaited(order: dict[str, Any]) -> dict[str, float]:
    """One request in flight on each worker: a second could wait behind a long one while others have nothing to do."""
    size, batches = PER_WORKER * order["num_workers"], order["batches"]
    numbered = list(enumerate(lengths(order["seed"], size * batches)))
    with _workers(order, max_in_flight=1) as workers:
        began_s = time.perf_counter()
        steps = sum(batch(workers, numbered[first : first + size]) for first in range(0, size * batches, size))
        return {"steps_per_second": steps / (time.perf_counter() - began_s)}


def batch(workers: WorkerSet, requests: Sequence[Request], at_once: int = 1) -> int:
    """Have all of these played, so many for a request, by whoever has nothing to do; their steps."""
    parts = (requests[first : first + at_once] for first in range(0, len(requests), at_once))
    for place, part in enumerate(itertools.islice(parts, workers.max_in_flight * len(workers))):
        workers.submit(place % len(workers), "play", part)
    steps = 0
    for completed in workers.completed():
        steps += _steps(completed)
        if following := next(parts, None):
            workers.submit(completed.worker, "play", following)
    return steps


def pool(order: dict[str, Any]) -> dict[str, float]:
    """One process for each worker."""
    count, rounds = order["num_workers"], PER_WORKER * order["batches"]
    numbered = list(enumerate(lengths(order["seed"], rounds * count)))
    begin = multiprocessing.Barrier(count + 1)
    with multiprocessing.Pool(count, _get_ready, (begin, order["step_s"])) as processes:
        begin.wait()
        play = functools.partial(_play, order["step_s"])
        steps, began_s = 0, time.perf_counter()
        for first in range(0, rounds * count, count):
            played = processes.map(play, numbered[first : first + count], chunksize=1)
            steps += sum(len(rewards) for _, rewards in played)
        return {"steps_per_second": steps / (time.perf_counter() - began_s)}


@functools.cache
def _simulator(step_s: float) -> Simulator:
    """One in each process."""
    return Simulator(step_s)


def _get_ready(begin: Barrier, step_s: float) -> None:
    _simulator(step_s)
    begin.wait()


def _play(step_s: float, request: Request) -> Played:
    return _simulator(step_s).play([request])


WORK: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
    "dynamic": dynamic,
    "awaited": awaited,
    "pool": pool,
}


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = WORK[order["work"]](order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
