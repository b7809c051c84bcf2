"""The shape of a policy: all that acting and learning must agree on besides the weights.

``acting_nets.py`` builds the nets in numpy from it, ``modules.py`` in torch, ``dense_nets.py`` small ones in numpy to
learn. Either net is a tower with a head:

    images   -> convolutions -> dense layer ─┐
    all else -> flat numbers ────────────────┴> hidden layers -> LSTM or GRU -> head

Hidden layers are left out where there are only images: a convolutional net ends with a dense layer of its own. The
critic has a tower of its own, or its head sits on the policy's. A recurrent state is one row of numbers:

    [ policy h | policy c | critic h | critic c ]     c for an LSTM, the critic's where it has a tower
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ...core.scheduling.memory import memory_bytes
from ...envs.actions import ActionLayout
from ...envs.columns import UnsupportedSpace, column_specs
from ..capacity import gigabytes
from ..config import ConfigError, require
from .image_encoders import DENSE_SIZES, ImageNet, conv_shapes, feature_size
from .spaces import ActionSpec, InputColumn, Network, ObservationSpec

if TYPE_CHECKING:
    import gymnasium

Tower = Literal["policy", "value"]
_FLOAT_BYTES = 4  # of a number in float32


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What a config says about the nets. The configs of algorithms with such nets are children of this, too."""

    network: Network = "auto"
    """What sees images: nature_cnn is small and fast, impala_cnn larger and often better, mlp takes them for numbers.
    auto is nature_cnn for images of bytes with 36 pixels or more on each side, and mlp for all else."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of the policy's and of the critic's net. What a convolutional net makes of images
    joins all other observations in front of them; where there are only images, its own dense layer is the last."""

    activation: Literal["tanh", "relu", "elu"] = "tanh"
    """What follows each hidden layer. Convolutional nets always have relu."""

    shared_value_net: bool | None = None
    """Let the critic share all but its last layer with the policy. None: where there are images; two separate nets are
    better on simple control, and twice the work."""

    recurrent: Literal["none", "lstm", "gru"] = "none"
    """A memory behind the hidden layers, for environments that do not show all. Then minibatches are made of whole
    sequences, at least one each."""

    recurrent_size: int = 128
    """Width of the memory."""

    sequence_length: int = 32
    """Steps through which gradients flow back in time, at most rollout_steps."""

    log_std: Literal["state_independent", "predicted"] = "state_independent"
    """Whether the deviation of continuous actions is a parameter of its own, or comes from the policy's net."""

    initial_log_std: float = 0.0
    """Logarithm of the deviation that continuous actions begin with, in the environment's units: 0 is a deviation of 1,
    -2 of 0.14. Robots whose actions are from -1 to 1 learn better gaits from small ones (Andrychowicz et al. 2021)."""

    squash: bool = False
    """Squash continuous actions into their bounds by tanh. Off, they are clipped to them, outside the policy."""

    def check_network(self) -> None:
        """Look at the numbers.

        Raises:
          ConfigError: one is out of range.
        """
        for field in ("recurrent_size", "sequence_length"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        widths_are_right = len(self.hidden_sizes) > 0 and min(self.hidden_sizes) >= 1
        require(self, "hidden_sizes", widths_are_right, "one or more widths of at least 1")

    def network_settings(self) -> NetworkSettings:
        """These alone, where this is all of a config."""
        return NetworkSettings(**{field.name: getattr(self, field.name) for field in fields(NetworkSettings)})


@dataclass(frozen=True)
class PolicySpec:
    """The shape of a policy: all that is needed besides the weights."""

    observations: ObservationSpec
    actions: ActionSpec
    network: NetworkSettings = NetworkSettings()

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels with each version of the weights: as bytes, 1 us instead of 28, and whoever gets it again gets the
        # same object, with all that was computed from it.
        return _unpacked, (self._packed,)

    @property
    def image_net(self) -> ImageNet:
        """What images pass through."""
        return "impala_cnn" if self.network.network == "impala_cnn" else "nature_cnn"

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers that there are."""
        return self.network.hidden_sizes if self.observations.flat_columns else ()

    @property
    def shares_tower(self) -> bool:
        """Whether the critic's head sits on the policy's tower. If not said: where there are images. Two separate nets
        are clearly better on simple control (Andrychowicz et al. 2021), two convolutional ones twice the work.
        """
        shared = self.network.shared_value_net
        return bool(self.observations.images) if shared is None else shared

    @property
    def towers(self) -> tuple[Tower, ...]:
        """Which nets have a tower of their own."""
        return ("policy",) if self.shares_tower else ("policy", "value")

    @property
    def is_recurrent(self) -> bool:
        """Whether acting depends on what came before."""
        return self.network.recurrent != "none"

    @cached_property
    def tower_state_size(self) -> int:
        """Numbers of one tower's recurrent state."""
        if not self.is_recurrent:
            return 0
        return self.network.recurrent_size * (2 if self.network.recurrent == "lstm" else 1)

    @cached_property
    def state_size(self) -> int:
        """S, the numbers of a recurrent state; 0 without recurrence."""
        return self.tower_state_size * len(self.towers)

    @property
    def trunk_width(self) -> int:
        """Numbers that enter the hidden layers, or what follows if there are none."""
        dense = DENSE_SIZES[self.image_net] * len(self.observations.images)
        return dense + self.observations.flat_width

    @property
    def feature_width(self) -> int:
        """Numbers that a head sees."""
        if self.is_recurrent:
            return self.network.recurrent_size
        return (self.trunk_width, *self.hidden_sizes)[-1]

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every array that ``Weights.arrays`` of this spec holds, named as in the state_dict of
        ``modules.ActorCritic.nets``.
        """
        return dict(self._array_shapes)

    @cached_property
    def _packed(self) -> bytes:
        return pickle.dumps((self.observations, self.actions, self.network), protocol=5)

    @cached_property
    def _array_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        if self.actions.low and not self.actions.predicts_log_std:
            shapes["log_stds"] = (len(self.actions.low),)
        for net, num_outputs in (("policy", self.actions.distribution.num_outputs), ("value", 1)):
            if net in self.towers:
                shapes |= {f"{net}.{name}": shape for name, shape in self._tower_shapes().items()}
            shapes |= _dense(f"{net}.head", self.feature_width, num_outputs)
        return shapes

    def check_size(self, setting: str = "env") -> None:
        """Make sure that a policy of this shape can learn here.

        Args:
          setting: Which one told of the spaces.

        Raises:
          ConfigError: weights, gradient and what Adam remembers need more memory than there is here; names what is
            to be smaller: widths, if with the usual ones they would not.
        """
        needed, there = 4 * _FLOAT_BYTES * self.num_weights, memory_bytes()
        if needed <= there:
            return
        told = f"has {self.num_weights:,} weights, and needs {gigabytes(needed)} to learn; there are"
        for width in ("hidden_sizes", "recurrent_size"):
            usual = dataclasses.replace(self.network, **{width: getattr(NetworkSettings, width)})
            if 4 * _FLOAT_BYTES * dataclasses.replace(self, network=usual).num_weights <= there:
                raise ConfigError(f"{width}: a policy of such width {told} {gigabytes(there)} here: take less")
        raise ConfigError(
            f"{setting}: a policy for these spaces {told} {gigabytes(there)} here: take smaller spaces, or smaller "
            f"hidden_sizes"
        )

    @property
    def num_weights(self) -> int:
        """Numbers in all arrays."""
        return sum(math.prod(shape) for shape in self.array_shapes().values())

    def _tower_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index, column in enumerate(self.observations.images):
            shapes |= self._image_shapes(f"images.{index}", column)
        widths = (self.trunk_width, *self.hidden_sizes)
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            shapes |= _dense(f"hidden.{layer}", inputs, outputs)
        if self.is_recurrent:
            size = self.network.recurrent_size
            gates = size * (4 if self.network.recurrent == "lstm" else 3)
            shapes |= {"recurrent.weight_ih_l0": (gates, widths[-1]), "recurrent.weight_hh_l0": (gates, size)}
            shapes |= {"recurrent.bias_ih_l0": (gates,), "recurrent.bias_hh_l0": (gates,)}
        return shapes

    def _image_shapes(self, prefix: str, column: InputColumn) -> dict[str, tuple[int, ...]]:
        channels, height, width = column.image_shape
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, shape in enumerate(conv_shapes(self.image_net, channels)):
            shapes |= {f"{prefix}.convs.{layer}.weight": shape, f"{prefix}.convs.{layer}.bias": shape[:1]}
        size = feature_size(self.image_net, height, width)
        return shapes | _dense(f"{prefix}.dense", size, DENSE_SIZES[self.image_net])

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "observations": [dataclasses.asdict(column) for column in self.observations.columns],
            "actions": self.actions.to_dict(),
            "network": dataclasses.asdict(self.network),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PolicySpec:
        """The inverse of ``to_dict``, also after a trip through JSON.

        Raises:
          KeyError, TypeError: something is missing, or there is too much.
        """
        columns = tuple(InputColumn(**_tuples(column)) for column in fields["observations"])
        network = NetworkSettings(**_tuples(fields["network"]))
        return cls(ObservationSpec(columns), ActionSpec.from_dict(fields["actions"]), network)


def _unpacked(packed: bytes) -> PolicySpec:
    return _spec_of(packed)


@lru_cache(maxsize=16)
def _spec_of(packed: bytes) -> PolicySpec:
    return PolicySpec(*pickle.loads(packed))  # noqa: S301  part of a pickle that is being loaded


def policy_spec(
    env_id: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    network: NetworkSettings,
) -> PolicySpec:
    """The policy that fits these spaces.

    Args:
      env_id: For messages.
      observation_space: Without the action mask, if observations carry one.
      action_space: Of one environment.
      network: What the nets shall be like.

    Raises:
      ConfigError: a space is of a kind that is not supported, or does not fit the network; one line.
    """
    try:
        specs = column_specs(observation_space)
    except UnsupportedSpace as error:
        raise ConfigError(f"env: {env_id!r} has observations {observation_space}: {error}") from error
    try:
        layout = ActionLayout.of(action_space)
    except UnsupportedSpace as error:
        raise ConfigError(f"env: {env_id!r} has actions {action_space}: {error}") from error
    actions = ActionSpec.of(layout, predicts_log_std=network.log_std == "predicted", is_squashed=network.squash)
    return PolicySpec(ObservationSpec.of(specs, network.network), actions, network)


def check_fits(
    spec: PolicySpec,
    env_id: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    setting: str = "env",
) -> None:
    """Make sure that a policy of this shape, from a checkpoint, can act in these spaces.

    Args:
      setting: Which one named the environment.

    Raises:
      ConfigError: it cannot; says what the environment has and what the policy is for.
    """
    fitting = policy_spec(env_id, observation_space, action_space, spec.network)
    if fitting != spec:
        raise ConfigError(
            f"{setting}: {env_id!r} has {_described(fitting)}; the checkpoint's policy is for {_described(spec)}: "
            f"give the environment that it learnt in, or train anew"
        )


def told_apart(saved: PolicySpec, wanted: PolicySpec) -> str:
    """In which way two policies differ, the first from a checkpoint, as the end of a sentence."""
    ours, theirs = (dataclasses.asdict(spec.network) for spec in (saved, wanted))
    settings = [name for name in ours if ours[name] != theirs[name]]
    if not settings:
        return f"is for {_described(saved)}, this run's for {_described(wanted)}"
    here = " and ".join(f"{name} {ours[name]}" for name in settings)
    return f"has {here}, this run's {' and '.join(str(theirs[name]) for name in settings)}"


def _described(spec: PolicySpec) -> str:
    columns = ", ".join(f"{column.name} {column.shape} ({column.kind})" for column in spec.observations.columns)
    parts = [f"choices of {spec.actions.sizes}"] if spec.actions.sizes else []
    parts += [f"real numbers from {spec.actions.low} to {spec.actions.high}"] if spec.actions.low else []
    return f"observations {columns} and actions {' and '.join(parts)}"


def _dense(prefix: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (outputs, inputs), f"{prefix}.bias": (outputs,)}


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has only lists; all sequences here are tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
