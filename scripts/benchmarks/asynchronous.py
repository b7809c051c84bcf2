"""The child of `shoal bench appo`: trains APPO for speed, or an entry of the zoo for what it earns in its time.

`asynchronous_sf.py` does the first with Sample Factory. Both get the same settings, number for number. Starting is not
counted: the clock runs from the first step to the last update.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import shoal
from shoal.algorithms import load, zoo
from shoal.algorithms.appo import APPOConfig
from shoal.rllib.config import AlgorithmConfig


def train(order: dict[str, Any]) -> dict[str, float]:
    """APPO with the settings of the order."""
    config = APPOConfig(
        env=order["env"],
        num_workers=order["num_workers"],
        num_envs=order["num_workers"] * order["envs_per_worker"],
        total_steps=order["total_steps"],
        seed=order["seed"],
        device="cpu",
        rollout_steps=order["rollout_steps"],
        train_batch_size=order["batch_size"],
        minibatch_size=order["batch_size"],
        num_epochs=order["num_epochs"],
        learning_rate=order["learning_rate"],
        learning_rate_schedule="constant",
        gamma=order["gamma"],
        vtrace_lambda=order["trace_lambda"],
        clip_range=order["clip_range"],
        clip_range_schedule="constant",
        value_coef=order["value_coef"],
        entropy_coef=order["entropy_coef"],
        max_grad_norm=order["max_grad_norm"],
        adam_epsilon=order["adam_epsilon"],
        hidden_sizes=tuple(order["hidden_sizes"]),
        activation="tanh",
        shared_value_net=False,
    )
    told = _trained("appo", config)
    return {name: told[name] for name in ("steps_per_second", "training_return")}


def earn(order: dict[str, Any]) -> dict[str, float]:
    """Train with an entry of the zoo to its end, and evaluate the policy of the end; that is not counted."""
    entry = zoo.find(order["entry"])
    changes = {name: order[name] for name in ("num_workers", "seed")}
    if order.get("total_steps"):
        changes["total_steps"] = order["total_steps"]
    told = _trained(entry.algorithm, entry.config(**changes))
    return {**told, "return_per_minute": told["evaluated_return"] / (told["seconds"] / 60.0)}


def _trained(name: str, config: AlgorithmConfig) -> dict[str, float]:
    shoal.init(num_cpus=max(os.cpu_count() or 1, config.num_workers))
    try:
        algorithm = load(name)(config)
        try:
            began_s = time.perf_counter()
            row: dict[str, float] = {}
            while algorithm.steps < config.total_steps:
                row = algorithm.step()
            took_s = time.perf_counter() - began_s
            evaluated = algorithm.evaluate(config.eval_episodes).mean
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


WORK = {"train": train, "earn": earn}


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = WORK[order["work"]](order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
