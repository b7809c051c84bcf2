"""Gradient steps: ``Learner(policy, loss, optimizer)``. The loss is a function that the algorithm hands in.

One learner owns one policy on one device. It knows nothing of rollouts or schedules: the algorithm cuts minibatches,
sets the learning rate and decides when to stop. Lives in the driver process; torch is imported when one is made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .modules import ActorCritic
from .policy_spec import PolicySpec
from .weights import Weights

if TYPE_CHECKING:
    import torch

#: (policy, minibatch, settings) -> (scalar to minimise, named scalars to report, detached)
Loss = Callable[
    [ActorCritic, "Mapping[str, torch.Tensor]", Mapping[str, float]], "tuple[torch.Tensor, dict[str, torch.Tensor]]"
]

#: Weights times rows of a minibatch for which one more thread pays on a CPU: two 64 x 64 nets take 0.8 ms a step with
#: 256 rows and 1.9 ms with 1,024 on one thread; a second saves 0.1 ms of the first and 0.6 ms of the second.
_WORK_PER_THREAD = 4_000_000


class DivergedError(RuntimeError):
    """The gradient is not finite: the loss has diverged, or the batch holds NaN. A smaller learning rate may help."""


class Learner:
    """A policy and the optimiser that improves it.

    Args:
      policy: The policy; moved to ``device``.
      loss: What to minimise, see ``Loss``.
      make_optimizer: Makes the optimiser for the parameters, after they were moved.
      device: Where to compute, see ``resolve_device``.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them as they are.
    """

    def __init__(
        self,
        policy: ActorCritic,
        loss: Loss,
        make_optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
        *,
        device: torch.device,
        max_grad_norm: float | None,
    ) -> None:
        self.policy = policy
        self.device = device
        self._nets = policy.nets.to(device)
        self._loss = loss
        self._make_optimizer = make_optimizer
        self._optimizer = make_optimizer(list(self._nets.parameters()))
        self._max_grad_norm = max_grad_norm

    @property
    def spec(self) -> PolicySpec:
        """The policy's shape."""
        return self.policy.spec

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this from the next step on."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Arrays as tensors where the policy is; on a CPU they share their memory."""
        import torch

        return {name: torch.from_numpy(column).to(self.device) for name, column in columns.items()}

    def update(self, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]) -> dict[str, torch.Tensor]:
        """One gradient step.

        Args:
          minibatch: Columns of N rows each, for the loss.
          settings: Numbers for the loss that change over training.

        Returns:
          What the loss reports, and ``grad_norm`` before clipping: scalar tensors.

        Raises:
          DivergedError: the gradient is not finite; the weights are as they were.
        """
        import torch

        loss, metrics = self._loss(self.policy, minibatch, settings)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        limit = math.inf if self._max_grad_norm is None else self._max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self._nets.parameters(), limit)
        if not norm.isfinite():
            raise DivergedError(f"the gradient's norm is {norm.item()} at a loss of {loss.item()}")
        self._optimizer.step()
        return {**metrics, "grad_norm": norm}

    def weights(self, version: int) -> Weights:
        """A copy of the policy's numbers."""
        return Weights(version, self.spec, {name: _array(tensor) for name, tensor in self._nets.state_dict().items()})

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """The optimiser's memory, by ``parameter/quantity``; empty before the first step."""
        memory = _memory(self._optimizer, dict(self._nets.named_parameters()))
        return {name: _array(tensor) for name, tensor in memory.items()}

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what ``optimizer_arrays`` holds from the first step on, if the loss reaches every parameter.

        Found by letting another optimiser of the same kind take a step, so that no kind need be known here.
        """
        import torch

        doubles = {name: torch.nn.Parameter(torch.zeros_like(like)) for name, like in self._nets.named_parameters()}
        for double in doubles.values():
            double.grad = torch.zeros_like(double)
        optimizer = self._make_optimizer(list(doubles.values()))
        optimizer.step()
        return {name: tuple(tensor.shape) for name, tensor in _memory(optimizer, doubles).items()}

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        """Take over the arrays of ``weights`` and of ``optimizer_arrays``, bit for bit.

        Raises:
          RuntimeError: names or shapes are not this policy's.
        """
        import torch

        self._nets.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        states: dict[int, dict[str, torch.Tensor]] = {}
        for index, (name, _) in enumerate(self._nets.named_parameters()):
            prefix = f"{name}/"
            mine = {key.removeprefix(prefix): array for key, array in optimizer.items() if key.startswith(prefix)}
            if mine:
                states[index] = {quantity: torch.tensor(array) for quantity, array in mine.items()}
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})


def resolve_device(name: str) -> torch.device:
    """``auto`` is a GPU if there is one; anything else is torch's name of a device.

    Raises:
      ValueError: torch knows no such device, or it is not there. One line.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def use_threads(policy: ActorCritic, minibatch_size: int) -> int:
    """Let torch use as many threads in this process as the policy is worth; returns how many.

    Torch's default, one for each core, takes the cores from the rollout workers and gains nothing for small networks.
    """
    import torch

    # A recurrent net takes its rows step by step: few at once.
    steps = policy.spec.network.sequence_length if policy.spec.is_recurrent else 1
    work = minibatch_size // steps * sum(parameter.numel() for parameter in policy.nets.parameters())
    threads = max(1, min(os.cpu_count() or 1, work // _WORK_PER_THREAD))
    torch.set_num_threads(threads)
    return threads


def _memory(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """What an optimiser remembers of these parameters, by ``parameter/quantity``."""
    return {
        f"{name}/{quantity}": tensor
        for name, parameter in parameters.items()
        for quantity, tensor in optimizer.state.get(parameter, {}).items()
    }


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())
