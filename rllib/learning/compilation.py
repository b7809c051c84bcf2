"""A loss, compiled: one program of forward, loss and backward, made by torch.compile when the first minibatch comes.

On a GPU with CUDA graphs, which launch all its kernels at once. The program is for minibatches of one size, as a new
size would take seconds more: any other, such as the last of an epoch, is computed as the loss is written. Results
differ by rounding, some 1e-6 of the gradient's norm (tests/rllib/learning/test_compilation.py).

What comes out is a loss: the learner does not see the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..config import ConfigError
from ..policies.devices import moved
from ..policies.modules import ActorCritic

if TYPE_CHECKING:
    import torch

#: (policy, minibatch, settings) -> (scalar to minimise, named scalars to report, detached). Where it is compiled, the
#: settings are scalar tensors.
Loss = Callable[
    [ActorCritic, "Mapping[str, torch.Tensor]", Mapping[str, float]], "tuple[torch.Tensor, dict[str, torch.Tensor]]"
]


def compiled(loss: Loss, device: torch.device, num_rows: int) -> Loss:
    """The same loss, fast for minibatches of ``num_rows`` rows on this device.

    Raises:
      ConfigError: nothing can be compiled for this device, for want of a compiler for instance.
    """
    import torch

    _try_to_compile(device)
    # A loss that cannot be compiled whole is an error and takes no slow detour: it would be a fault of this repository.
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    fast = torch.compile(loss, fullgraph=True, dynamic=False, mode=mode)
    known: dict[str, float] = {}
    tensors: dict[str, torch.Tensor] = {}

    def computed(
        policy: ActorCritic, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if len(next(iter(minibatch.values()))) != num_rows:
            return loss(policy, minibatch, settings)
        if not known:
            # What properties remember is computed now: the compiler cannot follow their locks (Python < 3.12).
            with torch.no_grad():
                loss(policy, minibatch, settings)
        if settings != known:  # as numbers they would be constants of the program, and others compile it anew
            known.clear()
            known.update(settings)
            tensors.clear()
            tensors.update({name: moved(torch.tensor(value), device) for name, value in settings.items()})
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        value, metrics = fast(policy, dict(minibatch), tensors)  # type: ignore[arg-type]
        # A CUDA graph writes its results to the same place each time; the loss is used up before the next.
        return value, {name: metric.clone() for name, metric in metrics.items()}

    return computed


def _try_to_compile(device: torch.device) -> None:
    """Compile something small: what is missing shall be told before anybody trains."""
    import torch

    try:
        torch.compile(torch.sin, dynamic=False)(torch.zeros(1, device=device))
    except RuntimeError as error:  # what torch's compiler raises are children of it, in modules that are not public
        reason = str(error).splitlines()[0]
        raise ConfigError(f"compile: torch.compile does not work on {device}: {reason}; train without it") from error
