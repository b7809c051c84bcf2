"""The child of `shoal bench es` for the peer: what `evolution_training.py` trains, with EvoTorch.

Run by an interpreter that has it, and need not have shoal: nothing of it is imported here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any


def train(order: dict[str, Any]) -> dict[str, float]:
    """PGPE with ClipUp on EvoTorch's actors, one for each of our workers, with observations normalised."""
    import torch
    from evotorch.algorithms import PGPE
    from evotorch.neuroevolution import GymNE

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(order["seed"])  # a problem with a seed of its own cannot be given to actors in 0.6.1
    layers, inputs = [], "obs_length"
    for width in order["hidden_sizes"]:
        layers += [f"Linear({inputs}, {width})", "Tanh()"]
        inputs = str(width)
    problem = GymNE(
        order["env"],
        " >> ".join([*layers, f"Linear({inputs}, act_length)"]),
        observation_normalization=True,
        num_actors=order["num_workers"],
    )
    searcher = PGPE(
        problem,
        popsize=order["population_size"],
        center_learning_rate=0.075,
        stdev_learning_rate=0.1,
        stdev_init=0.1,
        optimizer="clipup",
        optimizer_config={"max_speed": 0.15},
        ranking_method="centered",
    )
    searcher.step()
    steps, began_s = int(problem.status["total_interaction_count"]), time.perf_counter()
    for _ in range(order["generations"]):
        searcher.step()
    took_s = time.perf_counter() - began_s
    pairs = order["generations"] * order["population_size"] // 2
    done = int(problem.status["total_interaction_count"]) - steps
    problem.kill_actors()
    return {"steps_per_second": done / took_s, "pairs_per_second": pairs / took_s}


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = train(order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
