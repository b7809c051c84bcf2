"""What `shoal bench simulation` simulates, the same for shoal and its peers: rollouts of Pendulum-v1, some long, some
short, as in Table 4 of the Ray paper (Moritz et al. 2018, arXiv:1712.05889).

The lengths are uniform in 10..1000; the i-th rollout of a run has the i-th of `lengths`, whoever plays it, and when. A
batch is three rollouts for each worker. Torques are random, and drawn before the clock starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

#: Steps of a rollout, least and most.
SHORTEST, LONGEST = 10, 1000
#: Rollouts of a batch, for each worker.
PER_WORKER = 3
#: Torques that are drawn once and used again and again.
_NUM_TORQUES = 1024

#: Steps for which one that sleeps does so at once.
_STEPS_OF_SLEEP = 10

#: Number and steps of a rollout that is asked for.
Request = tuple[int, int]
#: Observations [T, 3] and rewards [T], float32, of one rollout after another.
Played = tuple[np.ndarray, np.ndarray]


def lengths(seed: int, count: int) -> list[int]:
    """Steps of a run's first rollouts."""
    drawn: list[int] = np.random.default_rng(seed).integers(SHORTEST, LONGEST + 1, count).tolist()
    return drawn


class Environment(Protocol):
    """What rollouts need of one."""

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(self, action: np.ndarray, /) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]: ...


class Sleeping:
    """In the place of Pendulum-v1 where there are more workers than cores: steps take time, but no processor.

    The k-th step ends `k * step_s` seconds after the reset: who is woken late does not fall behind. It sleeps for ten
    steps at once, as to be woken takes time of the processor, and all of them together are woken often.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._steps, self._began_s = 0, 0.0
        self._observation = np.zeros(3, np.float32)

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The episode's clock starts; nothing in it is random."""
        self._steps, self._began_s = 0, time.monotonic()
        return self._observation, {"seed": seed}

    def step(self, action: np.ndarray, /) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Nothing, or every tenth time sleep until the step is due."""
        self._steps += 1
        if self._steps % _STEPS_OF_SLEEP == 0:
            time.sleep(max(0.0, self._began_s + self._steps * self._step_s - time.monotonic()))
        return self._observation, action[0], False, False, {}


class Simulator:
    """Plays rollouts: the actor of shoal, and what the processes of others hold.

    Args:
      step_s: Seconds that a step sleeps; 0: Pendulum-v1 is simulated.
    """

    def __init__(self, step_s: float) -> None:
        if step_s:
            self._env: Environment = Sleeping(step_s)
        else:
            import gymnasium

            self._env = gymnasium.make("Pendulum-v1", max_episode_steps=LONGEST)
        self._torques = np.random.default_rng(0).uniform(-2.0, 2.0, (_NUM_TORQUES, 1)).astype(np.float32)
        self.play([(0, 1)])  # the first step is slower than others

    def pid(self) -> int:
        """Of the process that it is in."""
        return os.getpid()

    def play(self, requests: Sequence[Request]) -> Played:
        """Episodes, one after another; the number of each is its seed."""
        steps = sum(length for _, length in requests)
        observations, rewards = np.empty((steps, 3), np.float32), np.empty(steps, np.float32)
        row = 0
        for number, length in requests:
            observation, _ = self._env.reset(seed=number)
            for t in range(length):
                observations[row] = observation
                observation, rewards[row], *_ = self._env.step(self._torques[t % _NUM_TORQUES])
                row += 1
        return observations, rewards
