"""Environments that clock their own steps, so that a benchmark can say what share of the time is spent beside them."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import gymnasium

from shoal.envs import registry


class Clocked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """HalfCheetah-v5; all copies of a process add up their seconds."""

    seconds: ClassVar[float] = 0.0
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__(registry.make("HalfCheetah-v5"))

    def step(self, action: Any) -> Any:
        began = time.perf_counter()
        outcome = self.env.step(action)
        Clocked.seconds += time.perf_counter() - began
        Clocked.steps += 1
        return outcome
