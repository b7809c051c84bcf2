"""What acts behind a policy's name: rows of observations in, rows of actions out.

    Model           the protocol; whatever has it can be served
    PolicyModel     weights of ``rllib``, in numpy or, on a GPU, in torch
    FunctionModel   any function of the observations

A batch has rows of many requests, that may want different things: ``Rows`` says what, row by row where it matters. A
model is never called twice at once, and never changes: other weights are another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..rllib.inference.inference import ActingPolicy
from ..rllib.policies.distributions import draw
from ..rllib.policies.policy import Policy
from ..rllib.policies.weights import Weights
from .checking import first_not_finite
from .policy_spaces import spaces_of
from .spaces import Space, num_choices

#: Multiplications for one row up to which a policy answers where the requests come in, without a thread of its own:
#: 64 rows then hold up the others for 2 ms or so. A thread costs each batch 0.1 ms.
_QUICK_WORK = 100_000


@dataclass(slots=True)  # frozen by rule
class Rows:
    """What is asked of a model at once."""

    observations: Mapping[str, np.ndarray]  #: columns [N, *shape], checked
    states: np.ndarray  #: [N, S] float32
    masks: np.ndarray | None  #: [N, choices] bool; None: all is allowed
    deterministic: np.ndarray | bool  #: [N] bool, or the same for all: the likeliest action instead of a drawn one
    wants_log_prob: bool
    wants_value: bool


class Answers(NamedTuple):
    """What a model makes of it."""

    actions: np.ndarray  #: [N, W] in the environment's numbers, the leaves of the action space side by side
    states: np.ndarray  #: [N, S] float32: to go on from
    log_prob: np.ndarray | None = None  #: [N]
    value: np.ndarray | None = None  #: [N]
    failed: np.ndarray | None = None  #: [N] bool: rows for which no numbers came out; None: it went well for all
    drawn: np.ndarray | None = None  #: [N, W] actions before they were fitted into the environment's numbers


class Model(Protocol):
    """One version of a policy, ready to act."""

    @property
    def observation_space(self) -> Space:
        """Without an action mask."""
        ...

    @property
    def action_space(self) -> Space: ...

    @property
    def state_size(self) -> int:
        """S; 0 without recurrence."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a batch takes so little time that others can wait for it: then it needs no thread."""
        ...

    @property
    def tells(self) -> frozenset[str]:
        """What it can say besides actions: "log_prob", "value", "drawn"."""
        ...

    def act(self, rows: Rows) -> Answers:
        """Actions for all rows, of which none wants what the model does not tell."""
        ...


class PolicyModel:
    """A policy with its weights: in numpy, where only images pass convolutions in torch (``acting_nets.py``), or
    as ``make`` has it.

    Args:
      weights: The policy.
      make: What makes a policy that acts of them: ``rllib.torch_policy.TorchPolicies`` of a GPU, for instance.
      spaces: Observation space (without a mask) and action space; None: as the policy's shape tells them, without the
        bounds of observations, and with actions that are not nested.
      seed: Of what actions are drawn with.

    Raises:
      ValueError: the spaces do not fit the policy, or ``make`` does not make such a one.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        make: Callable[[Weights], ActingPolicy] = Policy,
        spaces: tuple[Space, Space] | None = None,
        seed: int = 0,
    ) -> None:
        spec = weights.spec
        self.observation_space, self.action_space = spaces_of(spec) if spaces is None else spaces
        if num_choices(self.action_space) != spec.actions.distribution.num_choices:
            raise ValueError(f"the policy has {spec.actions.distribution.num_choices} choices, its action space others")
        self.state_size = spec.state_size
        self.tells = frozenset({"log_prob", "value", "drawn"})
        self.is_quick = make is Policy and not spec.observations.images and _work(weights) <= _QUICK_WORK
        self._policy, self.spec, self.weights = make(weights), spec, weights
        self._distribution, self._for_environment = spec.actions.distribution, spec.actions.for_environment
        self._rng = np.random.default_rng((seed, weights.version))

    def act(self, rows: Rows) -> Answers:
        acted = self._policy.step(rows.observations, rows.states)
        parameters, distribution = acted.parameters, self._distribution
        if rows.deterministic is True:
            actions = distribution.mode(parameters, rows.masks)
        else:
            actions = distribution.sample(parameters, draw(distribution, self._rng, len(parameters)), rows.masks)
            if rows.deterministic is not False:
                actions = np.where(rows.deterministic[:, None], distribution.mode(parameters, rows.masks), actions)
        # Of numbers that are none some action is still the likeliest: it must not pass for one.
        failed = None if first_not_finite(parameters) is None else ~np.isfinite(parameters).all(axis=1)
        log_prob = distribution.log_prob(parameters, actions, rows.masks) if rows.wants_log_prob else None
        value = acted.values
        if rows.wants_value and value is None:
            value = self._policy.values(rows.observations, rows.states)
        return Answers(self._for_environment(actions), acted.states, log_prob, value, failed, actions)


class FunctionModel:
    """Any function as a policy: no recurrence, no probabilities, no value.

    Args:
      function: Columns [N, *shape] -> actions [N, W].
      observation_space, action_space: What it takes and gives.
      is_quick: Whether it needs no thread of its own.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, np.ndarray]], np.ndarray],
        observation_space: Space,
        action_space: Space,
        *,
        is_quick: bool = False,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.state_size = 0
        self.tells: frozenset[str] = frozenset()
        self.is_quick = is_quick
        self._function = function

    def act(self, rows: Rows) -> Answers:
        return Answers(self._function(rows.observations), rows.states)


def _work(weights: Weights) -> int:
    """Multiplications for one row."""
    return sum(array.size for array in weights.arrays.values())
