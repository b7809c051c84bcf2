"""Several candidates' nets that act side by side, each on an observation of its own. Pure numpy.

``Policy`` has one set of weights and many rows; here every row has weights of its own, one candidate each:

    inputs [L, W]  x  weights [L, O, W]  ->  outputs [L, O]          L lanes

One product for all lanes costs 1.2 us and 0.1 us a lane for small nets, where one for each would cost 1 us a lane. A
lane's bits are its own: numpy multiplies lane by lane, each a matrix by a vector with the same sizes (and, in
OpenBLAS's kernels, the same bits wherever the vectors begin; a test looks). They are not those of ``Policy``, which
multiplies rows in blocks: the last digits differ.
"""

from __future__ import annotations

import numpy as np

from ..config import ConfigError
from ..policies.activations import ACTIVATIONS
from ..policies.policy_spec import PolicySpec
from .parameter_vector import ParameterVector

#: Float32 numbers of a cache line: each lane's weights and inputs begin at one.
_LINE = 16


class CandidateNets:
    """Lanes of nets of one shape.

    Args:
      spec: The policy's shape.
      lanes: L.

    Raises:
      ConfigError: the policy needs more than dense layers.
    """

    def __init__(self, spec: PolicySpec, lanes: int) -> None:
        check_dense(spec)
        self.vector = ParameterVector(spec)
        self._weights = _lines(lanes, self.vector.size)
        self._activate = ACTIVATIONS[spec.network.activation].apply
        names = [f"policy.hidden.{layer}" for layer in range(len(spec.hidden_sizes))] + ["policy.head"]
        #: weight [L, O, I], bias [L, O], inputs [L, I, 1] and outputs [L, O, 1] of each layer
        self._layers: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.inputs = _lines(lanes, spec.trunk_width)  #: [L, W] float32, to be filled before ``__call__``
        inputs = self.inputs
        for name in names:
            weight, bias = self._view(f"{name}.weight"), self._view(f"{name}.bias")
            outputs = _lines(lanes, bias.shape[1])
            self._layers.append((weight, bias, inputs[:, :, None], outputs[:, :, None]))
            inputs = outputs

    def load(self, lane: int, flat: np.ndarray) -> None:
        """Let a lane be this candidate [P] float32."""
        self._weights[lane] = flat

    def __call__(self) -> np.ndarray:
        """What the heads make of ``inputs``: [L, num_outputs] float32, overwritten by the next call."""
        *hidden, (weight, bias, inputs, outputs) = self._layers
        for layer_weight, layer_bias, layer_inputs, layer_outputs in hidden:
            np.matmul(layer_weight, layer_inputs, out=layer_outputs)
            values = layer_outputs[:, :, 0]
            values += layer_bias
            self._activate(values, values)
        np.matmul(weight, inputs, out=outputs)
        result: np.ndarray = outputs[:, :, 0]
        result += bias
        return result

    def _view(self, name: str) -> np.ndarray:
        shape, start = self.vector.shapes[name], self.vector.offsets[name]
        lane, number = self._weights.strides
        strides = (number,) if len(shape) == 1 else (number * shape[1], number)
        return np.lib.stride_tricks.as_strided(self._weights[:, start:], (len(self._weights), *shape), (lane, *strides))


def check_dense(spec: PolicySpec) -> None:
    """Refuse a policy that needs more than dense layers.

    Raises:
      ConfigError: it sees images, or remembers.
    """
    if spec.observations.images:
        names = ", ".join(column.name for column in spec.observations.images)
        raise ConfigError(f"env: {names} is an image; evolution strategies take nets of dense layers: network mlp")
    if spec.is_recurrent:
        raise ConfigError("recurrent: evolution strategies take nets of dense layers, without memory")


def _lines(lanes: int, width: int) -> np.ndarray:
    """Zeros [lanes, width] float32, whose rows begin at whole lines."""
    stride = -(-width // _LINE) * _LINE
    raw = np.zeros(lanes * stride + _LINE, np.float32)
    start = -(raw.ctypes.data // raw.itemsize) % _LINE
    return raw[start : start + lanes * stride].reshape(lanes, stride)[:, :width]
