"""Policy gradients with parameter-based exploration, symmetric sampling (Sehnke et al. 2010) and ClipUp (Toklu,
Liskowski, Srivastava 2020, arXiv:2008.02387).

Reads with ``strategies/pgpe.py``, the update, and ``evolution.py``, a generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..rllib.config import AlgorithmConfig, require
from .evolution import Evolution
from .evolution_settings import EvolutionSettings
from .strategies import pgpe
from .strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class PGPEConfig(EvolutionSettings, AlgorithmConfig):
    """Settings of PGPE."""

    spread: float = 0.1
    """Deviation of the noise that all weights start with; each learns its own."""

    learning_rate: float = 0.075
    """Length of ClipUp's steps; its greatest speed is twice that. A fifteenth of spread * sqrt(weights) is the authors'
    rule for that speed."""

    optimizer: Literal["clipup", "adam", "momentum"] = "clipup"
    """What turns the estimated gradient into a step."""

    momentum: float = 0.9
    """Of momentum and clipup."""

    spread_learning_rate: float = 0.1
    """Step size of the deviations; 0 leaves them as they are."""

    max_spread_change: float = 0.2
    """Share by which a deviation changes at most in a generation."""

    shaping: Literal["centered_ranks", "standardized", "raw"] = "centered_ranks"
    """What becomes of returns before they are weights: ranks from -1/2 to 1/2, numbers with deviation 1, or nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_evolution()
        for field in ("spread", "learning_rate"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        require(self, "momentum", 0.0 <= self.momentum < 1.0, "from 0 to below 1")
        require(self, "spread_learning_rate", self.spread_learning_rate >= 0.0, "at least 0")
        require(self, "max_spread_change", 0.0 < self.max_spread_change < 1.0, "above 0 and below 1")


class PGPE(Evolution[PGPEConfig]):
    """PGPE with ClipUp."""

    name: ClassVar[str] = "pgpe"
    Config: ClassVar[type[AlgorithmConfig]] = PGPEConfig

    def build_strategy(self, centre: np.ndarray) -> Strategy:
        config = self.config
        return pgpe.PGPE(
            centre,
            num_pairs=config.num_pairs,
            spread=config.spread,
            learning_rate=config.learning_rate,
            optimizer=config.optimizer,
            momentum=config.momentum,
            spread_learning_rate=config.spread_learning_rate,
            max_spread_change=config.max_spread_change,
            shaping=config.shaping,
        )
