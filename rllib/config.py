"""What every algorithm can be told: the base config, its checks, and its plain form for files.

One frozen dataclass per algorithm, all of them children of `AlgorithmConfig`. Each field has a type, a default and a
docstring with unit and reason: the command line shows these as flags and `--help`. A config that exists is a config
that passed its checks, because `__post_init__` runs them; a child adds its own by extending `__post_init__`.

Who uses this: algorithms define and read configs, `scripts` builds them from flags, checkpoints and run directories
keep them as JSON (`to_dict`, `from_dict`). Nothing below the algorithms sees a config: parts take plain arguments.
No torch and no gymnasium here: `shoal train --help` must not wait for them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from ..envs.opening import Vector
from ..envs.vector import Checks

C = TypeVar("C", bound="AlgorithmConfig")

#: What computes gradients.
LearnerChoice = Literal["auto", "numpy", "torch"]
#: What layers multiply in.
Precision = Literal["float32", "bfloat16"]


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, or out of range. One line of text: the field, its value, the choices.

    Raised before anything has been started; trying again with the same config cannot help.
    """


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Settings that every algorithm understands.

    Raises:
      ConfigError: a value is out of range.
    """

    env: str = "CartPole-v1"
    """Environment to learn: a gymnasium id, module:attribute for one of your own, or atari/GAME. Wrappers may follow:
    CartPole-v1+time_limit=200+frame_stack=4."""

    num_workers: int = 2
    """Workers that play, each an actor with its own process; at least 1. More than there are cores brings nothing."""

    env_checks: Literal["none", "finite", "bounds"] = "finite"
    """Which numbers of an environment end the run: NaN and infinite ones, these and observations outside their space,
    or none. Checking bounds costs some microseconds a step, and more for images."""

    total_steps: int = 150_000
    """Environment steps to train for, summed over all workers. Training stops after the iteration that reaches it."""

    seed: int = 0
    """Where every random stream starts, 0 or more. The same seed gives the same curve, for any number of workers."""

    eval_episodes: int = 20
    """Episodes of one evaluation, played by the frozen policy with its most likely actions; at least 1."""

    eval_interval_steps: int = 0
    """Environment steps between evaluations, played beside training; 0 evaluates only at the end."""

    checkpoint_interval_steps: int = 50_000
    """Environment steps between checkpoints; 0 saves only at the end. A crash loses at most this much work."""

    keep_checkpoints: int = 5
    """How many checkpoints stay, the newest, beside that of the best evaluation; 0 keeps all."""

    def __post_init__(self) -> None:
        validate(self)

    @property
    def checks(self) -> Checks:
        """What ``env_checks`` says, as environments take it: in training and in evaluation."""
        return Checks(finite=self.env_checks != "none", bounds=self.env_checks == "bounds")

    @property
    def stepped_by(self) -> Vector:
        """What steps the environments in training, see ``envs.opening``."""
        return "serial"


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """What a config says about rollouts and about the learner that they are for. The configs of algorithms that learn
    by gradients from rollouts are children of this, too.
    """

    num_envs: int = 8
    """Environment copies in total, split over the workers; at least one each. More make larger policy batches."""

    vector: Vector = "serial"
    """What steps the copies of a worker: serial, one by one in its process; parallel, processes of its own over shared
    memory; batched, as arrays (CartPole-v1, Pendulum-v1); gymnasium, envpool or ale, vector environments of others."""

    env_processes: int = 0
    """Processes of each worker if vector is parallel; 0 takes as many as there are cores, but no more than copies."""

    env_groups: int = 1
    """Parts of each worker's copies that are stepped apart if vector is parallel or serial. With 2 the policy acts for
    one half while the other is stepped: with processes or inference actors, for large nets, or environments that wait,
    where there are cores to spare."""

    inference: Literal["local", "actor"] = "local"
    """Who picks the actions: local, each worker with nets of its own; actor, actors that answer the rows of several
    workers together. For nets so large that a batch costs little more than a row, as on a GPU, and many workers with
    few copies each; see docs/benchmarks.md. On a CPU the curve is the same, bit for bit."""

    num_inference_actors: int = 1
    """With actor, how many; each answers its share of the workers, so at most num_workers."""

    inference_device: Literal["cpu", "cuda", "auto"] = "cpu"
    """With actor, where they compute: cpu; cuda, a GPU that they share, not for recurrent policies; auto, a GPU if the
    session has one. On a GPU a row's last digits depend on the rows beside it, and so does the curve."""

    device: str = "auto"
    """Where the learner computes: auto (a GPU if there is one, but for nets so small that numpy is faster), cpu, cuda,
    cuda:1, mps."""

    learner: LearnerChoice = "auto"
    """What computes gradients: torch; or numpy, only nets without images and memory on a CPU, three to five times as
    fast for small ones, with the same results but for last digits. auto takes numpy where it is faster."""

    precision: Precision = "float32"
    """What the learner's layers multiply in. bfloat16 is faster on newer GPUs where nets are large; weights, the last
    layers and the loss stay float32."""

    compile: bool = False
    """Compile the learner's gradient step with torch.compile, on a GPU with CUDA graphs: takes a minute at the start,
    and needs a C++ compiler."""

    @property
    def stepped_by(self) -> Vector:
        """What ``vector`` says."""
        return self.vector

    def check_rollouts(self, num_workers: int) -> None:
        """Look at the values.

        Args:
          num_workers: Who shares the copies.

        Raises:
          ConfigError: one is out of range.
        """
        for name, least in _LEAST_OF_ROLLOUTS.items():
            require(self, name, getattr(self, name) >= least, f"at least {least}")
        require(self, "num_envs", self.num_envs >= num_workers, f"at least num_workers ({num_workers})")
        copies = self.num_envs // num_workers
        require(self, "env_groups", self.env_groups <= copies, f"at most the copies of a worker ({copies})")
        is_parted = self.env_groups == 1 or self.vector in ("parallel", "serial")
        require(self, "env_groups", is_parted, "1 where vector is neither parallel nor serial")
        is_alone = self.env_processes == 0 or self.vector == "parallel"
        require(self, "env_processes", is_alone, "0 where vector is not parallel")
        if self.inference == "actor":
            few = self.num_inference_actors <= num_workers
            require(self, "num_inference_actors", few, f"at most num_workers ({num_workers})")
        else:
            alone = "where inference is local"
            require(self, "num_inference_actors", self.num_inference_actors == 1, f"1 {alone}")
            require(self, "inference_device", self.inference_device == "cpu", f"cpu {alone}")
        device, _, index = self.device.partition(":")
        known = device in _DEVICES and (not index or (device == "cuda" and index.isdecimal()))
        require(self, "device", known and self.device[-1:] != ":", f"one of {', '.join(_DEVICES)}, or cuda:INDEX")


class RolloutConfig(Protocol):
    """What rollouts and learners read of a config: of all that is child of ``RolloutSettings`` and of
    ``AlgorithmConfig``.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def env(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def checks(self) -> Checks: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def num_envs(self) -> int: ...
    @property
    def vector(self) -> Vector: ...
    @property
    def env_processes(self) -> int: ...
    @property
    def env_groups(self) -> int: ...
    @property
    def inference(self) -> Literal["local", "actor"]: ...
    @property
    def num_inference_actors(self) -> int: ...
    @property
    def inference_device(self) -> Literal["cpu", "cuda", "auto"]: ...
    @property
    def device(self) -> str: ...
    @property
    def learner(self) -> LearnerChoice: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def compile(self) -> bool: ...


def validate(config: AlgorithmConfig) -> None:
    """Check the settings that every algorithm shares.

    Raises:
      ConfigError: names the first field that is wrong, its value, and what it may be.
    """
    if not config.env.strip():
        raise ConfigError("env is empty: name an environment, CartPole-v1 for instance")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        require(config, field.name, not isinstance(value, float) or math.isfinite(value), "a finite number")
    for name, least in _LEAST.items():
        require(config, name, getattr(config, name) >= least, f"at least {least}")


#: Least value that a whole number may have.
_LEAST = {
    "num_workers": 1,
    "total_steps": 1,
    "seed": 0,
    "eval_episodes": 1,
    "eval_interval_steps": 0,
    "checkpoint_interval_steps": 0,
    "keep_checkpoints": 0,
}
#: Likewise, of rollouts.
_LEAST_OF_ROLLOUTS = {"num_envs": 1, "env_processes": 0, "env_groups": 1, "num_inference_actors": 1}
_DEVICES = ("auto", "cpu", "cuda", "mps")


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def require(config: object, field: str, holds: bool, allowed: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Say in the common form that a field is out of range, unless it `holds`.

    Args:
      config: whose field it is.
      field: its name.
      holds: whether the value is right.
      allowed: the valid choices, completing "must be ...".

    Raises:
      ConfigError: "num_workers must be at least 1, not -2".
    """
    if not holds:
        raise ConfigError(f"{field} must be {allowed}, not {getattr(config, field)!r}")


def to_dict(config: Dataclass) -> dict[str, Any]:
    """The config as plain values that JSON can hold; tuples stay tuples, which JSON writes as lists."""
    return dataclasses.asdict(config)


def from_dict(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """Build a config from what `to_dict` gave, also after a trip through JSON. Fields left out take their defaults.

    Raises:
      ConfigError: a key that no field has, a value of another type than its field, or a value out of range.
    """
    annotations = typing.get_type_hints(cls)
    fields = {field.name: annotations[field.name] for field in dataclasses.fields(cls)}
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=3)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise ConfigError(f"{cls.__name__} has no field {key!r}{hint}: it has {', '.join(fields)}")
    return cls(**{key: _conform(key, value, fields[key]) for key, value in mapping.items()})


def _conform(field: str, value: Any, annotation: Any) -> Any:
    """The value as its annotation wants it: JSON's list becomes a tuple, a whole number may stand for a float."""
    try:
        return _as(annotation, value)
    except TypeError:
        raise ConfigError(f"{field} must be {_spelt(annotation)}, not {value!r}") from None


def _as(annotation: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        for choice in arguments:
            try:
                return _as(choice, value)
            except TypeError:
                continue
        raise TypeError
    if origin is typing.Literal:
        if value not in arguments:
            raise TypeError
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(each) != len(value):
            raise TypeError
        return tuple(_as(element, item) for element, item in zip(each, value, strict=True))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation is int and isinstance(value, bool):  # True is an int to Python, but nobody means 1 worker by it
        raise TypeError
    if not isinstance(value, annotation):
        raise TypeError
    return value


def _spelt(annotation: Any) -> str:
    """`int`, `float or None`, `one of 'a', 'b'`, `tuple of int`: an annotation in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spelt(choice) for choice in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        return "a list of " + " and ".join(_spelt(choice) for choice in arguments if choice is not Ellipsis)
    return "None" if annotation is type(None) else str(annotation.__name__)
