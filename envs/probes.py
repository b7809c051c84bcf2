"""Toy environments whose values are known in closed form, and some that fail on purpose.

They test the learning code: where a critic can be exact, whatever differs from the formula is a bug. All follow the
gymnasium interface and are made by name: ``shoal.envs.probes:Corridor``. Chance is only that of their seed.

Each of these isolates one fault of a learner, if it passes those above (after Jones 2021, "Debugging reinforcement
learning systems"):

    ConstantReward     the critic's loss or its optimiser
    SignedReward       observations that do not reach the critic
    Delay              discounting, or the successor's value
    Advice             the advantage, or the policy's loss and its sign
    Choice, Target     observations that do not reach the policy; actions that are clipped or scaled wrongly
    Standstill         the value of what follows a time limit; ``standstill_*`` the same behind gymnasium's vector
                       environments, in each autoreset mode
    Recall             memory: recurrent states that are not kept, not reset, or other ones in training than in acting
    OneWay             masks that are not stored with the actions, or not applied in training
"""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Options = dict[str, Any] | None
Info = dict[str, Any]
#: observation, reward, terminated, truncated, info
Outcome = tuple[np.ndarray, float, bool, bool, Info]


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """Walk ``length`` steps, reward 1 each, whatever the action; the end is the task's (terminated).

    Observation: [1] float32, the position 0 .. length.
    V(position) = (1 - gamma ** (length - position)) / (1 - gamma).
    """

    def __init__(self, length: int = 5) -> None:
        self.observation_space = spaces.Box(0.0, float(length), (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._length = length
        self._position = 0

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        self._position = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> Outcome:
        self._position += 1
        return self._observation(), 1.0, self._position >= self._length, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self._position], np.float32)


class EndlessCorridor(Corridor):
    """A walk without end, reward 1 a step, watched for ``length`` steps at a time (truncated).

    V = 1 / (1 - gamma) everywhere, the last position too: a learner that takes the time limit for an end finds less.
    """

    def step(self, action: np.int64) -> Outcome:
        observation, reward, over, _, info = super().step(action)
        return observation, reward, False, over, info


class Standstill(EndlessCorridor):
    """As EndlessCorridor, but the observation is always 1. A critic can learn V = 1 / (1 - gamma), because the last
    observation of an episode is one that it is trained on.
    """

    def _observation(self) -> np.ndarray:
        return np.ones(1, np.float32)


class Choice(gymnasium.Env[np.ndarray, np.int64]):
    """One-step episodes: a sign is shown, the action that matches it earns 1, the other 0.

    Observation: [1] float32, -1 or 1; action 1 matches 1, action 0 matches -1. The best policy earns exactly 1.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._sign = 1

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        self._sign = int(self.np_random.integers(2)) * 2 - 1
        return np.array([self._sign], np.float32), {}

    def step(self, action: np.int64) -> Outcome:
        reward = float((action == 1) == (self._sign == 1))
        return np.array([self._sign], np.float32), reward, True, False, {}


class Lamp(Choice):
    """As Choice, but the sign is shown as an image [8, 8, 3] of bytes: noise, of which one half is brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        return self._image(), {}

    def step(self, action: np.int64) -> Outcome:
        _, reward, terminated, truncated, info = super().step(action)
        return self._image(), reward, terminated, truncated, info

    def _image(self) -> np.ndarray:
        image = self.np_random.integers(0, 128, (8, 8, 3))
        image[:, 4:] += 64 * (self._sign == 1)
        image[:, :4] += 64 * (self._sign == -1)
        return image.astype(np.uint8)


class Target(gymnasium.Env[np.ndarray, np.ndarray]):
    """One-step episodes with a continuous action: reward -(action - 0.5 * observation) ** 2, best 0.

    Observation: [1] float32 in [-1, 1]; action: [1] float32 in [-1, 1].
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._shown = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        self._shown = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self._shown.copy(), {}

    def step(self, action: np.ndarray) -> Outcome:
        if not self.action_space.contains(action):
            raise ValueError(f"action {action} is outside {self.action_space}")
        return self._shown.copy(), -float((action[0] - 0.5 * self._shown[0]) ** 2), True, False, {}


class ConstantReward(gymnasium.Env[np.ndarray, np.int64]):
    """One-step episodes, reward 1, nothing to see and nothing to choose: V = 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(1)
        self._sign = 0.0

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        return self._observation(), {}

    def step(self, action: np.int64) -> Outcome:
        return self._observation(), 1.0, True, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self._sign], np.float32)


class SignedReward(ConstantReward):
    """One-step episodes whose reward is what was shown, -1 or 1, whatever the action: V(sign) = sign."""

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        gymnasium.Env.reset(self, seed=seed, options=options)
        self._sign = float(self.np_random.integers(2)) * 2.0 - 1.0
        return self._observation(), {}

    def step(self, action: np.int64) -> Outcome:
        return self._observation(), self._sign, True, False, {}


class Delay(ConstantReward):
    """Two steps, of which only the second is rewarded, with 1: V(0) = gamma, V(1) = 1."""

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        self._sign = 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.int64) -> Outcome:
        over = self._sign == 1.0
        self._sign = 1.0
        return self._observation(), float(over), over, False, {}


class Advice(ConstantReward):
    """One-step episodes with nothing to see: action 1 earns 1, action 0 loses 1. The best policy earns exactly 1."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(2)

    def step(self, action: np.int64) -> Outcome:
        return self._observation(), 1.0 if action == 1 else -1.0, True, False, {}


class Recall(gymnasium.Env[np.ndarray, np.int64]):
    """A sign is shown once, and must be named (as in ``Choice``) ``wait`` steps later, for 1 or -1.

    Observation: [2] float32: the sign at first and 0 then; 1 when the answer is asked for. With a memory the best
    policy earns exactly 1, without one any policy earns 0 in the mean.
    """

    def __init__(self, wait: int = 3) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._wait, self._done, self._sign = wait, 0, 1.0

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        self._done, self._sign = 0, float(self.np_random.integers(2)) * 2.0 - 1.0
        return self._observation(), {}

    def step(self, action: np.int64) -> Outcome:
        over = self._done == self._wait
        reward = (1.0 if (action == 1) == (self._sign > 0) else -1.0) if over else 0.0
        self._done += 1
        return self._observation(), reward, over, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self._sign if self._done == 0 else 0.0, self._done == self._wait], np.float32)


class OneWay(gymnasium.Env[np.ndarray, np.int64]):
    """Of five actions two are allowed, others in each step; the lower one of them earns 1, the other 0; a forbidden one
    raises. The observation does not tell which are allowed, so that only the mask does: 8 steps, best return 8.

    Observation: [1] float32, always 0. Mask: ``infos["action_mask"]``.
    """

    def __init__(self, steps: int = 8) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(5)
        self._steps, self._left = steps, steps
        self._allowed = (0, 1)

    def reset(self, *, seed: int | None = None, options: Options = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed, options=options)
        self._left = self._steps
        return np.zeros(1, np.float32), self._draw()

    def step(self, action: np.int64) -> Outcome:
        if action not in self._allowed:
            raise ValueError(f"action {action} is not among the allowed ones, {self._allowed}")
        reward = float(action == self._allowed[0])
        self._left -= 1
        return np.zeros(1, np.float32), reward, self._left == 0, False, self._draw()

    def _draw(self) -> Info:
        first, second = sorted(self.np_random.choice(5, 2, replace=False).tolist())
        self._allowed = (first, second)
        mask = np.zeros(5, np.int8)
        mask[[first, second]] = 1
        return {"action_mask": mask}


def standstill_next_step(num_envs: int) -> gymnasium.vector.SyncVectorEnv:
    """``Standstill`` behind gymnasium's autoreset of the next step: one row in six is no transition."""
    return _standstill(num_envs, gymnasium.vector.AutoresetMode.NEXT_STEP)


def standstill_same_step(num_envs: int) -> gymnasium.vector.SyncVectorEnv:
    """``Standstill`` behind gymnasium's autoreset in the same step."""
    return _standstill(num_envs, gymnasium.vector.AutoresetMode.SAME_STEP)


def standstill_disabled(num_envs: int) -> gymnasium.vector.SyncVectorEnv:
    """``Standstill`` behind a vector environment that resets nothing by itself."""
    return _standstill(num_envs, gymnasium.vector.AutoresetMode.DISABLED)


def _standstill(num_envs: int, mode: gymnasium.vector.AutoresetMode) -> gymnasium.vector.SyncVectorEnv:
    return gymnasium.vector.SyncVectorEnv([Standstill] * num_envs, autoreset_mode=mode)


class Filmed(Corridor):
    """A corridor that can draw itself: a white square that walks from left to right."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as gymnasium has it

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[8:24, 8 * self._position : 8 * self._position + 8] = 255
        return picture


class FailsToStart(Corridor):
    """Its constructor raises."""

    def __init__(self) -> None:
        raise OSError("the level file is missing")


class KillsItsProcess(Corridor):
    """Ends the process that it lives in at the third step, as a bug in native code would."""

    def step(self, action: np.int64) -> Outcome:
        if self._position == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class FailsInStep(Corridor):
    """Raises at the third step of every episode."""

    def step(self, action: np.int64) -> Outcome:
        if self._position == 2:
            raise ZeroDivisionError("the physics blew up")
        return super().step(action)


class Fragile(Corridor):
    """Does as its action says: 0 a step, 1 raises, 2 ends its process as a bug in native code would, 3 never returns,
    4 gives a reward that is no number.
    """

    def __init__(self, length: int = 5) -> None:
        super().__init__(length)
        self.action_space = spaces.Discrete(5)

    def step(self, action: np.int64) -> Outcome:
        if action == 1:
            raise ZeroDivisionError("the physics blew up")
        if action == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if action == 3:
            threading.Event().wait()
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, math.nan if action == 4 else reward, terminated, truncated, info
