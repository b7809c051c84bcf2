"""What can be laid around an environment by name, as in ``registry.make("Ant-v5+time_limit=500+frame_stack=4")``.

A wrapper that changes rewards tells the true ones too, so that the returns that are shown stay those of the task.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .columns import UnsupportedSpace
from .copies import SCORE_KEY

Outcome = tuple[Any, float, bool, bool, dict[str, Any]]
#: Most channels that a picture [C, H, W] has; with more in front the channels are taken to be last.
_MOST_CHANNELS = 4


class TimeLimit(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Cuts an episode (``truncated``) after some steps, unless it ends by itself in the same step.

    Args:
      env: What is wrapped; a time limit of its own stays, the shorter one counts.
      steps: At least 1.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], steps: int) -> None:
        super().__init__(env)
        self._steps = _at_least_1("time_limit", steps)
        self._done = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._done = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Outcome:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._done += 1
        return observation, float(reward), terminated, truncated or self._done >= self._steps, info


class ActionRepeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Does every action several times, or until the episode ends; rewards add up.

    Args:
      env: What is wrapped.
      times: At least 1.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], times: int) -> None:
        super().__init__(env)
        self._times = _at_least_1("action_repeat", times)

    def step(self, action: Any) -> Outcome:
        observation, reward, terminated, truncated, info = self.env.step(action)
        earned, score = float(reward), float(info.get(SCORE_KEY, reward))
        for _ in range(self._times - 1):
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(action)
            earned += float(reward)
            score += float(info.get(SCORE_KEY, reward))
        return observation, earned, terminated, truncated, {**info, SCORE_KEY: score}


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shows the last observations, oldest first; the first of an episode stands for those before it.

    Flat observations [D] become [count * D], pictures [H, W] become [count, H, W], pictures with channels get ``count``
    times as many, where their channels are.

    Args:
      env: What is wrapped; its observations are a Box.
      count: At least 1.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], count: int) -> None:
        super().__init__(env)
        box = env.observation_space
        if not isinstance(box, spaces.Box):
            raise UnsupportedSpace(f"frame_stack is for Box observations; these are {box}")
        self._count = _at_least_1("frame_stack", count)
        self._is_grey = len(box.shape) == 2
        self._axis = 2 if len(box.shape) == 3 and box.shape[0] > _MOST_CHANNELS else 0
        self._seen: deque[np.ndarray] = deque(maxlen=count)
        low, high = (self._joined([bound] * count) for bound in (box.low, box.high))
        self.observation_space = spaces.Box(low, high, dtype=box.dtype.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._seen.extend([np.array(observation)] * self._count)
        return self._joined(self._seen), info

    def step(self, action: Any) -> Outcome:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._seen.append(np.array(observation))
        return self._joined(self._seen), float(reward), terminated, truncated, info

    def _joined(self, frames: Any) -> np.ndarray:
        return np.stack(frames) if self._is_grey else np.concatenate([np.atleast_1d(f) for f in frames], self._axis)


class ClipReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards within bounds; by default by their sign, as for Atari games (Mnih et al. 2015).

    Args:
      env: What is wrapped.
      bound: Rewards are cut at plus and minus this; None takes their sign.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], bound: float | None = None) -> None:
        super().__init__(env)
        if bound is not None and not bound > 0:
            raise ValueError(f"clip_reward needs a bound above 0, not {bound}")
        self._bound = bound

    def step(self, action: Any) -> Outcome:
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward)
        clipped = float(np.sign(reward)) if self._bound is None else min(max(reward, -self._bound), self._bound)
        return observation, clipped, terminated, truncated, {SCORE_KEY: reward, **info}


def _at_least_1(name: str, count: int) -> int:
    if type(count) is not int or count < 1:  # it comes from a command line
        raise ValueError(f"{name} needs a whole number of at least 1, not {count!r}")
    return count
