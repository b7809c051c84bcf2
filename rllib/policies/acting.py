"""What a rollout acts through: a policy in this process, or one that another process holds.

``rollout.collect`` knows no more of it than this. Whoever answers gives a row the same bits, so it does not matter to a
rollout who does: ``Policy`` answers by itself when asked for the answer; ``inference_client.RemotePolicy`` sends the
rows away, and the answer is worth doing something else for meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from .policy_spec import PolicySpec


class Acted(NamedTuple):  # a third of a frozen dataclass's time to make
    """What a policy made of one step's observations."""

    parameters: np.ndarray  #: [N, P] float32, of the action distribution
    values: np.ndarray | None  #: [N] float32; None where the critic takes no part in acting, see ``Policy.step``
    states: np.ndarray  #: [N, S] float32: recurrent states after the step


class Acting(Protocol):
    """A policy with fixed weights, wherever it is.

    Attributes:
      spec: Its shape.
      version: Of its weights.
      is_elsewhere: Another process answers: what is asked is on its way until the answer is called for.
    """

    spec: PolicySpec
    version: int
    is_elsewhere: bool

    def initial_states(self, count: int) -> np.ndarray:
        """Recurrent states at the start of an episode, [count, S] zeros."""
        ...

    def ask(self, observations: Mapping[str, np.ndarray], states: np.ndarray) -> Callable[[], Acted]:
        """What to draw actions from, for whoever calls what is returned.

        Args:
          observations: Columns [N, *shape], not to be changed until then.
          states: [N, S] recurrent states before the step.
        """
        ...

    def values(self, observations: Mapping[str, np.ndarray], states: np.ndarray | None = None) -> np.ndarray:
        """The critic's estimates, [N] float32, of columns [N, *shape] seen in recurrent states [N, S]; None: at the
        start of an episode.
        """
        ...
