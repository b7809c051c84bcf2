"""A policy as a file that runs without shoal: ONNX for any runtime, TorchScript for libtorch.

    inputs    each column of observations as the environment gives it ("observation", "camera", ...), [N, *shape];
              action_mask [N, num_choices] bool where the environment gives masks; state [N, S] of a recurrent policy
    outputs   action [N, W], the likeliest, in the environment's numbers; parameters [N, P] of the action distribution;
              value [N]; next_state [N, S]

N may be anything. Normalisation, one-hot, offsets and bounds are inside, so the caller needs to know nothing but names
and shapes. The arithmetic is written here once more, of operations that can be traced for any N; ``difference`` holds
it to ``policy.py`` before a file is handed out. Used by ``shoal export``; imports torch, and onnx for ONNX.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import image_encoders
from .distributions import FORBIDDEN
from .modules import ActorCritic
from .normalization import LIMIT
from .policy import Policy
from .policy_spec import Tower
from .spaces import InputColumn
from .weights import Weights

if TYPE_CHECKING:
    import torch

Format = Literal["onnx", "torchscript"]
#: Version of ONNX's set of operations: the newest that runtimes of the last years all know.
OPSET = 17
_MASK, _STATE = "action_mask", "state"


@dataclass(frozen=True)
class Exported:
    """A policy that was made into a file."""

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def export(weights: Weights, file_format: Format, *, has_masks: bool, about: Mapping[str, str]) -> Exported:
    """Make a file of a policy.

    Args:
      weights: The policy, with what its observations are normalised by.
      file_format: Of the file.
      has_masks: Whether the environment gives action masks.
      about: What to write into an ONNX file beside the shape of the policy: environment, steps, ...
    """
    import torch

    module, example = _traceable(weights, has_masks=has_masks), examples(weights, 2, has_masks=has_masks)
    inputs = tuple(example)
    outputs = ("action", "parameters", "value", *(["next_state"] if weights.spec.is_recurrent else []))
    tensors = tuple(torch.from_numpy(column) for column in example.values())
    written = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Both ways of tracing tell that newer ones exist. Those want onnxscript, or fix the number of rows.
        warnings.simplefilter("ignore")
        if file_format == "torchscript":
            torch.jit.save(torch.jit.trace(module, tensors), written)  # type: ignore[no-untyped-call]
            return Exported(written.getvalue(), inputs, outputs)
        axes = {name: {0: "rows"} for name in (*inputs, *outputs)}
        torch.onnx.export(
            module, tensors, written,  # type: ignore[arg-type]
            input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    return Exported(_described(written.getvalue(), weights, about), inputs, outputs)


def examples(weights: Weights, count: int, *, has_masks: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of some rows, by name: random observations of the right kind, masks that allow something, states.

    Observations that are normalised are such as the policy has learned from, and in every fourth row far beyond.
    """
    rng, spec = np.random.default_rng(seed), weights.spec
    rows = {column.name: _random(column, count, rng) for column in spec.observations.columns}
    for name, normalizer in weights.normalizers.items():
        rows[name][::4] *= 2.0 * LIMIT
        rows[name] = rows[name] / normalizer.scale + normalizer.mean
    if has_masks:
        rows[_MASK] = _random_masks(spec.actions.sizes, count, rng)
    if spec.is_recurrent:
        rows[_STATE] = rng.uniform(-1.0, 1.0, (count, spec.state_size)).astype(np.float32)
    return rows


def difference(exported: Exported, file_format: Format, weights: Weights, *, has_masks: bool) -> float:
    """The largest difference between what the file gives and what ``policy.py`` does, over all outputs, on 32 rows.

    Returns:
      Of real numbers, as a part of the largest number of the output where that is over 1; an action that is another
      choice counts as infinite.
    """
    rows = examples(weights, 32, has_masks=has_masks, seed=1)
    policy, spec = Policy(weights), weights.spec
    columns = {column.name: rows[column.name] for column in spec.observations.columns}
    states = rows.get(_STATE, np.zeros((32, 0), np.float32))
    acted = policy.step(columns, states)
    values = policy.values(columns, states) if acted.values is None else acted.values
    actions, _ = policy.act(columns, states, rows.get(_MASK), deterministic=True)
    expected = {"action": actions, "parameters": acted.parameters, "value": values, "next_state": acted.states}
    largest = 0.0
    for name, given in _run(exported, file_format, rows).items():
        apart = float(np.abs(given.astype(np.float64) - expected[name]).max() / max(1.0, np.abs(expected[name]).max()))
        chosen = np.array(spec.actions.is_choice) if name == "action" else np.zeros(1, bool)
        if chosen.any() and not np.array_equal(given[:, chosen], actions[:, chosen]):
            return math.inf
        largest = max(largest, apart)
    return largest


def _run(exported: Exported, file_format: Format, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    if file_format == "torchscript":
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # as in `export`
            module = torch.jit.load(io.BytesIO(exported.content))  # type: ignore[no-untyped-call]
            given = [tensor.numpy() for tensor in module(*(torch.from_numpy(rows[name]) for name in exported.inputs))]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(exported.content, providers=["CPUExecutionProvider"])
        given = session.run(list(exported.outputs), dict(rows))
    return dict(zip(exported.outputs, given, strict=True))


def _described(content: bytes, weights: Weights, about: Mapping[str, str]) -> bytes:
    """The model with what it is of in its metadata."""
    import onnx

    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {**about, "policy_spec": json.dumps(weights.spec.to_dict())})
    onnx.checker.check_model(model)
    described: bytes = model.SerializeToString()
    return described


def _traceable(weights: Weights, *, has_masks: bool) -> torch.nn.Module:
    import torch

    policy = ActorCritic(weights.spec, 0)
    policy.nets.load_state_dict({name: torch.tensor(array) for name, array in weights.arrays.items()})
    arithmetic = _Arithmetic(policy.nets, weights)

    class Traceable(torch.nn.Module):
        """Holds the weights, as tracing wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.nets = policy.nets

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows = iter(inputs)
            columns = {column.name: next(rows) for column in weights.spec.observations.columns}
            masks = next(rows) if has_masks else None
            return arithmetic(columns, masks, next(rows) if weights.spec.is_recurrent else None)

    return Traceable().eval()


class _Arithmetic:
    """What a policy computes, of tensor operations that hold for any number of rows."""

    def __init__(self, nets: torch.nn.ModuleDict, weights: Weights) -> None:
        self._nets, self._weights, self._spec = nets, weights, weights.spec

    def __call__(
        self, columns: Mapping[str, torch.Tensor], masks: torch.Tensor | None, states: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        import torch

        spec, size = self._spec, self._spec.tower_state_size
        features, next_state = self._tower("policy", columns, None if states is None else states[:, :size])
        parameters = self._nets["policy"]["head"](features)  # type: ignore[index]
        if self._weights.arrays.get("log_stds") is not None:
            log_stds = self._nets.get_parameter("log_stds").unsqueeze(0)
            parameters = torch.cat([parameters, log_stds.expand(parameters.shape[0], -1)], 1)
        if not spec.shares_tower:
            features, more = self._tower("value", columns, None if states is None else states[:, size:])
            next_state = None if next_state is None or more is None else torch.cat([next_state, more], 1)
        value = self._nets["value"]["head"](features)[:, 0]  # type: ignore[index]
        action = self._action(parameters, masks)
        return (action, parameters, value) if next_state is None else (action, parameters, value, next_state)

    def _tower(
        self, tower: Tower, columns: Mapping[str, torch.Tensor], states: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features [N, F] and the recurrent state behind them."""
        import torch

        spec, net = self._spec, dict(self._nets[tower].items())  # type: ignore[operator]
        parts: list[torch.Tensor] = []
        for column, encoder in zip(spec.observations.images, net.get("images", ()), strict=True):
            images = image_encoders.as_images(
                self._normalized(column, columns[column.name]),
                channels_first=column.channels_first,
                divisor=column.divisor,
            )
            weights, biases = zip(*((conv.weight, conv.bias) for conv in encoder["convs"]), strict=True)
            parts.append(encoder["dense"](image_encoders.feature_maps(spec.image_net, weights, biases, images)).relu())
        parts += [self._flat(column, columns[column.name]) for column in spec.observations.flat_columns]
        features = torch.cat(parts, 1)
        for layer in net.get("hidden", ()):
            features = getattr(torch.nn.functional, spec.network.activation)(layer(features))
        if states is None:
            return features, None
        count = 2 if spec.network.recurrent == "lstm" else 1
        before = tuple(part.contiguous() for part in states.unsqueeze(0).chunk(count, 2))
        outputs, after = net["recurrent"](features.unsqueeze(0), before if count == 2 else before[0])
        return outputs[0], torch.cat(after, 2)[0] if count == 2 else after[0]

    def _flat(self, column: InputColumn, values: torch.Tensor) -> torch.Tensor:
        import torch

        rows = self._normalized(column, values).reshape(-1, math.prod(column.shape))
        if column.kind != "choices":
            return rows.float() / column.divisor
        hot = [
            rows[:, place : place + 1] - start == torch.arange(size)
            for place, (size, start) in enumerate(zip(column.sizes, column.starts, strict=True))
        ]
        return torch.cat(hot, 1).float()

    def _normalized(self, column: InputColumn, values: torch.Tensor) -> torch.Tensor:
        import torch

        normalizer = self._weights.normalizers.get(column.name)
        if normalizer is None:
            return values
        mean, scale = torch.from_numpy(normalizer.mean), torch.from_numpy(normalizer.scale)
        return ((values.float() - mean) * scale).clamp(-LIMIT, LIMIT)

    def _action(self, parameters: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """The likeliest action in the environment's numbers, [N, W]: int64, or float32 if any number is real."""
        import torch

        actions = self._spec.actions
        choices, reals = sum(actions.sizes), len(actions.low)
        logits = parameters[:, :choices]
        if masks is not None:
            logits = torch.where(masks, logits, torch.tensor(FORBIDDEN))
        parts = torch.split(logits, list(actions.sizes), 1) if choices else ()
        chosen = [part.argmax(1, keepdim=True) + start for part, start in zip(parts, actions.starts, strict=True)]
        if not reals:
            return torch.cat(chosen, 1)
        low, high = torch.tensor(actions.low), torch.tensor(actions.high)
        means = parameters[:, choices : choices + reals]
        if actions.is_squashed:
            means = low + 0.5 * (high - low) * (1.0 + means.tanh())
        bounded = iter(torch.split(torch.minimum(torch.maximum(means, low), high), 1, 1))
        rest = iter(chosen)
        return torch.cat([next(rest).float() if is_choice else next(bounded) for is_choice in actions.is_choice], 1)


def _random(column: InputColumn, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = (count, *column.shape)
    if column.kind == "choices":
        parts = [rng.integers(0, size, count) for size in column.sizes]
        rows: np.ndarray = (np.stack(parts, 1) + np.array(column.starts)).reshape(shape)
        return rows
    if column.divisor != 1.0:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def _random_masks(sizes: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    parts: list[Any] = []
    for size in sizes:
        part = rng.random((count, size)) < 0.5
        part[np.arange(count), rng.integers(0, size, count)] = True
        parts.append(part)
    return np.concatenate(parts, 1)
