"""Tuned settings for environments that everybody knows, and the returns that this repository measured with them.

`shoal train --zoo NAME` trains with an entry, `shoal zoo` lists them. Each has a budget of steps and the return that is
to be reached within it. Settings begin from those of others, named with each; what was measured with them is in one
file, `zoo_results.json`, which `make results` writes and nobody edits. No torch here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..rllib.config import AlgorithmConfig, ConfigError, from_dict
from . import config_class

#: What `make results` measured.
RESULTS = Path(__file__).with_name("zoo_results.json")


@dataclass(frozen=True)
class Entry:
    """Settings for one environment."""

    name: str  #: as in `--zoo`
    settings: Mapping[str, Any]  #: fields of the algorithm's config that differ from its defaults
    goal: float  #: return that the median of the seeds is to reach
    source: str  #: where the settings begin from
    algorithm: str = "ppo"
    wants_gpu: bool = False  #: days without one: `shoal results` measures it only where there is one, or if it is named

    def config(self, **changes: Any) -> AlgorithmConfig:
        """The settings as a config.

        Args:
          changes: fields that shall be different.
        """
        return replace(from_dict(config_class(self.algorithm), self.settings), **changes)


@dataclass(frozen=True)
class Measured:
    """What the policies of an entry earned, over seeds; `scripts/results.py` says how."""

    steps: int  #: environment steps of each seed
    seeds: tuple[int, ...]
    returns: tuple[float, ...]  #: mean of the final evaluation, deterministic actions, by seed
    episodes: int  #: of that evaluation
    median: float
    mean: float
    iqm: float  #: mean of the middle half
    interval: tuple[float, float]  #: 95 %, of the IQM, by bootstrap over the seeds
    wall_s: float  #: of training one seed, the median
    num_workers: int  #: rollout workers of a run
    runs_at_once: int  #: on that machine, while it was measured
    machine: str
    versions: str
    date: str  #: ISO, UTC
    settings: Mapping[str, Any] = field(default_factory=dict)  #: those that it was measured with


#: Those of Tianshou and of many others for MuJoCo: observations and rewards normalised, the learning rate falling.
_MUJOCO = {
    "num_envs": 8,
    "rollout_steps": 256,
    "num_epochs": 10,
    "minibatch_size": 64,
    "total_steps": 1_000_000,
    "learning_rate": 3e-4,
    "learning_rate_schedule": "linear",
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "clip_range_schedule": "constant",
    "value_coef": 0.25,
    "normalize_observations": True,
    "normalize_rewards": True,
}
#: What Tianshou has besides: advantages as they are, estimated anew before each epoch, and clipped values.
_RECOMPUTED = {**_MUJOCO, "normalize_advantages": "off", "recompute_advantages": True, "value_clip_range": 0.2}
_TIANSHOU = "Tianshou's example for MuJoCo"

ENTRIES = (
    Entry(
        "CartPole-v1",
        {"env": "CartPole-v1", "total_steps": 100_000, "normalize_rewards": True},
        495.0,
        "shoal's defaults, with rewards normalised: 500 after 70,000 steps instead of 100,000",
    ),
    Entry(
        "Acrobot-v1",
        {
            "env": "Acrobot-v1",
            "total_steps": 500_000,
            "num_envs": 16,
            "rollout_steps": 256,
            "num_epochs": 4,
            "minibatch_size": 64,
            "learning_rate": 3e-4,
            "learning_rate_schedule": "constant",
            "gae_lambda": 0.94,
            "clip_range_schedule": "constant",
            "normalize_observations": True,
            "normalize_rewards": True,
            # An episode earns -60 to -150, depending on where it starts.
            "eval_episodes": 100,
        },
        -85.0,
        "SB3 RL Zoo, hyperparams/ppo.yml",
    ),
    Entry(
        "Pendulum-v1",
        {
            "env": "Pendulum-v1",
            "total_steps": 200_000,
            "num_envs": 4,
            "rollout_steps": 1024,
            "minibatch_size": 64,
            "learning_rate": 1e-3,
            # With the RL Zoo's 0.9, and rewards as they are, some seeds stay at -190.
            "gamma": 0.95,
            "gae_lambda": 0.95,
            "clip_range_schedule": "constant",
            "normalize_rewards": True,
            # An episode earns anything from 0 to -400, depending on where it starts.
            "eval_episodes": 100,
        },
        -180.0,
        "SB3 RL Zoo, hyperparams/ppo.yml, without gSDE",
    ),
    Entry("Hopper-v5", {**_RECOMPUTED, "env": "Hopper-v5"}, 2_400.0, _TIANSHOU),
    Entry(
        "Walker2d-v5",
        {**_MUJOCO, "env": "Walker2d-v5"},
        3_000.0,
        f"{_TIANSHOU}, but advantages are normalised, and estimated once",
    ),
    Entry(
        "HalfCheetah-v5",
        {
            "env": "HalfCheetah-v5",
            "total_steps": 1_000_000,
            "num_envs": 8,
            "rollout_steps": 256,
            "minibatch_size": 64,
            "learning_rate": 3e-4,
            "gamma": 0.98,
            "gae_lambda": 0.92,
            "clip_range": 0.1,
            "clip_range_schedule": "constant",
            # With a deviation of 1 it learns to slide on its back, and stays at 1,500.
            "initial_log_std": -2.0,
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        4_000.0,
        "SB3 RL Zoo, hyperparams/ppo.yml, with a larger learning rate",
    ),
    Entry(
        "CartPole-v1-appo",
        {"env": "CartPole-v1", "total_steps": 200_000, "normalize_rewards": True},
        475.0,
        "shoal's defaults, with rewards normalised",
        algorithm="appo",
    ),
    Entry(
        "CartPole-v1-a2c",
        # With 0.99, or with rollouts of 16 steps, a seed in five stays at 200 or falls back to it.
        {"env": "CartPole-v1", "total_steps": 300_000, "gamma": 0.98, "rollout_steps": 8, "learning_rate": 1e-3},
        475.0,
        "shoal's defaults, with the RL Zoo's discount for PPO, shorter rollouts and smaller steps",
        algorithm="a2c",
    ),
    Entry(
        "CartPole-v1-a3c",
        # With 0.99, whose returns are twice as large, a seed in five has lost it again at the end.
        {"env": "CartPole-v1", "total_steps": 300_000, "gamma": 0.98},
        475.0,
        "shoal's defaults, with the RL Zoo's discount for PPO",
        algorithm="a3c",
    ),
    Entry(
        "HalfCheetah-v5-appo",
        {
            "env": "HalfCheetah-v5",
            "total_steps": 1_000_000,
            "num_envs": 8,
            # Of 1,024 rows from each of two workers: half a batch, and what lags the least.
            "rollout_steps": 256,
            "train_batch_size": 2048,
            "num_epochs": 10,
            "minibatch_size": 64,
            "learning_rate": 3e-4,
            "gamma": 0.98,
            "vtrace_lambda": 0.92,
            "clip_range": 0.1,
            "clip_range_schedule": "constant",
            "initial_log_std": -2.0,
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        4_000.0,
        "PPO's entry, with segments of half a batch",
        algorithm="appo",
    ),
    Entry(
        "CartPole-v1-ars",
        {
            "env": "CartPole-v1",
            "total_steps": 47_000,  # the generation that reaches this ends below 50,000
            "population_size": 4,
            "spread": 0.1,
            "learning_rate": 0.018,
            "normalize_observations": False,
        },
        495.0,
        "SB3 RL Zoo, hyperparams/ars.yml, with half the noise",
        algorithm="ars",
    ),
    Entry(
        "InvertedPendulum-v5-es",
        {
            "env": "InvertedPendulum-v5",
            "total_steps": 460_000,  # the generation that reaches this ends below 500,000
            "population_size": 32,
            "weight_decay": 0.0,
            "normalize_observations": True,
        },
        1_000.0,
        "Salimans et al. 2017: nets of 64 and 64, Adam; noise and steps are larger, for small populations",
        algorithm="es",
    ),
    Entry(
        "Swimmer-v5-ars",
        {
            "env": "Swimmer-v5",
            "total_steps": 2_000_000,
            "population_size": 8,
            # With the RL Zoo's one direction and a tenth of this noise a seed in two stays below 50.
            "spread": 0.1,
            "learning_rate": 0.05,
            "normalize_observations": False,
        },
        325.0,
        "SB3 RL Zoo, hyperparams/ars.yml, with more directions, larger steps and more noise",
        algorithm="ars",
    ),
    Entry(
        "HalfCheetah-v5-ars",
        {
            "env": "HalfCheetah-v5",
            "total_steps": 3_000_000,
            # Few directions, for many generations. Noise of 0.03, steps of 0.02: 2,200 and 2,900 after half the steps.
            "population_size": 16,
            "top": 4,
            "spread": 0.04,
            "learning_rate": 0.03,
        },
        3_430.0,
        "Mania et al. 2018, V2-t, with fewer directions, more noise and larger steps",
        algorithm="ars",
    ),
    Entry(
        "HalfCheetah-v5-es",
        {
            "env": "HalfCheetah-v5",
            "total_steps": 3_000_000,
            "population_size": 16,
            "hidden_sizes": (32, 32),
            "weight_decay": 0.0,
            "normalize_observations": True,
        },
        2_386.0,
        "Salimans et al. 2017, with smaller nets and populations, more noise and larger steps",
        algorithm="es",
    ),
    Entry(
        "Hopper-v5-ars",
        {
            "env": "Hopper-v5",
            "total_steps": 3_000_000,
            # 16 candidates, the best 4 pairs, noise of 0.025 and steps of 0.02 fell back to 2,156 in the end.
            "population_size": 32,
            "top": 8,
            "spread": 0.05,
            "learning_rate": 0.03,
            "reward_shift": 1.0,
        },
        3_120.0,
        "Mania et al. 2018, V2-t, with more noise and larger steps",
        algorithm="ars",
    ),
    Entry(
        "CartPole-without-velocities",
        {
            "env": "shoal.envs.memory:CartPoleWithoutVelocities",
            "total_steps": 200_000,
            "recurrent": "lstm",
            "recurrent_size": 64,
            "sequence_length": 16,
            "gamma": 0.98,
            # Without these a seed in three forgets late what it could.
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        475.0,
        "shoal's defaults with a memory; the RL Zoo's CartPoleNoVel-v1",
    ),
    Entry(
        "Pong",
        {
            "env": "atari/pong",
            "total_steps": 10_000_000,
            "num_epochs": 4,
            "learning_rate": 2.5e-4,
            "gae_lambda": 0.95,
            "clip_range": 0.1,
            "entropy_coef": 0.01,
            "checkpoint_interval_steps": 500_000,
        },
        20.0,
        "OpenAI baselines, as in Huang et al. 2022",
        wants_gpu=True,
    ),
)
_BY_NAME = {entry.name: entry for entry in ENTRIES}


def find(name: str) -> Entry:
    """The entry with this name.

    Raises:
      ConfigError: there is none; names the choices.
    """
    if name not in _BY_NAME:
        close = difflib.get_close_matches(name, _BY_NAME, 1, 0.5)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"the zoo has no {name!r}{hint}: it has {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def measured(results: Path = RESULTS) -> dict[str, Measured]:
    """What was measured, by the name of the entry; entries that were not are missing.

    Raises:
      ConfigError: the file is damaged.
    """
    try:
        told = json.loads(results.read_text(encoding="utf-8"))
        return {name: _measured(row) for name, row in told.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"{results} is damaged ({error}): delete it; `make results` measures again") from error


def _measured(row: Mapping[str, Any]) -> Measured:
    low, high = row["interval"]
    listed = {"seeds": tuple(row["seeds"]), "returns": tuple(row["returns"]), "interval": (low, high)}
    return Measured(**{**row, **listed})
