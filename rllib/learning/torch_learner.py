"""Gradient steps in torch: ``TorchLearner(policy, loss, optimizer)``, for every policy, on a CPU or a GPU.

The loss is a function that the algorithm hands in, and autograd differentiates it. Torch is imported when a learner is
made.

A GPU works behind the driver, and each number that the driver asks for makes it wait until all is done. So on a GPU an
iteration asks once, in ``means``: rows come by copies that nobody waits for (``devices.py``), and a gradient that is
not finite is dealt with over there (``_Brake``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..policies import devices
from ..policies.modules import ActorCritic
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights
from .compilation import Loss, compiled
from .learner import Columns, Metrics, check_length, diverged

if TYPE_CHECKING:
    import torch

#: Weights times rows of a minibatch for which one more thread pays on a CPU: two 64 x 64 nets take 0.8 ms a step with
#: 256 rows and 1.9 ms with 1,024 on one thread; a second saves 0.1 ms of the first and 0.6 ms of the second.
_WORK_PER_THREAD = 4_000_000


class TorchLearner:
    """A policy and the optimiser that improves it.

    Args:
      policy: The policy; moved to ``device``.
      loss: What to minimise, see ``Loss``.
      make_optimizer: Makes the optimiser for the parameters, after they were moved.
      device: Where to compute, see ``resolve_device``.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them as they are.
      compiled_rows: Compile the loss for minibatches of so many rows, see ``compilation.py``; None leaves it.
      asks_each_step: Whether a gradient that is not finite is found out in its step, or in ``means`` when many are
        done; None: in its step, but not on a GPU. The weights are those before that step in either case.

    Raises:
      ValueError: steps are not to be asked about, and the optimiser is none that can skip a step by itself.
      ConfigError: the loss shall be compiled, and nothing can be.
    """

    def __init__(
        self,
        policy: ActorCritic,
        loss: Loss,
        make_optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
        *,
        device: torch.device,
        max_grad_norm: float | None,
        compiled_rows: int | None = None,
        asks_each_step: bool | None = None,
    ) -> None:
        self.policy = policy
        self.device = device
        self._nets = policy.nets.to(device)
        self._loss = loss if compiled_rows is None else compiled(loss, device, compiled_rows)
        self._make_optimizer = make_optimizer
        self._optimizer = make_optimizer(list(self._nets.parameters()))
        self._max_grad_norm = max_grad_norm
        asks = device.type != "cuda" if asks_each_step is None else asks_each_step
        self._brake = None if asks else _Brake(self._optimizer, device)

    @property
    def spec(self) -> PolicySpec:
        return self.policy.spec

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """Arrays as tensors where the policy is; on a CPU they share their memory."""
        import torch

        return {name: devices.moved(torch.from_numpy(column), self.device) for name, column in columns.items()}

    def update(self, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]) -> dict[str, torch.Tensor]:
        loss, metrics = self._differentiate(minibatch, settings)
        norm = self._clip()
        if self._brake is not None:
            self._brake.look(norm, loss)
        elif not norm.isfinite():
            raise diverged(norm.item(), loss.item())
        self._optimizer.step()
        return {**metrics, "grad_norm": norm}

    def gradients(
        self,
        minibatch: Mapping[str, torch.Tensor],
        settings: Mapping[str, float],
        *,
        final_from: Callable[[np.ndarray, int], None] | None = None,
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        import torch

        if final_from is not None:
            with _GradientAsItComes(self._in_order(), final_from) as coming:
                _, metrics = self._differentiate(minibatch, settings)
            return coming.vector, metrics
        _, metrics = self._differentiate(minibatch, settings)
        mine = self._in_order()
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in mine]
        return torch.cat([each.reshape(-1) for each in found]).cpu().numpy(), metrics  # nobody else has what cat made

    def apply(self, gradient: np.ndarray) -> float:
        """As in ``Learner``; reads the norm, so a driver waits for a GPU here. Weights that no loss reaches get a
        gradient of zero, and so a memory of the optimiser, where ``update`` leaves them without.
        """
        for each, part in self._parts("a gradient", gradient):
            if each.grad is None:
                each.grad = part.clone()
            else:
                each.grad.copy_(part)  # memory that is there already: fresh memory of a large net takes milliseconds
        norm = float(self._clip())
        if not math.isfinite(norm):
            raise diverged(norm, None)
        self._optimizer.step()
        return norm

    def flat_weights(self) -> np.ndarray:
        import torch

        return _array(torch.cat([each.detach().reshape(-1) for each in self._in_order()]))

    def set_flat_weights(self, flat: np.ndarray) -> None:
        for each, part in self._parts("weights", flat):
            each.data.copy_(part)

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        import torch

        # One read for all: each makes the driver wait for a GPU.
        table = torch.stack([metric for step in steps for metric in step.values()]).view(len(steps), -1)
        means = table.mean(0)
        if self._brake is None:
            return dict(zip(steps[0], means.tolist(), strict=True))
        *read, stopped, norm, loss = torch.cat((means, self._brake.state)).tolist()
        if stopped:
            self._brake.release()
            raise diverged(norm, loss)
        return dict(zip(steps[0], read, strict=True))

    def weights(self, version: int) -> Weights:
        return Weights(version, self.spec, {name: _array(tensor) for name, tensor in self._nets.state_dict().items()})

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        memory = _memory(self._optimizer, dict(self._nets.named_parameters()))
        return {name: _array(tensor) for name, tensor in memory.items()}

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        # Found by letting another optimiser of the same kind take a step, so that no kind need be known here.
        import torch

        doubles = {name: torch.nn.Parameter(torch.zeros_like(like)) for name, like in self._nets.named_parameters()}
        for double in doubles.values():
            double.grad = torch.zeros_like(double)
        optimizer = self._make_optimizer(list(doubles.values()))
        optimizer.step()
        return {name: tuple(tensor.shape) for name, tensor in _memory(optimizer, doubles).items()}

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        import torch

        self._nets.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        states: dict[int, dict[str, torch.Tensor]] = {}
        for index, (name, _) in enumerate(self._nets.named_parameters()):
            prefix = f"{name}/"
            mine = {key.removeprefix(prefix): array for key, array in optimizer.items() if key.startswith(prefix)}
            if mine:
                states[index] = {quantity: torch.tensor(array) for quantity, array in mine.items()}
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})

    def counters(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass  # nothing is held

    def _differentiate(
        self, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a minibatch, detached, and what it reports; its gradient is in the parameters then."""
        self._optimizer.zero_grad()
        loss, metrics = self._loss(self.policy, minibatch, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), metrics

    def _clip(self) -> torch.Tensor:
        """Scale the parameters' gradients down to the limit; their norm before."""
        import torch

        limit = math.inf if self._max_grad_norm is None else self._max_grad_norm
        return torch.nn.utils.clip_grad_norm_(self._nets.parameters(), limit)

    def _parts(self, what: str, flat: np.ndarray) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """Each parameter, and its part of this vector [P], in its shape; to be copied, for on a CPU it is the same."""
        import torch

        mine = self._in_order()
        sizes = [each.numel() for each in mine]
        check_length(what, flat, sum(sizes))
        parts = torch.split(torch.from_numpy(np.require(flat, requirements="W")).to(self.device), sizes)
        return [(each, part.view_as(each)) for each, part in zip(mine, parts, strict=True)]

    def _in_order(self) -> list[torch.nn.Parameter]:
        """The parameters as flat vectors have them."""
        named = dict(self._nets.named_parameters())
        return [named[name] for name in self.spec.array_shapes()]


class _GradientAsItComes:
    """The flat gradient of a backward pass, filled in while that runs; a context around the pass.

    Autograd finds derivatives in about the reverse order of the layers. What an array waits for that has come early, or
    that the loss does not reach, is told when the pass is over, by whoever takes the vector.

    Args:
      parameters: As flat vectors have them.
      final_from: See ``GradientLearner.gradients``.

    Attributes:
      vector: [P] float32, complete behind the context.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], final_from: Callable[[np.ndarray, int], None]) -> None:
        self._parameters = parameters
        self._final_from = final_from
        self._begins = [0, *itertools.accumulate(parameter.numel() for parameter in parameters)]
        self._is_there = [False] * len(parameters)
        self._first_final = len(parameters)
        self.vector = np.empty(self._begins[-1], np.float32)

    def __enter__(self) -> _GradientAsItComes:
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._arrive, index))  # type: ignore[no-untyped-call]
            for index, parameter in enumerate(self._parameters)
        ]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for index, is_there in enumerate(self._is_there):
            if not is_there:
                self._place(index)[:] = 0.0

    def _place(self, index: int) -> np.ndarray:
        return self.vector[self._begins[index] : self._begins[index + 1]]

    def _arrive(self, index: int, parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None, "it has just been accumulated"
        self._place(index)[:] = parameter.grad.reshape(-1).cpu().numpy()
        self._is_there[index] = True
        before = self._first_final
        while self._first_final and self._is_there[self._first_final - 1]:
            self._first_final -= 1
        if self._first_final < before:
            self._final_from(self.vector, self._begins[self._first_final])


class _Brake:
    """Stops an optimiser at the first gradient that is not finite, where it computes: that step and all after it are
    skipped, weights and the optimiser's memory stay as they were before it.

    Works by what fused optimisers take from torch's gradient scaler: a tensor ``found_inf``, at 1.0 they do nothing.

    Attributes:
      state: [3] float32: 1 once it stops, else 0; the norm of that gradient, and the loss.

    Raises:
      ValueError: the optimiser is not fused.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        import torch

        if not optimizer.defaults.get("fused"):
            raise ValueError(f"{type(optimizer).__name__} must be made with fused=True: else it cannot skip a step")
        self.state = torch.zeros(3, device=device)
        self._one = torch.ones((), device=device)
        optimizer.found_inf = self.state[0]  # type: ignore[attr-defined]

    def look(self, norm: torch.Tensor, loss: torch.Tensor) -> None:
        """Before the optimiser's step: the gradient's norm and the loss, scalars."""
        import torch

        stays = (self.state[0] > 0.0) | norm.isfinite()
        self.state.copy_(torch.where(stays, self.state, torch.stack((self._one, norm, loss))))

    def release(self) -> None:
        """Steps count again."""
        self.state.zero_()


def use_threads(policy: ActorCritic, minibatch_size: int, most: int) -> int:
    """Let torch use as many threads in this process as the policy is worth, at most ``most``; returns how many.

    Torch's default, one for each core, takes the cores from the rollout workers and gains nothing for small networks.
    """
    import torch

    # A recurrent net takes its rows step by step: few at once.
    steps = policy.spec.network.sequence_length if policy.spec.is_recurrent else 1
    work = minibatch_size // steps * sum(parameter.numel() for parameter in policy.nets.parameters())
    threads = max(1, min(most, work // _WORK_PER_THREAD))
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
