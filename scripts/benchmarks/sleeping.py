"""Environments whose step takes a known time and no CPU: what waits for what is seen on few cores, too."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

#: Seconds of a step, and how many times longer the slow one's are.
STEP_S = 0.01
SLOWER = 20


class Quick(gymnasium.Env[np.ndarray, np.int64]):
    """Nothing to see and nothing to win, ``STEP_S`` a step; an episode has 100 steps."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    _step_s = STEP_S
    _steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode."""
        super().reset(seed=seed, options=options)
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Sleep, whatever the action."""
        time.sleep(self._step_s)
        self._steps += 1
        return np.zeros(1, np.float32), 0.0, self._steps >= 100, False, {}


class Slow(Quick):
    """The straggler."""

    _step_s = SLOWER * STEP_S
