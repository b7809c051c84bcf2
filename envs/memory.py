"""CartPole for policies that remember: positions are shown, velocities are not.

One observation does not tell which way cart and pole are moving, so a policy without memory cannot balance for long
(about 50 steps); two in a row do. As in the RL Zoo's ``CartPoleNoVel-v1``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

#: Which of CartPole's numbers are shown: the cart's position and the pole's angle.
SHOWN = (0, 2)


class CartPoleWithoutVelocities(gymnasium.ObservationWrapper[np.ndarray, np.int64, np.ndarray]):
    """CartPole-v1 with observations [2]: position, angle.

    Args:
      render_mode: As of CartPole.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        cart_pole: gymnasium.Env[Any, Any] = gymnasium.make(
            "CartPole-v1", render_mode=render_mode, disable_env_checker=True
        )
        super().__init__(cart_pole)
        whole = cart_pole.observation_space
        assert isinstance(whole, spaces.Box)
        self.observation_space = spaces.Box(whole.low[list(SHOWN)], whole.high[list(SHOWN)], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """What of the observation [4] is shown, [2]."""
        return observation[list(SHOWN)]
