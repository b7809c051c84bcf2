"""CMA-ES, Hansen 2016 (arXiv:1604.00772), for small nets: pip install 'shoal[es]'.

Reads with ``strategies/cma_es.py``, which hands the work to the author's library, and ``evolution.py``, a generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..rllib.config import AlgorithmConfig, require
from .evolution import Evolution
from .evolution_settings import EvolutionSettings
from .strategies import cma_es
from .strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class CMAESConfig(EvolutionSettings, AlgorithmConfig):
    """Settings of CMA-ES."""

    population_size: int = 24
    """Candidates of a generation, an even number; Hansen's rule is 4 + 3 ln(weights)."""

    hidden_sizes: tuple[int, ...] = ()
    """Widths of the policy's hidden layers; none for a linear policy. At most 2,000 weights in all."""

    spread: float = 0.5
    """Deviation to start with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_evolution()
        require(self, "spread", self.spread > 0.0, "greater than 0")
        require(self, "stragglers", self.stragglers == "wait", "wait: CMA-ES ranks its whole population")


class CMAES(Evolution[CMAESConfig]):
    """CMA-ES by the library ``cma``."""

    name: ClassVar[str] = "cmaes"
    Config: ClassVar[type[AlgorithmConfig]] = CMAESConfig

    def build_strategy(self, centre: np.ndarray) -> Strategy:
        config = self.config
        return cma_es.CMAES(centre, num_pairs=config.num_pairs, spread=config.spread, seed=config.seed)
