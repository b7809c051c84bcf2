"""Environments that show pictures and do nothing else: what a policy sees, without what a game costs."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

#: Pictures that are shown in turn.
_COUNT = 8


class Pictures(gymnasium.Env[np.ndarray, np.int64]):
    """84 x 84 pixels, 4 frames deep, as Atari games are seen; an episode has 100 steps."""

    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(6)
    _step_s = 0.0
    _steps = 0

    def __init__(self) -> None:
        self._shown = np.random.default_rng(0).integers(0, 256, (_COUNT, 84, 84, 4), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode."""
        super().reset(seed=seed, options=options)
        self._steps = 0
        return self._shown[0], {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The next picture, whatever the action."""
        if self._step_s:
            time.sleep(self._step_s)
        self._steps += 1
        return self._shown[self._steps % _COUNT], 0.0, self._steps >= 100, False, {}


class SlowPictures(Pictures):
    """The same from a simulator that takes 10 ms for a step somewhere else."""

    _step_s = 0.01
