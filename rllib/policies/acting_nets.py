"""The nets of a policy in numpy, with fixed weights: what ``policy.py`` acts with. ``modules.py`` is their torch twin.

For small nets numpy takes half of torch's time at small batches, and rollout workers need no torch at all; only images
pass convolutions in torch (``image_encoders.py``).

A row's result does not depend on the rows beside it, to the last bit: matrix products always have the same shape,
``BLOCK_ROWS`` rows, padded with zeros. BLAS otherwise picks its kernel, and with it the order of the additions, by
the size of the batch and the place in it. This is what lets two workers with four environments each act exactly as
one with eight. It also leaves torch nothing to win with wider layers: in blocks of 8 rows a 3136 x 512 layer takes
0.33 ms in either, a 1024 x 1024 one 0.21 ms against 0.24.

Rows in blocks are an array [blocks, BLOCK_ROWS, D]; a single block, which is what a worker with a few environments
has, goes without the first dimension: products of two matrices take half of the time of stacked ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .activations import ACTIVATIONS
from .image_encoders import FixedEncoder
from .policy_spec import PolicySpec, Tower

#: Rows of every matrix product. With 8, OpenBLAS gives a row the same bits in any place, on each of its x86 kernels
#: (Prescott to Cooper Lake, tried one by one); with 16 the AVX-512 kernels do not.
BLOCK_ROWS = 8

#: Weights [inputs, outputs] and, for each row of a block, the bias [BLOCK_ROWS, outputs]: adding equal shapes saves
#: half of the time of adding a row to each row.
_Layer = tuple[np.ndarray, np.ndarray]


def in_blocks(rows: np.ndarray) -> np.ndarray:
    """[N, D] -> [blocks, BLOCK_ROWS, D], or [BLOCK_ROWS, D] if N <= BLOCK_ROWS; float32, padded with zeros.

    Not a copy where nothing needs to be padded or converted: only to be read.
    """
    count, width = rows.shape
    if count < BLOCK_ROWS:
        block = np.zeros((BLOCK_ROWS, width), np.float32)
        block[:count] = rows
        return block
    shape = (BLOCK_ROWS, width) if count == BLOCK_ROWS else (-(-count // BLOCK_ROWS), BLOCK_ROWS, width)
    if count % BLOCK_ROWS == 0 and rows.dtype == np.float32 and rows.flags.c_contiguous:
        return rows.reshape(shape)
    blocks = np.zeros(shape, np.float32)
    blocks.reshape(-1, width)[:count] = rows
    return blocks


def out_of_blocks(blocks: np.ndarray, count: int) -> np.ndarray:
    """The inverse of ``in_blocks``: [count, D]."""
    rows: np.ndarray = blocks if blocks.ndim == 2 else blocks.reshape(-1, blocks.shape[-1])
    return rows[:count]


class ActingHead:
    """A dense layer without activation."""

    def __init__(self, arrays: Mapping[str, np.ndarray], net: Tower) -> None:
        weight, bias = _layer(arrays, f"{net}.head")
        # A single column would be a product with a vector, in which BLAS may add in another order for each row
        # (OpenBLAS for Sandy Bridge does); so it gets a second one, of zeros.
        self._is_single = bias.shape[1] == 1
        if self._is_single:
            weight, bias = (np.concatenate([column, np.zeros_like(column)], axis=1) for column in (weight, bias))
        self._layer = weight, bias

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features in blocks -> outputs in blocks."""
        outputs = _dense(self._layer, features)
        return outputs[..., :1] if self._is_single else outputs


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
        self._activate = ACTIVATIONS[spec.network.activation].apply
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
          state: Recurrent state, tower_state_size wide, in blocks; None without recurrence.

        Returns:
          What the head sees, in blocks; and the next state.
        """
        hidden = flat
        if self._images:
            parts = [_dense(dense, in_blocks(encoder(images[name]))) for name, encoder, dense in self._images]
            for part in parts:
                ACTIVATIONS["relu"].apply(part, part)
            hidden = np.concatenate(parts if flat is None else [*parts, flat], axis=-1)
        assert hidden is not None
        activate = self._activate
        for layer in self._hidden:
            hidden = _dense(layer, hidden)
            activate(hidden, hidden)
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
        return outputs, np.concatenate([outputs, cells], axis=-1)


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
    return np.ascontiguousarray(arrays[f"{name}.weight"].T), _for_each_row(arrays[f"{name}.bias"])


def _cell_layers(arrays: Mapping[str, np.ndarray], prefix: str) -> list[_Layer]:
    """What the gates get of the inputs, and of the state."""
    return [
        (
            np.ascontiguousarray(arrays[f"{prefix}.weight_{of}_l0"].T),
            _for_each_row(arrays[f"{prefix}.bias_{of}_l0"]),
        )
        for of in ("ih", "hh")
    ]


def _for_each_row(bias: np.ndarray) -> np.ndarray:
    return np.repeat(bias[None], BLOCK_ROWS, axis=0)


def _dense(layer: _Layer, inputs: np.ndarray) -> np.ndarray:
    weight, bias = layer
    outputs: np.ndarray = inputs.dot(weight) if inputs.ndim == 2 else np.matmul(inputs, weight)
    outputs += bias
    return outputs


def _sigmoid(inputs: np.ndarray) -> np.ndarray:
    # Through tanh, which numpy has vectorised and which never overflows.
    outputs: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * inputs)
    return outputs
