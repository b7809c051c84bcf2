"""`--env external`: simulators outside the cluster play, and what a config says about them.

There are no environments here then, so their spaces must be told; and all that is said of environments of the cluster
must be left as it is. Algorithms that can learn so have a config that is child of ``ExternalSettings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..envs import registry, space_files
from ..envs.copies import EnvCopy
from .config import AlgorithmConfig, ConfigError, RolloutConfig, require

if TYPE_CHECKING:
    import gymnasium

#: The name of no environment: simulators play.
EXTERNAL = "external"
#: What has a meaning only for environments of the cluster.
_VOID = (
    "num_workers", "vector", "env_processes", "env_groups", "inference", "num_inference_actors", "inference_device",
    "env_checks", "collect", "max_in_flight", "normalize_rewards", "eval_episodes", "eval_interval_steps",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExternalSettings:
    """What a config says about simulators outside the cluster."""

    external_spaces: str | None = None
    """With env external, what the simulators observe and do: the name of an environment that has the same spaces, or a
    JSON file of them (FILE.json, see docs/external.md)."""

    external_silence_s: float = 60.0
    """With env external, seconds after which an episode of which nothing is heard is cut: the steps whose outcome is
    known are learned from."""

    def check_external(self, config: RolloutConfig) -> None:
        """Look at the values.

        Args:
          config: The whole config that they are of.

        Raises:
          ConfigError: one is out of range, or has no meaning here.
        """
        require(self, "external_silence_s", self.external_silence_s > 0.0, "greater than 0")
        fields = type(config).__dataclass_fields__
        if config.env == EXTERNAL:
            told = bool(self.external_spaces)
            require(self, "external_spaces", told, "an environment with the simulators' spaces, or a JSON file of them")
            for name in _VOID:
                if name in fields:
                    usual = fields[name].default
                    require(config, name, getattr(config, name) == usual, f"left at {usual!r} where env is external")
        else:
            for name in ExternalSettings.__dataclass_fields__:
                usual = fields[name].default
                require(config, name, getattr(config, name) == usual, f"left at {usual!r} where env is not external")


def check_supported(algorithm: str, config: object) -> ExternalSettings:
    """The settings of an algorithm that can learn from simulators.

    Raises:
      ConfigError: it cannot.
    """
    if not isinstance(config, ExternalSettings):
        raise ConfigError(f"env: {algorithm} does not learn from external simulators; ppo does")
    return config


def is_external(config: AlgorithmConfig | RolloutConfig) -> bool:
    """Whether simulators play."""
    return config.env == EXTERNAL


def spaces(settings: ExternalSettings) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """Observation space, without an action mask, and action space of the simulators.

    Raises:
      ConfigError: they cannot be known; one line.
      EnvFailure: the environment that has them cannot be made.
    """
    try:
        return spaces_at(settings.external_spaces or "")
    except (ValueError, registry.MissingLibrary) as error:
        raise ConfigError(f"external_spaces: {' '.join(str(error).split())}") from error


def spaces_at(place: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """Observation space, without an action mask, and action space.

    Args:
      place: The name of an environment that has them, or a JSON file of them.

    Raises:
      ValueError, MissingLibrary: there is no such thing.
      EnvFailure: the environment cannot be made.
    """
    if place.endswith(".json"):
        return space_files.read(Path(place))
    registry.check(place)
    copy = EnvCopy(partial(registry.make, place), 0)
    try:
        return copy.observation_space, copy.action_space
    finally:
        copy.close()
