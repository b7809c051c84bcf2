"""What follows a hidden layer, in numpy: the functions of torch.nn.functional with these names, and their slopes.

A slope is a function of what the activation gave, so that a backward pass need not keep what went in. At the kink of a
relu it is 0, as torch has it. All write into an array that the caller has; it may be the one they read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Activation:
    """A function of each number by itself."""

    apply: Callable[[np.ndarray, np.ndarray], object]  #: (inputs, where the outputs go)
    slope: Callable[[np.ndarray, np.ndarray], object]  #: (outputs, where the slopes go)


def _relu(inputs: np.ndarray, into: np.ndarray) -> None:
    np.maximum(inputs, 0.0, out=into)


def _elu(inputs: np.ndarray, into: np.ndarray) -> None:
    into[...] = np.where(inputs > 0.0, inputs, np.expm1(np.minimum(inputs, 0.0)))


def _tanh_slope(outputs: np.ndarray, into: np.ndarray) -> None:
    np.multiply(outputs, outputs, out=into)
    np.subtract(1.0, into, out=into)


def _relu_slope(outputs: np.ndarray, into: np.ndarray) -> None:
    np.sign(outputs, out=into)


def _elu_slope(outputs: np.ndarray, into: np.ndarray) -> None:
    np.minimum(outputs, 0.0, out=into)
    into += 1.0


ACTIVATIONS = {
    "tanh": Activation(np.tanh, _tanh_slope),
    "relu": Activation(_relu, _relu_slope),
    "elu": Activation(_elu, _elu_slope),
}
