"""CartPole and Pendulum as equations over thousands of copies, see ``batched.py``.

The same equations in the same order as in gymnasium's ``CartPole-v1`` and ``Pendulum-v1``, in float64 like there, so a
step from the same state gives the same numbers to rounding. What differs is where episodes start: the distributions are
gymnasium's, the generator is counter-based (``batched.uniform``).

Sources: Barto, Sutton, Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control
problems"; Florian 2007, "Correct equations for the dynamics of the cart-pole system" (eq. 23, 24, without friction).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .batched import Dynamics, uniform

if TYPE_CHECKING:
    import gymnasium


class CartPole:
    """A pole on a cart that is pushed left (0) or right (1); reward 1 a step, until the pole leans or the cart is off.

    States: position x [m], its speed, angle theta [rad], its speed. Observations: the same as float32.
    """

    state_size = 4
    time_limit = 500

    _GRAVITY, _CART, _POLE, _HALF_LENGTH, _PUSH, _SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
    _FARTHEST, _STEEPEST = 2.4, 12 * 2 * math.pi / 360

    def __init__(self) -> None:
        from gymnasium import spaces

        high = np.array([2 * self._FARTHEST, np.inf, 2 * self._STEEPEST, np.inf], np.float32)
        self.observation_space: gymnasium.Space[Any] = spaces.Box(-high, high, dtype=np.float32)
        self.action_space: gymnasium.Space[Any] = spaces.Discrete(2)

    def start(self, seeds: np.ndarray) -> np.ndarray:
        """All four numbers uniform in [-0.05, 0.05]."""
        return uniform(seeds, 4) * 0.1 - 0.05

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``Dynamics``. Euler's method, 0.02 s."""
        pushes = actions[:, 0]
        if pushes.view(np.uint64).max() > 1:  # a negative number is a huge one when read without its sign
            wrong = pushes[(pushes != 0) & (pushes != 1)][0]
            raise ValueError(f"action {wrong} is none of CartPole's: 0 pushes left, 1 right")
        x, x_speed, angle, angle_speed = states
        mass, pole = self._CART + self._POLE, self._POLE * self._HALF_LENGTH
        force = pushes * (2.0 * self._PUSH) - self._PUSH
        cosine, sine = np.cos(angle), np.sin(angle)
        pull = (force + pole * np.square(angle_speed) * sine) / mass
        angle_acceleration = (self._GRAVITY * sine - cosine * pull) / (
            self._HALF_LENGTH * (4.0 / 3.0 - self._POLE * np.square(cosine) / mass)
        )
        x_acceleration = pull - pole * angle_acceleration * cosine / mass
        x += self._SECONDS * x_speed
        x_speed += self._SECONDS * x_acceleration
        angle += self._SECONDS * angle_speed
        angle_speed += self._SECONDS * angle_acceleration
        return np.ones(len(x)), (np.abs(x) > self._FARTHEST) | (np.abs(angle) > self._STEEPEST)

    def observe(self, states: np.ndarray, into: np.ndarray) -> None:
        """See ``Dynamics``."""
        into[...] = states.T


class Pendulum:
    """A pendulum to be swung up and held by a torque in [-2, 2]; the cost is of angle, speed and torque, squared.

    States: angle from upright [rad], its speed. Observations: cosine, sine, speed; float32.
    """

    state_size = 2
    time_limit = 200

    _GRAVITY, _MASS, _LENGTH, _SECONDS = 10.0, 1.0, 1.0, 0.05
    _FASTEST, _STRONGEST = 8.0, 2.0

    def __init__(self) -> None:
        from gymnasium import spaces

        high = np.array([1.0, 1.0, self._FASTEST], np.float32)
        self.observation_space: gymnasium.Space[Any] = spaces.Box(-high, high, dtype=np.float32)
        self.action_space: gymnasium.Space[Any] = spaces.Box(-self._STRONGEST, self._STRONGEST, (1,), np.float32)

    def start(self, seeds: np.ndarray) -> np.ndarray:
        """Angle uniform in [-pi, pi], speed in [-1, 1]."""
        states: np.ndarray = (uniform(seeds, 2) * 2.0 - 1.0) * np.array([[math.pi], [1.0]])
        return states

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``Dynamics``. Semi-implicit Euler, 0.05 s; never ends by itself."""
        angle, speed = states
        torque = np.clip(actions[:, 0], -self._STRONGEST, self._STRONGEST)  # float32, as gymnasium gets it
        deviation = (angle + math.pi) % (2 * math.pi) - math.pi
        costs = deviation**2 + 0.1 * speed**2 + 0.001 * (torque**2)
        gravity = 3 * self._GRAVITY / (2 * self._LENGTH)
        speed += (gravity * np.sin(angle) + 3.0 / (self._MASS * self._LENGTH**2) * torque) * self._SECONDS
        np.clip(speed, -self._FASTEST, self._FASTEST, out=speed)
        angle += speed * self._SECONDS
        return -costs, np.zeros(len(angle), bool)

    def observe(self, states: np.ndarray, into: np.ndarray) -> None:
        """See ``Dynamics``."""
        np.cos(states[0], out=into[:, 0], casting="same_kind")
        np.sin(states[0], out=into[:, 1], casting="same_kind")
        into[:, 2] = states[1]


#: Environments that have equations here, by the name of the ordinary environment that they equal.
CLASSIC: dict[str, Callable[[], Dynamics]] = {"CartPole-v1": CartPole, "Pendulum-v1": Pendulum}
