"""The child of `shoal bench rl` for the peer: what `learning.py` trains, with Stable-Baselines3.

Run by an interpreter that has it, and need not have shoal: nothing of it is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def train(order: dict[str, Any]) -> dict[str, float]:
    """Stable-Baselines3's PPO at its best: in its own vector environment for cheap environments (`DummyVecEnv`), and
    with one thread, as more make nets of this size slower, the more so the busier the machine is.
    """
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.logger import Logger

    torch.set_num_threads(1)
    envs = make_vec_env(order["env"], n_envs=order["num_envs"], seed=order["seed"])
    algorithm = stable_baselines3.PPO(
        "MlpPolicy",
        envs,
        seed=order["seed"],
        device="cpu",
        n_steps=order["rollout_steps"],
        n_epochs=order["num_epochs"],
        batch_size=order["minibatch_size"],
        learning_rate=order["learning_rate"],
        gamma=order["gamma"],
        gae_lambda=order["gae_lambda"],
        clip_range=order["clip_range"],
        vf_coef=order["value_coef"],
        ent_coef=order["entropy_coef"],
        max_grad_norm=order["max_grad_norm"],
        normalize_advantage=True,  # of each minibatch
        policy_kwargs={
            "net_arch": {"pi": order["hidden_sizes"], "vf": order["hidden_sizes"]},
            "activation_fn": torch.nn.Tanh,
            "optimizer_kwargs": {"eps": order["adam_epsilon"]},
        },
    )
    algorithm.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave an empty folder in /tmp
    began_s = time.perf_counter()
    algorithm.learn(order["total_steps"])
    took_s = time.perf_counter() - began_s
    finished = [episode["r"] for episode in algorithm.ep_info_buffer]
    mean, _ = evaluate_policy(
        algorithm, make_vec_env(order["env"], 1, seed=order["seed"] + 1), n_eval_episodes=order["eval_episodes"]
    )
    return {
        "steps_per_second": algorithm.num_timesteps / took_s,
        "training_return": sum(finished) / len(finished),
        "evaluated_return": float(mean),
    }


def main() -> None:
    """Do what the order on the command line says, and tell it through the pipe that it names."""
    order = json.loads(sys.argv[1])
    told = train(order)
    with os.fdopen(order["results_fd"], "w") as results:
        results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
