"""What several tests of this folder begin with."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from shoal.algorithms.ppo import PPO, PPOConfig


@pytest.fixture
def make() -> Iterator[Callable[..., PPO]]:
    """Makes PPOs that are small in everything, on two workers that differ in their copies; closes them afterwards."""
    made: list[PPO] = []

    def make_algorithm(**settings: Any) -> PPO:
        small = {"num_workers": 2, "num_envs": 5, "rollout_steps": 16, "num_epochs": 2, "minibatch_size": 32}
        made.append(PPO(PPOConfig(**{**small, "hidden_sizes": (16,), "device": "cpu", **settings})))
        return made[-1]

    yield make_algorithm
    for algorithm in made:
        algorithm.close()


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """As rollout workers have it; small kernels on many threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
