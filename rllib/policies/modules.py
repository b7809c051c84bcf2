"""The learner's side of a policy: the nets of ``acting_nets.py`` in torch, layer for layer.

Recurrent nets learn from sequences in packed order, see ``minibatches.py``: no row of a sequence lies behind the end of
its episode, so there is nothing to reset and nothing to mask in here.

Used by the learner in torch only; torch is imported when the first network is built.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import devices, image_encoders, torch_distributions
from .initial_weights import initial_weights
from .policy_spec import PolicySpec, Tower
from .spaces import InputColumn

if TYPE_CHECKING:
    import torch

#: What the names of observations in a minibatch begin with: "observations/camera".
OBSERVATIONS = "observations/"

#: Rows that padding may add to pieces of different lengths, as a multiple of theirs. Torch has a fast LSTM on CPUs for
#: equal lengths only: 256 rows in 10 pieces take 1.2 ms padded and 4.7 packed, there and back, of width 128.
_MOST_PADDING = 4


class ActorCritic:
    """A policy and a critic that can learn.

    Args:
      spec: Their shape.
      seed: Decides the initial weights; torch's global generator is neither read nor moved.
      precision: What the layers before the heads multiply in. With bfloat16 weights and gradients stay float32, and so
        do the heads and all behind them: a value of 500 would be 2 away from the next.

    Attributes:
      nets: Modules ``policy`` and ``value``, and the parameter ``log_stds`` [A] where actions are continuous and no net
        predicts it. The names in its state_dict are those of ``Weights.arrays``.
    """

    def __init__(self, spec: PolicySpec, seed: int, precision: Literal["float32", "bfloat16"] = "float32") -> None:
        import torch

        self.spec = spec
        self._precision = precision
        self._distribution = spec.actions.distribution
        self._has_log_stds = "log_stds" in spec.array_shapes()
        # Built without memory, and not filled by torch: its own initialisation would draw from the global generator.
        with torch.device("meta"):
            policy, value = _net(spec, "policy", self._distribution.num_outputs), _net(spec, "value", 1)
            self.nets = torch.nn.ModuleDict({"policy": policy, "value": value})
            if self._has_log_stds:
                self.nets.register_parameter("log_stds", torch.nn.Parameter(torch.empty(len(spec.actions.low))))
        self.nets.to_empty(device="cpu")
        self.nets.load_state_dict({name: torch.from_numpy(a) for name, a in initial_weights(spec, seed).items()})
        # Not persistent: they move with the nets, and are no part of the weights.
        self._tables = tuple(torch_distributions.tables(self._distribution))
        for name, table in torch_distributions.tables(self._distribution).items():
            self.nets.register_buffer(name, table, persistent=False)
        for index, column in enumerate(spec.observations.flat_columns):
            if column.kind == "choices":
                self.nets.register_buffer(f"offsets_{index}", _offsets(column), persistent=False)

    def evaluate_actions(
        self, minibatch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the nets think of actions that were taken.

        Args:
          minibatch: observations/NAME [N, *shape] of each column, actions [N, W] as sampled, masks [N, num_choices] if
            there are any; of a recurrent policy states [P, S] and batch_sizes [L] besides, see ``minibatches.py``.

        Returns:
          log_probs [N], entropies [N], values [N].
        """
        parameters, values = self.forward(minibatch)
        masks = minibatch.get("masks")
        tables = {name: self.nets.get_buffer(name) for name in self._tables}
        log_probs, entropies = torch_distributions.evaluate(
            self._distribution, parameters, minibatch["actions"], masks, tables
        )
        return log_probs, entropies, values

    def forward(self, minibatch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Both nets.

        Args:
          minibatch: As for ``evaluate_actions``; actions and masks are not looked at.

        Returns:
          parameters [N, P] of the action distribution, values [N]: float32 in any precision.
        """
        import torch

        size = self.spec.tower_state_size
        states = minibatch.get("states")
        features = self._features("policy", minibatch, None if states is None else states[:, :size])
        outputs = self.nets["policy"]["head"](features)  # type: ignore[index]
        if self._has_log_stds:
            log_stds = self.nets.get_parameter("log_stds").expand(len(outputs), -1)
            outputs = torch.cat([outputs, log_stds], dim=1)
        if not self.spec.shares_tower:
            features = self._features("value", minibatch, None if states is None else states[:, size:])
        values = self.nets["value"]["head"](features).squeeze(1)  # type: ignore[index]
        return outputs, values

    def _features(
        self, tower: Tower, minibatch: Mapping[str, torch.Tensor], states: torch.Tensor | None
    ) -> torch.Tensor:
        """What a head sees, [N, feature_width] float32."""
        import torch

        if self._precision == "float32":
            return self._layers(tower, minibatch, states)
        kind = self.nets.get_parameter(f"{tower}.head.bias").device.type
        # Weights change between two minibatches: no use in remembering what they were cast to.
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            return self._layers(tower, minibatch, states).float()

    def _layers(self, tower: Tower, minibatch: Mapping[str, torch.Tensor], states: torch.Tensor | None) -> torch.Tensor:
        """All layers but the head."""
        import torch

        net: dict[str, Any] = dict(self.nets[tower].items())  # type: ignore[operator]
        spec = self.spec
        parts = [
            _image_features(spec, column, encoder, minibatch[f"{OBSERVATIONS}{column.name}"])
            for column, encoder in zip(spec.observations.images, net.get("images", ()), strict=True)
        ]
        for index, column in enumerate(spec.observations.flat_columns):
            offsets = self.nets.get_buffer(f"offsets_{index}") if column.kind == "choices" else None
            parts.append(_flat(column, minibatch[f"{OBSERVATIONS}{column.name}"], offsets))
        features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        activation = getattr(torch.nn.functional, spec.network.activation)
        for layer in net.get("hidden", ()):
            features = activation(layer(features))
        if states is None:
            return features
        count = 2 if spec.network.recurrent == "lstm" else 1
        before = tuple(part.contiguous() for part in states.unsqueeze(0).chunk(count, dim=2))
        return _unrolled(net["recurrent"], features, minibatch["batch_sizes"], before)


def _unrolled(
    layer: torch.nn.Module, rows: torch.Tensor, batch_sizes: torch.Tensor, before: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Outputs [N, H] of an LSTM or GRU.

    Args:
      layer: torch.nn.LSTM or GRU.
      rows: [N, F] in packed order.
      batch_sizes: [L] int64, on the CPU.
      before: [1, P, H] each: h of the pieces, and c for an LSTM.
    """
    import torch

    hidden = before if len(before) == 2 else before[0]
    steps, pieces = len(batch_sizes), int(batch_sizes[0])
    if steps * pieces > _MOST_PADDING * len(rows):
        outputs, _ = layer(torch.nn.utils.rnn.PackedSequence(rows, batch_sizes), hidden)
        packed: torch.Tensor = outputs.data
        return packed
    exists = torch.arange(pieces) < batch_sizes.unsqueeze(1)
    places = devices.moved(exists.reshape(-1).nonzero().squeeze(1), rows.device)
    grid = rows.new_zeros(steps * pieces, rows.shape[1]).index_copy(0, places, rows)
    outputs, _ = layer(grid.reshape(steps, pieces, -1), hidden)
    unpadded: torch.Tensor = outputs.reshape(steps * pieces, -1)[places]
    return unpadded


def _image_features(spec: PolicySpec, column: InputColumn, encoder: Any, images: torch.Tensor) -> torch.Tensor:
    images = image_encoders.as_images(images, channels_first=column.channels_first, divisor=column.divisor)
    weights, biases = [conv.weight for conv in encoder["convs"]], [conv.bias for conv in encoder["convs"]]
    maps: torch.Tensor = encoder["dense"](image_encoders.feature_maps(spec.image_net, weights, biases, images))
    return maps.relu()


def _offsets(column: InputColumn) -> torch.Tensor:
    """[K] int64: what makes a value of each choice the place of its 1 among the choices' inputs."""
    import torch

    return torch.from_numpy(np.cumsum((0, *column.sizes[:-1])) - np.array(column.starts))


def _flat(column: InputColumn, values: torch.Tensor, offsets: torch.Tensor | None) -> torch.Tensor:
    """One column's part of the flat input, [N, width] float32: the twin of ``ObservationSpec.flat``."""
    import torch

    rows = values.reshape(len(values), -1)
    if offsets is not None:
        return torch.zeros(len(rows), column.width, device=rows.device).scatter_(1, rows.long() + offsets, 1.0)
    numbers = rows.float()
    return numbers if column.divisor == 1.0 else numbers / column.divisor


def _net(spec: PolicySpec, name: Tower, num_outputs: int) -> torch.nn.ModuleDict:
    """A tower, if there is one of this name, and its head."""
    import torch

    parts: dict[str, torch.nn.Module] = {}
    if name in spec.towers:
        images = [_image_encoder(spec, column) for column in spec.observations.images]
        if images:
            parts["images"] = torch.nn.ModuleList(images)
        widths = (spec.trunk_width, *spec.hidden_sizes)
        hidden = [torch.nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        if hidden:
            parts["hidden"] = torch.nn.ModuleList(hidden)
        if spec.is_recurrent:
            cell = torch.nn.LSTM if spec.network.recurrent == "lstm" else torch.nn.GRU
            parts["recurrent"] = cell(widths[-1], spec.network.recurrent_size)
    parts["head"] = torch.nn.Linear(spec.feature_width, num_outputs)
    return torch.nn.ModuleDict(parts)


def _image_encoder(spec: PolicySpec, column: InputColumn) -> torch.nn.ModuleDict:
    import torch

    channels, height, width = column.image_shape
    shapes = image_encoders.conv_shapes(spec.image_net, channels)
    convs = [torch.nn.Conv2d(inputs, filters, kernel) for filters, inputs, kernel, _ in shapes]
    size = image_encoders.feature_size(spec.image_net, height, width)
    dense = torch.nn.Linear(size, image_encoders.DENSE_SIZES[spec.image_net])
    return torch.nn.ModuleDict({"convs": torch.nn.ModuleList(convs), "dense": dense})
