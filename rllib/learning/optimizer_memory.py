"""What Adam remembers, as checkpoints have it: by ``parameter/quantity`` with torch's names, whoever computes it.

Flat vectors hold the arrays of ``spec.array_shapes``, one behind the other. Each parameter has a number of steps of its
own in torch; here all have the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..policies.weights import by_name, flattened

Shapes = Mapping[str, tuple[int, ...]]
#: The moments of a gradient.
_MOMENTS = ("exp_avg", "exp_avg_sq")


def memory_by_name(steps: int, moments: Mapping[str, np.ndarray], shapes: Shapes) -> dict[str, np.ndarray]:
    """For a checkpoint; {} before the first step.

    Args:
      steps: That Adam has taken.
      moments: exp_avg and exp_avg_sq, [P] each; copied.
      shapes: Of the parameters, by name.
    """
    if not steps:
        return {}
    arrays = {quantity: by_name(moments[quantity].copy(), shapes) for quantity in _MOMENTS}
    step = np.array(steps, np.float32)
    memory = {name: {"step": step, **{quantity: arrays[quantity][name] for quantity in _MOMENTS}} for name in shapes}
    return {f"{name}/{quantity}": array for name, mine in memory.items() for quantity, array in mine.items()}


def memory_from(optimizer: Mapping[str, np.ndarray], shapes: Shapes) -> tuple[int, dict[str, np.ndarray]]:
    """The opposite of ``memory_by_name``: steps, and the moments by name, new vectors [P].

    Raises:
      RuntimeError: names or shapes are others, or parameters have taken different numbers of steps.
    """
    moments: dict[str, np.ndarray] = {}
    for quantity in _MOMENTS:
        end = f"/{quantity}"
        mine = {name.removesuffix(end): array for name, array in optimizer.items() if name.endswith(end)}
        none = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        moments[quantity] = flattened(mine if optimizer else none, shapes)
    counts = {int(array) for name, array in optimizer.items() if name.endswith("/step")} or {0}
    if len(counts) > 1:
        raise RuntimeError(f"the optimiser's parameters have taken different numbers of steps: {sorted(counts)}")
    return counts.pop(), moments


def memory_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what ``memory_by_name`` gives after the first step."""
    of_one = [(f"{name}/{quantity}", shape) for name, shape in shapes.items() for quantity in _MOMENTS]
    return dict(of_one) | {f"{name}/step": () for name in shapes}
