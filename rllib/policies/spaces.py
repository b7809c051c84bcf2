"""What a policy takes in and gives out: an environment's columns and action layout, as learning needs them.

``ObservationSpec`` says of each column of observations what becomes of it: numbers that enter the net as they are,
choices that become one-hot, or an image for a convolutional net. ``ActionSpec`` says from which distribution actions
come, and how a sampled action becomes the environment's: choices counted from the space's start, real numbers clipped
to its bounds, or squashed into them. Both are plain values, for checkpoints, and know nothing of gymnasium.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ...envs.actions import ActionLayout
from ...envs.columns import Columns, ColumnSpec
from ..config import ConfigError
from .distributions import Categorical, DiagonalGaussian, Distribution, Product
from .image_encoders import SMALLEST_NATURE_IMAGE

Network = Literal["auto", "mlp", "nature_cnn", "impala_cnn"]


@dataclass(frozen=True)
class InputColumn:
    """One column of observations, and what becomes of it."""

    name: str
    kind: Literal["numbers", "choices", "image"]
    shape: tuple[int, ...]  #: of one row
    divisor: float = 1.0  #: of numbers and images: 255 for bytes, whose size would blow up the first update
    is_normalizable: bool = False  #: real numbers: may be shifted and scaled by running statistics
    sizes: tuple[int, ...] = ()  #: choices: how many each element has
    starts: tuple[int, ...] = ()  #: choices: the environment's number for the first of each element
    channels_first: bool = False  #: images: [C, H, W] instead of [H, W, C] or [H, W]

    @property
    def width(self) -> int:
        """Numbers that a row of it adds to the flat input of the net."""
        return sum(self.sizes) if self.kind == "choices" else math.prod(self.shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        channels, height, width = _image_shape(self.shape, channels_first=self.channels_first)
        return channels, height, width


@dataclass(frozen=True)
class ObservationSpec:
    """The columns of an observation."""

    columns: tuple[InputColumn, ...]

    @classmethod
    def of(cls, specs: Mapping[str, ColumnSpec], network: Network) -> ObservationSpec:
        """What becomes of these columns in such a network.

        Args:
          specs: By name, in the space's order.
          network: ``auto`` takes for images what is a Box of bytes with 2 or 3 dimensions that Nature CNN can take,
            ``nature_cnn`` every Box that it can take, ``impala_cnn`` every Box of 2 or 3 dimensions, ``mlp`` nothing.

        Raises:
          ConfigError: the network is convolutional, and there is no image.
        """
        columns = tuple(_input_column(name, spec, network) for name, spec in specs.items())
        if network in ("nature_cnn", "impala_cnn") and not any(column.kind == "image" for column in columns):
            shapes = ", ".join(f"{column.name} {column.shape}" for column in columns)
            least = f", {SMALLEST_NATURE_IMAGE} pixels or more on each side" if network == "nature_cnn" else ""
            raise ConfigError(f"network: {network} needs images, Boxes of 2 or 3 dimensions{least}; there are {shapes}")
        return cls(columns)

    @cached_property
    def images(self) -> tuple[InputColumn, ...]:
        """The images, in order."""
        return tuple(column for column in self.columns if column.kind == "image")

    @cached_property
    def flat_columns(self) -> tuple[InputColumn, ...]:
        """All but the images, in order."""
        return tuple(column for column in self.columns if column.kind != "image")

    @cached_property
    def normalizable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the columns that running statistics may shift and scale."""
        return {column.name: column.shape for column in self.columns if column.is_normalizable}

    @cached_property
    def flat_width(self) -> int:
        """Numbers that all but the images have together."""
        return sum(column.width for column in self.flat_columns)

    def flat(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat input of the net, [N, flat_width] float32: numbers and one-hot choices side by side."""
        if self.plain_column is not None and (numbers := observations[self.plain_column]).dtype == np.float32:
            return numbers  # the commonest case; what follows would lead to the same in 1 us
        parts = [_flat(column, observations[column.name]) for column in self.flat_columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def empty(self, *leading: int) -> Columns:
        """Room for observations, [*leading, *shape] each; real numbers in float32, whatever the environment has."""
        return {column.name: np.zeros((*leading, *column.shape), self._dtypes[column.name]) for column in self.columns}

    def as_columns(self, observations: np.ndarray | Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Columns, also of a bare array [N, ...] where there is only one."""
        if isinstance(observations, (dict, Mapping)):  # the first saves to ask Python code about the second
            return observations
        if len(self.columns) > 1:
            names = ", ".join(column.name for column in self.columns)
            raise TypeError(f"observations are a bare array; this policy takes a dict of columns: {names}")
        return {self.columns[0].name: observations}

    @cached_property
    def plain_column(self) -> str | None:
        """The flat column that is the flat input as it stands, but for its dtype; None if there is no such one."""
        if len(self.flat_columns) != 1:
            return None
        [column] = self.flat_columns
        return column.name if column.kind == "numbers" and len(column.shape) == 1 and column.divisor == 1.0 else None

    @cached_property
    def _dtypes(self) -> dict[str, type]:
        dtypes: dict[str, type] = {}
        for column in self.columns:
            is_bytes = column.divisor != 1.0
            dtypes[column.name] = np.int64 if column.kind == "choices" else np.uint8 if is_bytes else np.float32
        return dtypes


@dataclass(frozen=True)
class ActionSpec:
    """The numbers of an action, and how they become the environment's."""

    is_choice: tuple[bool, ...]  #: [W]: which numbers are choices, which are real
    sizes: tuple[int, ...] = ()  #: how many each choice has
    starts: tuple[int, ...] = ()  #: the environment's number for the first of each choice
    low: tuple[float, ...] = ()  #: bounds of each real number; may be infinite
    high: tuple[float, ...] = ()
    predicts_log_std: bool = False  #: real numbers: see ``DiagonalGaussian``
    is_squashed: bool = False  #: real numbers: tanh into the bounds, instead of clipping

    @classmethod
    def of(cls, layout: ActionLayout, *, predicts_log_std: bool, is_squashed: bool) -> ActionSpec:
        """The actions of this layout.

        Raises:
          ConfigError: squashing into bounds that are infinite.
        """
        boxes = [part for part in layout.parts if part.kind == "box"]
        spec = cls(
            is_choice=tuple(part.kind != "box" for part in layout.parts for _ in range(part.width)),
            sizes=tuple(size for part in layout.parts for size in part.nvec),
            starts=tuple(start for part in layout.parts for start in part.start),
            low=tuple(bound for part in boxes for bound in part.low),
            high=tuple(bound for part in boxes for bound in part.high),
            predicts_log_std=predicts_log_std and bool(boxes),
            is_squashed=is_squashed and bool(boxes),
        )
        if spec.is_squashed and not all(map(math.isfinite, (*spec.low, *spec.high))):
            raise ConfigError(f"squash: tanh needs finite bounds; the actions have {spec.low} to {spec.high}")
        return spec

    @cached_property
    def distribution(self) -> Distribution:
        """What actions are drawn from."""
        if not self.low:
            return Categorical(self.sizes)
        reals = DiagonalGaussian(len(self.low), self.predicts_log_std, self.is_squashed)
        return Product(Categorical(self.sizes), reals, self.is_choice) if self.sizes else reals

    def for_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the vector environment takes them.

        Args:
          actions: [N, W] as sampled.

        Returns:
          [N, W], choices counted from the space's start, real numbers within their bounds.
        """
        if not self.low:
            return actions + self._start_row if self._is_offset else actions
        if not self.sizes:
            return self._bounded(actions)
        sent = np.empty_like(actions)
        choices = np.array(self.is_choice)
        sent[:, choices] = actions[:, choices] + self._start_row
        sent[:, ~choices] = self._bounded(actions[:, ~choices])
        return sent

    def _bounded(self, reals: np.ndarray) -> np.ndarray:
        low, high = self._bounds
        if not self.is_squashed:
            return reals.clip(low, high)
        # Rounding may step over a bound by its last digit; environments check.
        bounded: np.ndarray = (low + 0.5 * (high - low) * (1.0 + np.tanh(reals))).clip(low, high)
        return bounded

    @cached_property
    def _is_offset(self) -> bool:
        return any(self.starts)

    @cached_property
    def _start_row(self) -> np.ndarray:
        return np.array(self.starts, np.int64)

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.low, np.float32), np.array(self.high, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; an infinite bound becomes None."""
        fields = dataclasses.asdict(self)
        for name in ("low", "high"):
            fields[name] = [bound if math.isfinite(bound) else None for bound in fields[name]]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ActionSpec:
        """The inverse of ``to_dict``."""
        low = tuple(-math.inf if bound is None else bound for bound in fields["low"])
        high = tuple(math.inf if bound is None else bound for bound in fields["high"])
        rest: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**{**rest, "low": low, "high": high})


def _input_column(name: str, spec: ColumnSpec, network: Network) -> InputColumn:
    if spec.kind in ("discrete", "multi_discrete"):
        starts = spec.start * (len(spec.nvec) if len(spec.start) == 1 else 1)
        return InputColumn(name, "choices", spec.shape, sizes=spec.nvec, starts=starts)
    is_bytes = spec.kind == "box" and spec.dtype == np.uint8
    divisor = 255.0 if is_bytes else 1.0
    if spec.kind == "box" and len(spec.shape) in (2, 3) and network != "mlp":
        # The smaller end has the channels: no image is as narrow as it has colours.
        channels_first = len(spec.shape) == 3 and spec.shape[0] < spec.shape[2]
        sides = _image_shape(spec.shape, channels_first=channels_first)[1:]
        if network == "impala_cnn" or (min(sides) >= SMALLEST_NATURE_IMAGE and (is_bytes or network == "nature_cnn")):
            return InputColumn(name, "image", spec.shape, divisor, channels_first=channels_first)
    is_normalizable = spec.kind == "box" and not is_bytes
    return InputColumn(name, "numbers", spec.shape, divisor, is_normalizable)


def _image_shape(shape: tuple[int, ...], *, channels_first: bool) -> tuple[int, int, int]:
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return shape if channels_first else (shape[2], shape[0], shape[1])  # type: ignore[return-value]


def _flat(column: InputColumn, values: np.ndarray) -> np.ndarray:
    """One column's part of the flat input, [N, width] float32."""
    rows = values.reshape(len(values), -1)
    if column.kind == "choices":
        return one_hot(column, rows)
    numbers = rows.astype(np.float32, copy=False)
    return numbers if column.divisor == 1.0 else numbers / np.float32(column.divisor)


def one_hot(column: InputColumn, rows: np.ndarray) -> np.ndarray:
    """[N, K] choices in the environment's numbers -> [N, sum of sizes] float32."""
    hot = np.zeros((len(rows), column.width), np.float32)
    offsets = np.cumsum((0, *column.sizes[:-1])) - np.array(column.starts)
    np.put_along_axis(hot, rows.astype(np.int64) + offsets, 1.0, axis=1)
    return hot
