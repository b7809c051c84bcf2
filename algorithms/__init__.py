"""The algorithms, by name. Each lives in one file that reads like its paper: config, loss, step.

Nothing here imports torch: a command line asks for configs only.
"""

from __future__ import annotations

import difflib

from ..rllib.config import AlgorithmConfig, ConfigError
from ..rllib.trainable import Trainable
from .a3c import A2C, A3C
from .appo import APPO
from .ars import ARS
from .cmaes import CMAES
from .es import ES
from .pgpe import PGPE
from .ppo import PPO
from .snes import SNES

_ALL: tuple[type[Trainable], ...] = (A2C, A3C, APPO, ARS, CMAES, ES, PGPE, PPO, SNES)
_BY_NAME = {algorithm.name: algorithm for algorithm in _ALL}

#: Every algorithm's name, sorted.
NAMES = tuple(sorted(_BY_NAME))


def load(name: str) -> type[Trainable]:
    """The algorithm with this name.

    Raises:
      ConfigError: there is none; names the choices.
    """
    if name not in _BY_NAME:
        close = difflib.get_close_matches(name.lower(), NAMES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"unknown algorithm {name!r}{hint}: choose from {', '.join(NAMES)}")
    return _BY_NAME[name]


def config_class(name: str) -> type[AlgorithmConfig]:
    """The settings of the algorithm with this name.

    Raises:
      ConfigError: as ``load``.
    """
    return load(name).Config
