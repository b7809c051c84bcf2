"""Small nets in numpy, forward and backward: the twin of ``modules.ActorCritic`` for policies without images and
recurrence, on a CPU.

All weights lie in one flat vector, and so do their gradients. So the norm of the gradient is one product, and the
optimiser one walk over a vector. What a pass computes goes into arrays that are kept for the next. Two nets of 64 x 64
with 256 rows take 0.19 ms forward and back, of which matrix products are 0.16.

    inputs of a layer    [inputs + 1, N]            the last row is 1, so that the bias is a column of the weights
    a layer              [K, outputs, inputs + 1]   of K towers side by side: policy and critic, or the one they share

Rows of a minibatch are columns here: so a row of ones costs nothing, and a layer's outputs are one piece of memory. To
add a bias to 256 rows of 64 numbers takes as long as their tanh, and was a tenth of a pass.

A pass forward keeps what the pass backward needs, which uses it up: one backward for each forward.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..policies.activations import ACTIVATIONS
from ..policies.policy_spec import PolicySpec
from ..policies.weights import by_name, flattened


class DenseNets:
    """Policy and critic with gradients.

    Args:
      spec: Their shape; without images and recurrence.

    Attributes:
      weights: [P] float32, all of them, in an order of its own: see ``named``.
      gradient: [P] float32, what ``backward`` gave, in the same order.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._spec = spec
        self._shapes = spec.array_shapes()
        size = sum(map(math.prod, self._shapes.values()))
        self.weights, self.gradient = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._own, self._its_gradient = _Layers(spec, self.weights), _Layers(spec, self.gradient)
        self._own_by_name = self.named(self.weights)
        self._activation = ACTIVATIONS[spec.network.activation]
        self._make_room(0)

    def named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Vector [P] in the order of ``weights`` as the arrays of ``spec.array_shapes``; they share its memory."""
        arrays = _Layers(self._spec, flat).named(self._spec)
        return {name: arrays[name] for name in self._shapes}

    def in_order(self, flat: np.ndarray) -> np.ndarray:
        """A new vector [P] with the arrays of ``spec.array_shapes`` one behind the other, of one like ``weights``."""
        return flattened(self._own_by_name if flat is self.weights else self.named(flat), self._shapes)

    def take_in_order(self, ordered: np.ndarray, into: np.ndarray) -> None:
        """The opposite of ``in_order``: fill a vector like ``weights``."""
        places = self.named(into)
        for name, array in by_name(ordered, self._shapes).items():
            places[name][...] = array

    def forward(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both nets.

        Args:
          inputs: [N, flat_width] float32, of ``ObservationSpec.flat``.

        Returns:
          parameters [N, num_parameters] of the action distribution, values [N].
        """
        if len(inputs) != self._count:
            self._make_room(len(inputs))
        self._inputs[:-1] = inputs.T
        for layer, below, outputs in zip(self._own.hidden, self._below, self._outputs, strict=True):
            np.matmul(layer, below, out=outputs)
            self._activation.apply(outputs, outputs)
        features = self._with_ones[-1]
        log_stds, policy_head = self._own.log_stds, self._own.policy_head
        parameters = np.empty((len(policy_head) + len(log_stds), len(inputs)), np.float32)
        np.matmul(policy_head, features[0], out=parameters[: len(policy_head)])
        if len(log_stds):
            parameters[len(policy_head) :] = log_stds[:, None]
        return parameters.T, self._own.value_head @ features[-1]

    def backward(self, by_parameters: np.ndarray, by_values: np.ndarray) -> None:
        """From a loss's derivatives by what ``forward`` gave last, [N, num_parameters] and [N], to ``gradient``."""
        own, its = self._own, self._its_gradient
        by_outputs = by_parameters[:, : len(own.policy_head)].T
        if len(its.log_stds):
            np.add.reduce(by_parameters[:, len(own.policy_head) :], axis=0, out=its.log_stds)
        features, deltas = self._with_ones[-1], self._deltas[-1]
        np.matmul(by_outputs, features[0].T, out=its.policy_head)
        np.matmul(features[-1], by_values, out=its.value_head)
        np.matmul(own.policy_head_turned, by_outputs, out=deltas[0])
        if len(deltas) == 2:
            np.multiply(own.value_head_turned, by_values, out=deltas[1])
        else:
            deltas[0] += own.value_head_turned * by_values
        for index in reversed(range(len(own.hidden))):
            outputs, deltas = self._outputs[index], self._deltas[index]
            self._activation.slope(outputs, outputs)
            deltas *= outputs
            np.matmul(deltas, self._below_turned[index], out=its.hidden[index])
            if index:
                np.matmul(own.hidden_turned[index], deltas, out=self._deltas[index - 1])

    def _make_room(self, count: int) -> None:
        """For passes of so many rows: minibatches all have the same number but for an epoch's last."""
        self._count = count
        self._inputs = np.ones((self._spec.observations.flat_width + 1, count), np.float32)
        towers = len(self._spec.towers)
        self._with_ones = [np.ones((towers, width + 1, count), np.float32) for width in self._spec.hidden_sizes]
        self._below = [self._inputs, *self._with_ones[:-1]]
        self._below_turned = [below.swapaxes(-1, -2) for below in self._below]
        self._outputs = [layer[:, :-1] for layer in self._with_ones]
        self._deltas = [np.empty((towers, width, count), np.float32) for width in self._spec.hidden_sizes]


class _Layers:
    """Views of a vector [P] as layers, biases beside the weights; see the module.

    Args:
      spec: Of the nets.
      flat: The vector.

    Attributes:
      hidden: [K, outputs, inputs + 1] of each hidden layer.
      policy_head: [num_outputs, feature_width + 1].
      value_head: [feature_width + 1].
      log_stds: [A], those that are weights; often none.
      hidden_turned, policy_head_turned, value_head_turned: without the biases, [.., inputs, outputs]: what derivatives
        by outputs are multiplied with on their way down.
    """

    def __init__(self, spec: PolicySpec, flat: np.ndarray) -> None:
        num_outputs, features = spec.actions.distribution.num_outputs, spec.feature_width + 1
        widths = (spec.observations.flat_width, *spec.hidden_sizes)
        shapes: list[tuple[int, ...]] = [
            *((len(spec.towers), outputs, inputs + 1) for inputs, outputs in itertools.pairwise(widths)),
            (num_outputs, features),
            (features,),
        ]
        ends = list(itertools.accumulate(map(math.prod, shapes)))
        *parts, self.log_stds = np.split(flat, ends)
        *self.hidden, self.policy_head, self.value_head = (
            part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        self.hidden_turned = [layer[:, :, :-1].swapaxes(1, 2) for layer in self.hidden]
        self.policy_head_turned, self.value_head_turned = self.policy_head[:, :-1].T, self.value_head[:-1, None]

    def named(self, spec: PolicySpec) -> dict[str, np.ndarray]:
        """The same by the names of ``spec.array_shapes``, in another order."""
        layers = {
            f"{tower}.hidden.{index}": layer[place]
            for index, layer in enumerate(self.hidden)
            for place, tower in enumerate(spec.towers)
        }
        layers |= {"policy.head": self.policy_head, "value.head": self.value_head[None]}
        weights = {f"{name}.weight": layer[:, :-1] for name, layer in layers.items()}
        return weights | {f"{name}.bias": layer[:, -1] for name, layer in layers.items()} | {"log_stds": self.log_stds}
