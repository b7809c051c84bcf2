"""The child of `shoal bench es`: PGPE with ClipUp on all workers, as `evolution_evotorch.py` has it."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import shoal
from shoal.algorithms.pgpe import PGPE, PGPEConfig


def train(order: dict[str, Any]) -> dict[str, float]:
    """A generation to warm up, then those that count."""
    shoal.init(num_cpus=order["num_workers"])
    algorithm = PGPE(
        PGPEConfig(
            env=order["env"],
            seed=order["seed"],
            num_workers=order["num_workers"],
            population_size=order["population_size"],
            hidden_sizes=tuple(order["hidden_sizes"]),
            block_size=order["block_size"],
            normalize_observations=True,
            centre_episodes=0,
        )
    )
    try:
        algorithm.step()
        steps, began_s = algorithm.steps, time.perf_counter()
        for _ in range(order["generations"]):
            algorithm.step()
        took_s = time.perf_counter() - began_s
        pairs = order["generations"] * order["population_size"] // 2
        return {"steps_per_second": (algorithm.steps - steps) / took_s, "pairs_per_second": pairs / took_s}
    finally:
        algorithm.close()
        shoal.shutdown()


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = train(order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
