"""Separable natural evolution strategies: Schaul, Glasmachers, Schmidhuber 2011.

Reads with ``strategies/snes.py``, the update, and ``evolution.py``, a generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..rllib.config import AlgorithmConfig, require
from .evolution import Evolution
from .evolution_settings import EvolutionSettings
from .strategies import snes
from .strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class SNESConfig(EvolutionSettings, AlgorithmConfig):
    """Settings of SNES."""

    spread: float = 0.1
    """Deviation of the noise that all weights start with; each learns its own."""

    learning_rate: float = 1.0
    """Step size of the centre, in deviations."""

    spread_learning_rate: float | None = None
    """Step size of the deviations' logarithms; None for the paper's, which falls with the number of weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_evolution()
        for field in ("spread", "learning_rate"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        rate = self.spread_learning_rate
        require(self, "spread_learning_rate", rate is None or rate >= 0.0, "None or at least 0")


class SNES(Evolution[SNESConfig]):
    """SNES."""

    name: ClassVar[str] = "snes"
    Config: ClassVar[type[AlgorithmConfig]] = SNESConfig

    def build_strategy(self, centre: np.ndarray) -> Strategy:
        config = self.config
        return snes.SNES(
            centre,
            num_pairs=config.num_pairs,
            spread=config.spread,
            learning_rate=config.learning_rate,
            spread_learning_rate=config.spread_learning_rate,
        )
