"""The child of `shoal bench rl`: trains or simulates for one case, and tells steps per second and returns.

`learning_sb3.py` does the same with Stable-Baselines3. Both get the same settings, number for number: the same network,
optimiser, schedule and minibatches. Starting is not counted: the clock runs from the first step to the last update.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

import shoal
from shoal.algorithms.ppo import PPOConfig
from shoal.envs.batched import BatchedVectorEnv
from shoal.envs.classic import CLASSIC
from shoal.rllib import streams
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.env_runner import EnvRunner
from shoal.rllib.rollouts.rollout import Memory, collect
from shoal.rllib.worker_set import WorkerSet
from shoal.scripts.benchmarks.orders import obey, trained


def train(order: dict[str, Any]) -> dict[str, float]:
    """PPO with rollout workers; evaluation by the workers, deterministic, as the peer's."""
    dynamic = {name: order[name] for name in ("collect", "max_in_flight", "max_lag") if name in order}
    config = PPOConfig(
        **dynamic,
        env=order["env"],
        num_workers=order["num_workers"],
        num_envs=order["num_envs"],
        total_steps=order["total_steps"],
        seed=order["seed"],
        device="cpu",
        rollout_steps=order["rollout_steps"],
        num_epochs=order["num_epochs"],
        minibatch_size=order["minibatch_size"],
        learning_rate=order["learning_rate"],
        learning_rate_schedule="constant",
        gamma=order["gamma"],
        gae_lambda=order["gae_lambda"],
        clip_range=order["clip_range"],
        clip_range_schedule="constant",
        value_coef=order["value_coef"],
        entropy_coef=order["entropy_coef"],
        max_grad_norm=order["max_grad_norm"],
        adam_epsilon=order["adam_epsilon"],
        normalize_advantages="minibatch",
        hidden_sizes=tuple(order["hidden_sizes"]),
        activation="tanh",
        shared_value_net=False,
    )
    told = trained("ppo", config, order["eval_episodes"])
    return {name: told[name] for name in ("steps_per_second", "training_return", "evaluated_return")}


class Simulator(EnvRunner):
    """A rollout worker that rolls nothing out."""

    #: Drawn before the clock starts: to draw them takes a quarter of the time of HalfCheetah's steps.
    _actions: np.ndarray | None = None

    def simulate(self, num_steps: int) -> None:
        envs = self._envs()
        if self._actions is None:
            envs.reset()
            space = envs.action_space
            space.seed(0)
            drawn = [[space.sample() for _ in range(envs.num_envs)] for _ in range(64)]
            self._actions = np.array(drawn).reshape(64, envs.num_envs, -1)
        for t in range(num_steps):
            envs.step(self._actions[t % 64])


def simulate(order: dict[str, Any]) -> dict[str, float]:
    """The environments alone, with random actions, in the processes that training would use."""

    def make(worker: int, _replacement: int) -> Any:
        indices = np.array_split(np.arange(order["num_envs"]), order["num_workers"])[worker].tolist()
        made = shoal.remote(Simulator).options(num_cpus=1)
        return made.remote(env_id=order["env"], worker_index=worker, env_indices=indices, seed=order["seed"])

    shoal.init(num_cpus=max(os.cpu_count() or 1, order["num_workers"]))
    try:
        workers = WorkerSet(make, order["num_workers"])
        try:
            workers.map("simulate", [(1,)] * len(workers))
            rollouts = order["total_steps"] // order["num_envs"] // order["rollout_steps"]
            began_s = time.perf_counter()
            for _ in range(rollouts):  # in turns of the same length as in training
                workers.map("simulate", [(order["rollout_steps"],)] * len(workers))
            took_s = time.perf_counter() - began_s
        finally:
            workers.close()
    finally:
        shoal.shutdown()
    return {"steps_per_second": rollouts * order["rollout_steps"] * order["num_envs"] / took_s}


def roll_out(order: dict[str, Any]) -> dict[str, float]:
    """A policy that acts in environments in this process, without learning: `rollout.collect` and nothing else."""
    indices = range(order["num_envs"])
    seeds = streams.environment_seeds(order["seed"], 0, 0)
    envs = BatchedVectorEnv(CLASSIC[order["env"]](), indices, seeds)
    spec = policy_spec(order["env"], envs.observation_space, envs.action_space, NetworkSettings())
    policy = Policy(Weights(0, spec, initial_weights(spec, streams.weight_seed(order["seed"]))))
    envs.reset()
    memory = Memory.of_new_episodes(policy, envs.num_envs)
    rollouts = max(1, order["total_steps"] // order["num_envs"] // order["rollout_steps"])
    took_s = []
    for rollout in range(rollouts + 1):
        began_s = time.perf_counter()
        collect(envs, policy, order["rollout_steps"], streams.action_streams(order["seed"], indices, rollout), memory)
        took_s.append(time.perf_counter() - began_s)
    return {"steps_per_second": rollouts * order["rollout_steps"] * order["num_envs"] / sum(took_s[1:])}


WORK = {"train": train, "simulate": simulate, "roll_out": roll_out}


if __name__ == "__main__":
    obey(WORK)
