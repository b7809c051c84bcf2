"""The child of `shoal bench appo` for the peer: what `asynchronous.train` trains, with Sample Factory's APPO.

Run by an interpreter that has it, and need not have shoal: nothing of it is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any


def arguments(order: dict[str, Any], directory: str) -> list[str]:
    """The order as Sample Factory's flags.

    Args:
      directory: Where it may write.
    """
    values = {
        "algo": "APPO",
        "env": order["env"],
        "experiment": "bench",
        "train_dir": directory,
        "seed": order["seed"],
        "device": "cpu",
        "num_workers": order["num_workers"],
        "num_envs_per_worker": order["envs_per_worker"],
        "train_for_env_steps": order["total_steps"],
        "rollout": order["rollout_steps"],
        "batch_size": order["batch_size"],
        "num_batches_per_epoch": 1,
        "num_epochs": order["num_epochs"],
        "learning_rate": order["learning_rate"],
        "lr_schedule": "constant",
        "gamma": order["gamma"],
        "gae_lambda": order["trace_lambda"],
        "ppo_clip_ratio": order["clip_range"],
        "value_loss_coeff": order["value_coef"],
        "exploration_loss_coeff": order["entropy_coef"],
        "max_grad_norm": order["max_grad_norm"],
        "adam_eps": order["adam_epsilon"],
        "nonlinearity": "tanh",
        "use_rnn": False,
        "normalize_input": False,
        "normalize_returns": False,
        "actor_critic_share_weights": False,
    }
    flags = [f"--{name}={value}" for name, value in values.items()]
    return [*flags, "--encoder_mlp_layers", *map(str, order["hidden_sizes"])]


def make_environment(full_env_name: str, *_: Any, render_mode: str | None = None, **__: Any) -> Any:
    """What the workers call; they find it by its name."""
    import gymnasium

    return gymnasium.make(full_env_name, render_mode=render_mode)


def train(order: dict[str, Any], directory: str) -> dict[str, float]:
    """Steps that were learned from per second, from the first batch to the last, as the runner is told of them."""
    from sample_factory.algo.runners.runner import AlgoObserver
    from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
    from sample_factory.envs.env_utils import register_env
    from sample_factory.train import make_runner

    class Clock(AlgoObserver):  # type: ignore[misc]
        """Notes when the runner hears of a batch."""

        def __init__(self) -> None:
            self.heard: list[tuple[float, int]] = []

        def on_training_step(self, runner: Any, training_iteration_since_resume: int) -> None:
            self.heard.append((time.perf_counter(), sum(runner.env_steps.values())))

    register_env(order["env"], make_environment)
    argv = arguments(order, directory)
    parser, _ = parse_sf_args(argv=argv)
    _, runner = make_runner(parse_full_cfg(parser, argv=argv))
    clock = Clock()
    runner.register_observer(clock)
    runner.init()
    runner.run()
    (began_s, before), (ended_s, after) = clock.heard[0], clock.heard[-1]
    [finished] = runner.policy_avg_stats["reward"]
    speed = (after - before) / (ended_s - began_s)
    return {"steps_per_second": speed, "training_return": sum(finished) / len(finished)}


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="bench-sf-") as directory:
        told = train(order, directory)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
