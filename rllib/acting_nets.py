"""The nets of a policy in numpy, with fixed weights: what ``policy.py`` acts with. ``modules.py`` is their torch twin.

For small nets numpy takes half of torch's time at small batches, and rollout workers need no torch at all; only images
pass convolutions in torch (``image_encoders.py``).

A row's result does not depend on the rows beside it, to the last bit: matrix products always have the same shape,
``BLOCK_ROWS`` rows, padded with zeros. BLAS otherwise picks its kernel, and with it the order of the additions, by
the size of the batch and the place in it. This is what lets two workers with four environments each act exactly as
one with eight; it costs about 2 us a call. It also leaves torch nothing to win with wider layers: in blocks of 8 rows a
3136 x 512 layer takes 0.33 ms in either, a 1024 x 1024 one 0.21 ms against 0.24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .image_encoders import FixedEncoder
from .policy_spec import PolicySpec, Tower

#: Rows of every matrix product. With 8, OpenBLAS gives a row the same bits in any place, on each of its x86 kernels
#: (Prescott to Cooper Lake, tried one by one); with 16 the AVX-512 kernels do not.
BLOCK_ROWS = 8

#: Weights [inputs, outputs] and bias [outputs].
_Layer = tuple[np.ndarray, np.ndarray]


def in_blocks(rows: np.ndarray) -> np.ndarray:
    """[N, D] -> [ceil(N / BLOCK_ROWS), BLOCK_ROWS, D] float32, the last rows zeros."""
    count, width = rows.shape
    blocks = np.zeros((-(-count // BLOCK_ROWS), BLOCK_ROWS, width), np.float32)
    blocks.reshape(-1, width)[:count] = rows
    return blocks


def out_of_blocks(blocks: np.ndarray, count: int) -> np.ndarray:
    """The inverse of ``in_blocks``: [count, D]."""
    rows: np.ndarray = blocks.reshape(-1, blocks.shape[-1])[:count]
    return rows


class ActingHead:
    """A dense layer without activation."""

    def __init__(self, arrays: Mapping[str, np.ndarray], net: Tower) -> None:
        weight, bias = _layer(arrays, f"{net}.head")
        self._num_outputs = len(bias)
        # A single column would be a product with a vector, in which BLAS may add in another order for each row
        # (OpenBLAS for Sandy Bridge does); so it gets a second one, of zeros.
        missing = max(0, 2 - len(bias))
        self._layer = np.pad(weight, ((0, 0), (0, missing))), np.pad(bias, (0, missing))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[blocks, BLOCK_ROWS, features] -> [blocks, BLOCK_ROWS, outputs]."""
        return _dense(self._layer, features)[..., : self._num_outputs]


class ActingTower:
    """All of a net but its head.

    Args:
      spec: Shape of the policy.
      arrays: Its weights.
      tower: Which of its nets.
    """

    def __init__(self, spec: PolicySpec, arrays: Mapping[str, np.ndarray], tower: Tower) -> None:
        self._images = [
            (column.name, _encoder(spec, arrays, f"{tower}.images.{index}", index), dense)
            for index, column in enumerate(spec.observations.images)
            for dense in [_layer(arrays, f"{tower}.images.{index}.dense")]
        ]
        self._hidden = [_layer(arrays, f"{tower}.hidden.{i}") for i in range(len(spec.hidden_sizes))]
        self._activate = _ACTIVATIONS[spec.network.activation]
        self._cell: _Lstm | _Gru | None = None
        if spec.is_recurrent:
            cell = _Lstm if spec.network.recurrent == "lstm" else _Gru
            self._cell = cell(arrays, f"{tower}.recurrent")

    def __call__(
        self, flat: np.ndarray | None, images: Mapping[str, np.ndarray], state: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One step.

        Args:
          flat: The flat input in blocks; None if there are only images.
          images: By column, [N, *shape].
          state: Recurrent state in blocks, [blocks, BLOCK_ROWS, tower_state_size]; None without recurrence.

        Returns:
          What the head sees, in blocks; and the next state.
        """
        hidden = flat
        if self._images:
            parts = [_dense(dense, in_blocks(encoder(images[name]))) for name, encoder, dense in self._images]
            for part in parts:
                _relu(part, part)
            hidden = np.concatenate(parts if flat is None else [*parts, flat], axis=2)
        assert hidden is not None
        for weight, bias in self._hidden:
            hidden = hidden @ weight
            hidden += bias
            self._activate(hidden, hidden)
        if self._cell is None or state is None:
            return hidden, None
        return self._cell(hidden, state)


class _Lstm:
    """Hochreiter and Schmidhuber 1997 with forget gates, as torch.nn.LSTM has it: gates i, f, g, o."""

    def __init__(self, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
        self._inputs, self._recurrent = _cell_layers(arrays, prefix)

    def __call__(self, inputs: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, next state [h | c]), in blocks."""
        size = state.shape[-1] // 2
        gates = _dense(self._inputs, inputs)
        gates += _dense(self._recurrent, np.ascontiguousarray(state[..., :size]))
        kept = _sigmoid(gates[..., size : 2 * size]) * state[..., size:]
        cells = kept + _sigmoid(gates[..., :size]) * np.tanh(gates[..., 2 * size : 3 * size])
        outputs = _sigmoid(gates[..., 3 * size :]) * np.tanh(cells)
        return outputs, np.concatenate([outputs, cells], axis=2)


class _Gru:
    """Cho et al. 2014, as torch.nn.GRU has it: gates r, z, n, the reset gate after the product."""

    def __init__(self, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
        self._inputs, self._recurrent = _cell_layers(arrays, prefix)

    def __call__(self, inputs: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, next state [h]), in blocks."""
        size = state.shape[-1]
        gates, own = _dense(self._inputs, inputs), _dense(self._recurrent, state)
        reset = _sigmoid(gates[..., :size] + own[..., :size])
        update = _sigmoid(gates[..., size : 2 * size] + own[..., size : 2 * size])
        new = np.tanh(gates[..., 2 * size :] + reset * own[..., 2 * size :])
        outputs = (1.0 - update) * new + update * state
        return outputs, outputs


def _encoder(spec: PolicySpec, arrays: Mapping[str, np.ndarray], prefix: str, index: int) -> FixedEncoder:
    column = spec.observations.images[index]
    count = sum(name.startswith(f"{prefix}.convs.") for name in arrays) // 2
    return FixedEncoder(
        spec.image_net,
        [arrays[f"{prefix}.convs.{i}.weight"] for i in range(count)],
        [arrays[f"{prefix}.convs.{i}.bias"] for i in range(count)],
        channels_first=column.channels_first,
        divisor=column.divisor,
    )


def _layer(arrays: Mapping[str, np.ndarray], name: str) -> _Layer:
    # torch keeps weights as [outputs, inputs].
    return np.ascontiguousarray(arrays[f"{name}.weight"].T), arrays[f"{name}.bias"]


def _cell_layers(arrays: Mapping[str, np.ndarray], prefix: str) -> tuple[_Layer, _Layer]:
    """What the gates get of the inputs, and of the state."""
    inputs, recurrent = (np.ascontiguousarray(arrays[f"{prefix}.weight_{of}_l0"].T) for of in ("ih", "hh"))
    return (inputs, arrays[f"{prefix}.bias_ih_l0"]), (recurrent, arrays[f"{prefix}.bias_hh_l0"])


def _dense(layer: _Layer, inputs: np.ndarray) -> np.ndarray:
    weight, bias = layer
    outputs: np.ndarray = inputs @ weight
    outputs += bias
    return outputs


def _relu(inputs: np.ndarray, into: np.ndarray) -> None:
    np.maximum(inputs, 0.0, out=into)


def _elu(inputs: np.ndarray, into: np.ndarray) -> None:
    into[...] = np.where(inputs > 0.0, inputs, np.expm1(np.minimum(inputs, 0.0)))


def _sigmoid(inputs: np.ndarray) -> np.ndarray:
    # Through tanh, which numpy has vectorised and which never overflows.
    outputs: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * inputs)
    return outputs


#: (inputs, where the outputs go)
_ACTIVATIONS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {"tanh": np.tanh, "relu": _relu, "elu": _elu}
