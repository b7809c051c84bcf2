"""Acting: a small multi-layer perceptron in numpy, with the weights that torch learned.

For nets of this size numpy takes a fifth of torch's time at small batches, and rollout workers need no torch at all;
a test holds the two to the same numbers. ``modules.py`` is the learner's side of the same network, layer for layer.

A row's result does not depend on the rows beside it, to the last bit: matrix products always have the same shape,
``BLOCK_ROWS`` rows, padded with zeros. BLAS otherwise picks its kernel, and with it the order of the additions, by
the size of the batch and the place in it. This is what lets two workers with four environments each act exactly as
one with eight; it costs about 2 us a call.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .weights import Weights

#: Rows of every matrix product. With 8, OpenBLAS gives a row the same bits in any place, on each of its x86 kernels
#: (Prescott to Cooper Lake, tried one by one); with 16 the AVX-512 kernels do not.
BLOCK_ROWS = 8


_Layers = list[tuple[np.ndarray, np.ndarray]]


class Policy:
    """A policy that acts, and its critic, with fixed weights."""

    def __init__(self, weights: Weights) -> None:
        self.spec = weights.spec
        self.version = weights.version
        depth = len(self.spec.hidden_sizes) + 1
        self._policy_layers = _layers(weights.arrays, "policy", depth)
        self._value_layers = _layers(weights.arrays, "value", depth)
        self._log_stds = weights.arrays.get("log_stds")
        self._normalizer = weights.normalizer

    def parameters(self, observations: np.ndarray) -> np.ndarray:
        """Parameters of the action distribution, [N, P] float32, for observations [N, D]."""
        outputs = self._forward(self._policy_layers, observations)
        if self._log_stds is None:
            return outputs
        return np.concatenate([outputs, np.broadcast_to(self._log_stds, outputs.shape)], axis=1)

    def values(self, observations: np.ndarray) -> np.ndarray:
        """The critic's estimates, [N] float32, for observations [N, D]."""
        return self._forward(self._value_layers, observations)[:, 0]

    def act(
        self, observations: np.ndarray, *, deterministic: bool, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Actions as vector environments take them, [N, W].

        Args:
          observations: [N, D].
          deterministic: The likeliest action instead of a sampled one.
          rng: What to sample with; needed only if not deterministic.

        Raises:
          ValueError: asked to sample without rng.
        """
        parameters = self.parameters(observations)
        distribution = self.spec.distribution
        if deterministic:
            return distribution.for_environment(distribution.mode(parameters))
        if rng is None:
            raise ValueError("a sampled action needs rng; give one, or ask for deterministic=True")
        return distribution.for_environment(distribution.sample(parameters, distribution.draw(rng, len(observations))))

    def _forward(self, layers: _Layers, observations: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, outputs] float32."""
        if self._normalizer is not None:
            observations = self._normalizer(observations)
        count, width = observations.shape
        hidden = np.zeros((-(-count // BLOCK_ROWS), BLOCK_ROWS, width), np.float32)
        hidden.reshape(-1, width)[:count] = observations
        for weight, bias in layers[:-1]:
            hidden = hidden @ weight
            hidden += bias
            np.tanh(hidden, out=hidden)
        weight, bias = layers[-1]
        outputs = hidden @ weight
        outputs += bias
        return outputs.reshape(-1, outputs.shape[-1])[:count]


def _layers(arrays: Mapping[str, np.ndarray], net: str, depth: int) -> _Layers:
    # torch keeps weights as [outputs, inputs] and numbers the activations between the layers too.
    return [
        (np.ascontiguousarray(arrays[f"{net}.{2 * i}.weight"].T), arrays[f"{net}.{2 * i}.bias"]) for i in range(depth)
    ]
