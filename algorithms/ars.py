"""Augmented random search: Mania, Guy, Recht 2018 (arXiv:1803.07055).

Reads with ``strategies/ars.py``, the update, and ``evolution.py``, a generation. The paper's four variants:

    V1    linear policy                                V1-t    the best directions count only (``top``)
    V2    observations normalised, the default here    V2-t    both
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..rllib.config import AlgorithmConfig, require
from .evolution import Evolution
from .evolution_settings import EvolutionSettings
from .strategies import ars
from .strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class ARSConfig(EvolutionSettings, AlgorithmConfig):
    """Settings of ARS."""

    population_size: int = 16
    """Candidates of a generation, an even number: each direction of noise is tried with both signs, as a pair."""

    hidden_sizes: tuple[int, ...] = ()
    """Widths of the policy's hidden layers; none for a linear policy, as in the paper, which starts from 0."""

    normalize_observations: bool = True
    """Shift and scale observations by the mean and deviation of all seen before this generation: V2."""

    block_size: int = 2
    """Pairs that a worker is asked for at once. It plays their episodes side by side, which saves time beside the
    environments'; small blocks spread better over workers."""

    spread: float = 0.03
    """Deviation of the noise on weights."""

    learning_rate: float = 0.02
    """Step size, of sums that are divided by the deviation of the returns."""

    top: int = 0
    """Directions that count, the best by the better of their returns; 0 for all. Fewer: V1-t and V2-t."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_evolution()
        for field in ("spread", "learning_rate"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        require(self, "top", 0 <= self.top <= self.num_pairs, f"from 0 (all) to the {self.num_pairs} pairs")


class ARS(Evolution[ARSConfig]):
    """ARS."""

    name: ClassVar[str] = "ars"
    Config: ClassVar[type[AlgorithmConfig]] = ARSConfig

    def build_strategy(self, centre: np.ndarray) -> Strategy:
        config = self.config
        return ars.ARS(
            centre,
            num_pairs=config.num_pairs,
            spread=config.spread,
            learning_rate=config.learning_rate,
            top=config.top or None,
        )
