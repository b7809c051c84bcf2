"""torch's DistributedDataParallel over gloo, as `shoal bench learners` compares with it: N processes, each with rows of
its own at hand and the same net, that take steps of the same loss at the same time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from shoal.rllib.learner_groups.meeting_place import MeetingPlace, store
from shoal.rllib.learning.compilation import Loss
from shoal.rllib.policies.modules import ActorCritic

if TYPE_CHECKING:
    import torch

#: Seconds for which the processes wait for each other.
_WAIT_S = 120.0


class DataParallel:
    """The processes, as actors.

    Args:
      make: Makes the policy and its optimiser.
      loss: (policy, minibatch, settings) -> the loss, and what it reports.
      rows: Columns [R, ...]; each process has them all and takes its part of each minibatch.
      count: N.
      minibatch_size: Rows of a step, of all together.
      settings: Of the loss.
      bucket_mb: How much of the gradient is summed up at once, in MiB.
    """

    def __init__(
        self,
        make: Callable[[], tuple[ActorCritic, torch.optim.Optimizer]],
        loss: Loss,
        rows: Mapping[str, np.ndarray],
        count: int,
        minibatch_size: int,
        settings: Mapping[str, float],
        *,
        bucket_mb: float = 25.0,
    ) -> None:
        place = shoal.remote(MeetingPlace).options(num_cpus=0).remote()
        made = shoal.remote(_Process).options(num_cpus=0)
        self._processes = [
            made.remote(make, loss, rows, number, count, minibatch_size // count, settings, place, bucket_mb)
            for number in range(count)
        ]
        self.take_steps(1)
        shoal.kill(place)

    def take_steps(self, count: int) -> None:
        """So many, in all processes."""
        shoal.get([process.take_steps.remote(count) for process in self._processes])

    def close(self) -> None:
        """End the processes."""
        while self._processes:
            shoal.kill(self._processes.pop())


class _Process:
    """One of them; see ``DataParallel``."""

    def __init__(
        self,
        make: Callable[[], tuple[ActorCritic, torch.optim.Optimizer]],
        loss: Loss,
        rows: Mapping[str, np.ndarray],
        number: int,
        count: int,
        part_size: int,
        settings: Mapping[str, float],
        place: Any,
        bucket_mb: float,
    ) -> None:
        import torch
        from torch import distributed

        timeout = dt.timedelta(seconds=_WAIT_S)
        distributed.init_process_group(
            "gloo", store=store(place, _WAIT_S), rank=number, world_size=count, timeout=timeout
        )
        torch.set_num_threads(1)
        policy, self._optimizer = make()

        class Differentiated(torch.nn.Module):
            """What DistributedDataParallel wraps: its forward is the loss."""

            def __init__(self) -> None:
                super().__init__()
                self.nets = policy.nets

            def forward(self, minibatch: dict[str, torch.Tensor]) -> torch.Tensor:
                return loss(policy, minibatch, settings)[0]

        self._loss = torch.nn.parallel.DistributedDataParallel(Differentiated(), bucket_cap_mb=bucket_mb)
        self._rows = {name: torch.tensor(column) for name, column in rows.items()}
        self._part_size = part_size
        self._shuffle = np.random.default_rng(number)

    def take_steps(self, count: int) -> None:
        """So many, of minibatches that are drawn from the rows."""
        import torch

        size = len(next(iter(self._rows.values())))
        for _ in range(count):
            drawn = torch.from_numpy(self._shuffle.integers(size, size=self._part_size))
            self._optimizer.zero_grad()
            self._loss({name: column[drawn] for name, column in self._rows.items()}).backward()
            torch.nn.utils.clip_grad_norm_(self._loss.parameters(), 0.5)
            self._optimizer.step()
