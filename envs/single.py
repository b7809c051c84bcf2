"""One ordinary environment out of a vector environment, for whoever plays single episodes: evaluation, films.

A user who has only a vector environment (``my_games:make_vec``, called with ``num_envs``) is asked for one of one copy.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from .actions import MASK_KEY
from .foreign import Autoreset
from .libraries import Gymnasium


class Single(gymnasium.Env[Any, Any]):
    """The only copy of a vector environment, in any autoreset mode.

    Args:
      env: of one copy.

    Raises:
      ValueError: it does not say what it does when episodes end.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._vector = Gymnasium(env)
        self._env = env
        self.render_mode = env.render_mode
        self.metadata = env.metadata
        self.observation_space, self.action_space = self._vector.observation_space, self._vector.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        seeds = [int(self.np_random.integers(2**31))] if seed is None else [seed]
        observations, infos = self._vector.reset(seeds, None)
        return _first(observations), _infos(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self._vector.step(_alone(action))
        observation = _first(observations)
        if (terminated[0] or truncated[0]) and self._vector.autoreset is Autoreset.SAME_STEP:
            observation = _first(infos["final_obs"])
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _infos(infos)

    def render(self) -> Any:
        """What the copy shows."""
        frames = self._env.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the vector environment."""
        self._vector.close()


def _first(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _first(part) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(_first, batch))
    return batch[0]


def _alone(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _alone(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_alone, value))
    return np.asarray(value)[None]


def _infos(infos: dict[str, Any]) -> dict[str, Any]:
    return {MASK_KEY: infos[MASK_KEY][0]} if MASK_KEY in infos else {}
