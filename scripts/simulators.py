"""Where the steps of external simulators come from: the server beside, as an ``EpisodeSource``.

Every version of the weights is handed over before steps are taken again. Steps are waited for in looks of a second, so
that a signal that ends the run is not waited out; and if none come for long, that is told once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shoal
from shoal.rllib import external_settings
from shoal.rllib.config import AlgorithmConfig
from shoal.rllib.external_collection import ExternalCollection
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.external import StoppedWaiting, Taken
from shoal.scripts.serving_beside import USUAL_NAME, ServedAt, ServedBeside
from shoal.serving.episode_desk import EpisodeSettings
from shoal.serving.policies import RefusedError
from shoal.serving.spaces import space_form

_log = logging.getLogger(__name__)

#: How long one look lasts, and after how long without a batch somebody is told.
_LOOK_S, _NOTICE_S = 1.0, 30.0


def beside(
    weights: Weights,
    collection: ExternalCollection,
    config: AlgorithmConfig,
    at: ServedAt,
    run_dir: Path,
) -> ServedBeside:
    """A server at which the simulators of a run act.

    Args:
      weights: Those that the run begins with.
      collection: What takes their steps.
      config: Of the run.
      at, run_dir: As for ``ServedBeside``.

    Raises:
      UsageError: as there.
      ConfigError: the config is of no run that learns so.
    """
    settings = external_settings.check_supported("this algorithm", config)
    observations, actions = external_settings.spaces(settings)
    episodes = EpisodeSettings(
        policy=USUAL_NAME,
        batch_steps=collection.num_steps,
        max_lag=collection.max_lag,
        silence_s=settings.external_silence_s,
    )
    spaces = space_form(observations), space_form(actions)
    return ServedBeside(weights, spaces, at, run_dir, episodes=episodes, seed=config.seed)


class Simulators:
    """What simulators do through a server of policies.

    Args:
      server: Handle of a ``PolicyServer`` that takes episodes.
      policy: Name of the policy that learns.
      version: Of the weights that the server began with.
      url: Of the server, for messages.
      is_over: Whether nobody wants steps any more.
    """

    def __init__(self, server: Any, policy: str, version: int, url: str, is_over: Callable[[], bool]) -> None:
        self._server, self._policy, self._url, self._is_over = server, policy, url, is_over
        self._version = version
        self._newest: Any = None  # reference to weights that the server did not begin with
        self._pushed: Any = None
        self._has_told = False

    def publish(self, weights_ref: Any, version: int) -> None:
        """Act with these weights from now on; see ``EpisodeSource``."""
        if version > self._version:
            self._version, self._newest = version, weights_ref
            self._push()

    def take(self, num_steps: int, version: int) -> Taken:
        """Wait for so many steps, and take them; see ``EpisodeSource``.

        Raises:
          DivergedError: the server refused the newest weights.
        """
        began_s = time.monotonic()
        while True:
            self._check_pushed()
            taken: Taken | None = shoal.get(self._server.take_steps.remote(num_steps, version, _LOOK_S))
            if taken is not None:
                return taken
            if self._is_over():
                raise StoppedWaiting("the run is to end, and there are too few steps for a batch")
            if not self._has_told and time.monotonic() - began_s > _NOTICE_S:
                self._has_told = True
                told = "external simulators have not sent a batch of %d steps for %.0f s: are they at %s?"
                _log.warning(told, num_steps, _NOTICE_S, self._url)
            if self._newest is not None:
                # A server that was killed before it had them on disk acts with older ones: what comes of it may all be
                # too old to be taken, and then nothing newer would ever be published.
                self._push()

    def _push(self) -> None:
        self._pushed = self._server.renew.remote(self._policy, self._newest)

    def _check_pushed(self) -> None:
        if self._pushed is not None:
            try:
                shoal.get(self._pushed)
            except RefusedError as error:
                raise DivergedError(f"nobody can act with the newest weights: {error}") from error
            self._pushed = None
