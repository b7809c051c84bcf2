"""The child of `shoal bench appo`: trains APPO for speed, or an entry of the zoo for what it earns in its time.

`asynchronous_sf.py` does the first with Sample Factory. Both get the same settings, number for number. Starting is not
counted: the clock runs from the first step to the last update.
"""

from __future__ import annotations

from typing import Any

from shoal.algorithms import zoo
from shoal.algorithms.appo import APPOConfig
from shoal.scripts.benchmarks.orders import obey, trained


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
    told = trained("appo", config, config.eval_episodes)
    return {name: told[name] for name in ("steps_per_second", "training_return")}


def earn(order: dict[str, Any]) -> dict[str, float]:
    """Train with an entry of the zoo to its end, and evaluate the policy of the end; that is not counted."""
    entry = zoo.find(order["entry"])
    changes = {name: order[name] for name in ("num_workers", "seed")}
    if order.get("total_steps"):
        changes["total_steps"] = order["total_steps"]
    config = entry.config(**changes)
    told = trained(entry.algorithm, config, config.eval_episodes)
    return {**told, "return_per_minute": told["evaluated_return"] / (told["seconds"] / 60.0)}


WORK = {"train": train, "earn": earn}


if __name__ == "__main__":
    obey(WORK)
