"""The child of `shoal bench simulation` for one worker: what it takes more than a bare loop, by the size of a request.

    pair    an actor of shoal, and a process that knows no session, with the same rollouts to play in a turn
    turn    the loop; the actor, asked for one rollout at a time, for some, for all at once; the next turn the other
            way round

Two requests are in flight on the actor, so it need not wait for the driver. Each turn is told by itself: time and
processor time of each way beside the loop's in the same turn. Two processes that do the same differ by a few percent
for as long as they live, with where their memory lies; so there are several pairs, and what is asked for all at once,
which costs a single request, shows what the pair alone makes out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import shoal
from shoal.rllib.worker_set import WorkerSet
from shoal.scripts.benchmarks.simulating import batch
from shoal.scripts.benchmarks.simulators import Request, Simulator, lengths


class Pair:
    """An actor and a loop.

    Args:
      held: What is to be ended behind them.
      order: Of this child: seed, rollouts of a turn, ``at_once`` of the second way, ``step_s``.
    """

    def __init__(self, held: ExitStack, order: dict[str, Any]) -> None:
        self._numbered: list[Request] = list(enumerate(lengths(order["seed"], order["rollouts"])))
        self._parts = {"one": 1, "some": order["at_once"], "all": len(self._numbered)}
        made = shoal.remote(Simulator).options(num_cpus=0)
        self._workers = WorkerSet(lambda *_: made.remote(order["step_s"]), 1, max_in_flight=2)
        held.callback(self._workers.close)
        [self._pid] = self._workers.map("pid", [()])
        program = [sys.executable, __file__, json.dumps({**order, "work": "loop"})]
        self._loop = held.enter_context(
            subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._steps = sum(length for _, length in self._numbered)

    def turn(self, *, backwards: bool) -> dict[str, float]:
        """What a turn gives: steps a second of the actor, asked one by one; for each way, what it takes more than the
        loop as a part of that, ``added_`` in time, ``processor_`` in processor time.
        """
        names = ["loop", *self._parts]
        took = {name: self._take(name) for name in (names[::-1] if backwards else names)}
        wall_s, processor_s = took["loop"]
        told = {"shoal": self._steps / took["one"][0]}
        for name in self._parts:
            told[f"added_{name}"] = took[name][0] / wall_s - 1.0
            told[f"processor_{name}"] = took[name][1] / processor_s - 1.0
        return told

    def _take(self, name: str) -> tuple[float, float]:
        """Seconds, and seconds of the processor in the process that plays, of one way."""
        pid = self._loop.pid if name == "loop" else self._pid
        used_s, began_s = processor_seconds(pid), time.perf_counter()
        if name == "loop":
            assert self._loop.stdin is not None
            assert self._loop.stdout is not None
            self._loop.stdin.write("play\n")
            self._loop.stdin.flush()
            if not self._loop.stdout.readline():
                raise RuntimeError("the process with the bare loop has ended")
        else:
            batch(self._workers, self._numbered, self._parts[name])
        return time.perf_counter() - began_s, processor_seconds(pid) - used_s


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used; as clock_getcpuclockid(3) makes a clock of a process."""
    return time.clock_gettime((~pid << 3) | 2)


def measure(order: dict[str, Any]) -> Generator[dict[str, float]]:
    """What each turn of each pair gives, pair by pair in turn."""
    with _session() as held:
        pairs = [Pair(held, order) for _ in range(order["pairs"])]
        for pair in pairs:
            pair.turn(backwards=False)  # whose first steps are slower than others
        for number in range(order["turns"]):
            for pair in pairs:
                yield pair.turn(backwards=bool(number % 2))


@contextmanager
def _session() -> Generator[ExitStack]:
    """A session, and what is let go before it ends."""
    shoal.init(num_cpus=1)
    try:
        with ExitStack() as held:
            yield held
    finally:
        shoal.shutdown()


def loop(order: dict[str, Any]) -> None:
    """Play all rollouts of a turn for each line of stdin, and answer with a line; ends with stdin."""
    numbered = list(enumerate(lengths(order["seed"], order["rollouts"])))
    simulator = Simulator(order["step_s"])
    for _ in sys.stdin:
        simulator.play(numbered)
        print(flush=True)


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    if order["work"] == "loop":
        loop(order)
        return
    with os.fdopen(order["results_fd"], "w") as results:
        for told in measure(order):
            results.write(json.dumps(told) + "\n")
            results.flush()


if __name__ == "__main__":
    main()
