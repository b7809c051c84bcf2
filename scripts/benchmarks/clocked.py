"""Environments that clock their own steps, so that a benchmark can say what share of the time is spent beside them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium

from shoal.envs import registry


@dataclass(slots=True)
class Clock:
    """What the steps of all copies of a process have taken."""

    seconds: float = 0.0
    steps: int = 0


class Clocked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """HalfCheetah-v5."""

    #: An object of its own: who writes to a class makes Python look up all of its methods anew, 0.1 us a step.
    clock: ClassVar[Clock] = Clock()

    def __init__(self) -> None:
        super().__init__(registry.make("HalfCheetah-v5"))

    def step(self, action: Any) -> Any:
        clock = self.clock
        began = time.perf_counter()
        outcome = self.env.step(action)
        clock.seconds += time.perf_counter() - began
        clock.steps += 1
        return outcome
