"""What children of benchmarks share: the order comes on the command line, what was found goes through a pipe.

Those that run a peer know nothing of this: its interpreter need not have shoal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import shoal
from shoal.algorithms import load
from shoal.rllib.config import AlgorithmConfig


def obey(work: Mapping[str, Callable[[dict[str, Any]], dict[str, float]]]) -> None:
    """Do what the order says, by the name of its `work`, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = work[order["work"]](order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


def trained(name: str, config: AlgorithmConfig, eval_episodes: int) -> dict[str, float]:
    """Train to the end, and evaluate the policy of the end. The clock runs from the first step to the last update.

    Args:
      name: Of the algorithm, one that learns from rollouts.
      config: Its settings.
      eval_episodes: Of the evaluation.
    """
    shoal.init(num_cpus=max(os.cpu_count() or 1, config.num_workers))
    try:
        algorithm = load(name)(config)
        try:
            began_s = time.perf_counter()
            row: dict[str, float] = {}
            while algorithm.steps < config.total_steps:
                row = algorithm.step()
            took_s = time.perf_counter() - began_s
            evaluated = algorithm.evaluate(eval_episodes).mean
        finally:
            algorithm.close()
    finally:
        shoal.shutdown()
    return {
        "steps_per_second": algorithm.steps / took_s,
        "seconds": took_s,
        "training_return": row["return_mean"],
        "evaluated_return": evaluated,
    }
