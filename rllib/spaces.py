"""From an environment's spaces to the shape of a policy. Refuses what no policy here can handle, in one line.

Called in the rollout workers, where the environments live; gymnasium is loaded there already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import ConfigError
from .distributions import Categorical, DiagonalGaussian, Distribution
from .weights import PolicySpec

if TYPE_CHECKING:
    import gymnasium


def policy_spec(
    env_id: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    hidden_sizes: tuple[int, ...],
) -> PolicySpec:
    """The policy that fits these spaces.

    Raises:
      ConfigError: a space is of a kind that is not supported; names the environment, the space and what is.
    """
    from gymnasium import spaces

    if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
        raise ConfigError(
            f"env: {env_id!r} has observations {observation_space}; supported are flat Box observations, shape (n,)"
        )
    return PolicySpec(observation_space.shape[0], _distribution(env_id, action_space), hidden_sizes)


def check_fits(
    spec: PolicySpec, env_id: str, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> None:
    """Make sure that a policy of this shape, from a checkpoint, can act in these spaces.

    Raises:
      ConfigError: it cannot; says what the environment has and what the policy is for.
    """
    fitting = policy_spec(env_id, observation_space, action_space, spec.hidden_sizes)
    if fitting != spec:
        raise ConfigError(
            f"env: {env_id!r} has observations of size {fitting.observation_size} and {fitting.distribution}; the "
            f"checkpoint's policy is for observations of size {spec.observation_size} and {spec.distribution}: "
            f"give the environment that it learnt in, or train anew"
        )


def _distribution(env_id: str, space: gymnasium.Space[Any]) -> Distribution:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return DiagonalGaussian(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise ConfigError(
        f"env: {env_id!r} has actions {space}; supported are Discrete, and Box of real numbers with shape (n,)"
    )
