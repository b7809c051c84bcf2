"""How weights start: orthogonal matrices, the same for every learner (PPO's details 2 and 13 in Huang et al. 2022, and
the first of those for LSTMs).

Gain sqrt(2) in hidden layers and convolutions, 0.01 at the policy's head, so that the first policy is nearly uniform, 1
at the critic's and in recurrent layers; biases 0. Pure numpy; called on the driver when a learner is built.
"""

from __future__ import annotations

import math

import numpy as np

from ..threads import matrix_threads_limited
from .policy_spec import PolicySpec

_HIDDEN_GAIN, _POLICY_GAIN, _VALUE_GAIN, _RECURRENT_GAIN = math.sqrt(2.0), 0.01, 1.0, 1.0


def initial_weights(spec: PolicySpec, seed: int) -> dict[str, np.ndarray]:
    """Fresh arrays for ``spec.array_shapes()``, float32; a function of spec and seed."""
    rng = np.random.default_rng(seed)
    # With more threads the factorisation has other last bits, and a seed must give the same weights on any machine.
    with matrix_threads_limited(1):
        arrays = {
            name: _orthogonal(shape, _gain(name), rng) if len(shape) > 1 else np.zeros(shape, np.float32)
            for name, shape in spec.array_shapes().items()
        }
    num_reals = len(spec.actions.low)
    if "log_stds" in arrays:
        arrays["log_stds"][:] = spec.network.initial_log_std
    elif num_reals:  # the last outputs of the policy's head, see `DiagonalGaussian`
        arrays["policy.head.bias"][-num_reals:] = spec.network.initial_log_std
    return arrays


def _gain(name: str) -> float:
    tower, layer = name.split(".")[:2]
    if layer == "head":
        return _POLICY_GAIN if tower == "policy" else _VALUE_GAIN
    return _RECURRENT_GAIN if layer == "recurrent" else _HIDDEN_GAIN


def _orthogonal(shape: tuple[int, ...], gain: float, rng: np.random.Generator) -> np.ndarray:
    """Rows, or columns if these are fewer, that stand at right angles and have this length; uniform over all such
    matrices (Saxe et al. 2013, arXiv:1312.6120; the signs as in Mezzadri 2007, arXiv:math-ph/0609050, section 5).

    Args:
      shape: Of the weight, outputs first; what follows counts as one dimension.
      gain: The length.
      rng: What to draw from.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    drawn = rng.standard_normal((max(rows, columns), min(rows, columns)))
    directions, triangle = np.linalg.qr(drawn)
    directions *= np.sign(np.diag(triangle))
    weight = directions if rows >= columns else directions.T
    return np.ascontiguousarray(gain * weight, np.float32).reshape(shape)
