"""Evolution strategies as in Salimans, Ho, Chen, Sidor, Sutskever 2017 (arXiv:1703.03864): OpenAI-ES.

Reads with ``strategies/open_es.py``, the update, and ``evolution.py``, a generation. Antithetic pairs, centred ranks,
weight decay and Adam, as in the paper; its virtual batch normalisation is for images, which are not learnt from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..rllib.config import AlgorithmConfig, require
from .evolution import Evolution
from .evolution_settings import EvolutionSettings
from .strategies.open_es import OpenES


@dataclass(frozen=True, kw_only=True)
class ESConfig(EvolutionSettings, AlgorithmConfig):
    """Settings of OpenAI-ES."""

    spread: float = 0.05
    """Deviation of the noise on weights. The authors' 0.02 is for populations of thousands."""

    learning_rate: float = 0.02
    """Step size of the optimiser."""

    optimizer: Literal["adam", "momentum", "clipup"] = "adam"
    """What turns the estimated gradient into a step."""

    momentum: float = 0.9
    """Of momentum and clipup."""

    weight_decay: float = 0.005
    """What weights lose of themselves in the gradient: keeps the noise from becoming small beside them."""

    shaping: Literal["centered_ranks", "standardized", "raw"] = "centered_ranks"
    """What becomes of returns before they are weights: ranks from -1/2 to 1/2, numbers with deviation 1, or nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_evolution()
        for field in ("spread", "learning_rate"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        require(self, "momentum", 0.0 <= self.momentum < 1.0, "from 0 to below 1")
        require(self, "weight_decay", self.weight_decay >= 0.0, "at least 0")


class ES(Evolution[ESConfig]):
    """OpenAI-ES."""

    name: ClassVar[str] = "es"
    Config: ClassVar[type[AlgorithmConfig]] = ESConfig

    def build_strategy(self, centre: np.ndarray) -> OpenES:
        config = self.config
        return OpenES(
            centre,
            num_pairs=config.num_pairs,
            spread=config.spread,
            learning_rate=config.learning_rate,
            optimizer=config.optimizer,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            shaping=config.shaping,
        )
