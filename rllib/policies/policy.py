"""A policy that acts: observations in, actions out, with fixed weights.

Rollout workers call ``step`` and ``values``; whoever only wants actions (evaluation, users) calls ``act``. Whatever
the policy is like, the calls are the same: observations as columns, a recurrent state [N, S] that the caller keeps
(S = 0 without recurrence, zeros at the start of an episode), and masks where actions may be forbidden.

A row's numbers are its own to the last bit, whatever batch it is in: see ``acting_nets.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from .acting import Acted
from .acting_nets import ActingHead, ActingTower, in_blocks, out_of_blocks
from .distributions import draw
from .normalization import normalized
from .weights import Weights

Observations = Mapping[str, np.ndarray]


class Policy:
    """A policy that acts, and its critic, with fixed weights."""

    is_elsewhere = False  #: see ``Acting``

    def __init__(self, weights: Weights) -> None:
        spec = weights.spec
        self.spec = spec
        self.version = weights.version
        arrays = weights.arrays
        self._distribution = spec.actions.distribution
        self._policy_tower = ActingTower(spec, arrays, "policy")
        self._value_tower = self._policy_tower if spec.shares_tower else ActingTower(spec, arrays, "value")
        self._policy_head, self._value_head = ActingHead(arrays, "policy"), ActingHead(arrays, "value")
        self._log_stds = arrays.get("log_stds")
        self._normalizers = weights.normalizers
        self._is_recurrent, self._shares_tower = spec.is_recurrent, spec.shares_tower
        self._has_flat, self._flat = bool(spec.observations.flat_columns), spec.observations.flat
        self._plain_column = None if weights.normalizers else spec.observations.plain_column
        # With a tower of its own and no memory the critic need not see observations as they come.
        self._values_in_step = spec.is_recurrent or spec.shares_tower

    def initial_states(self, count: int) -> np.ndarray:
        """Recurrent states at the start of an episode, [count, S] zeros."""
        return np.zeros((count, self.spec.state_size), np.float32)

    def step(self, observations: Observations, states: np.ndarray) -> Acted:
        """What to draw actions from, and what comes with it.

        Args:
          observations: Columns [N, *shape], as the environment gives them.
          states: [N, S] recurrent states before the step; zeros where an episode starts.

        Returns:
          Parameters and next states; values only if they cost no pass of their own, otherwise ask ``values`` for many
          rows at once.
        """
        count = len(states)
        flat, images = self._inputs(observations)
        split = own_state = None
        if self._is_recurrent:
            split = in_blocks(states)
            own_state = split[..., : self.spec.tower_state_size]
        features, next_state = self._policy_tower(flat, images, own_state)
        outputs = out_of_blocks(self._policy_head(features), count)
        if self._log_stds is not None:
            given, size = outputs, outputs.shape[1]
            outputs = np.empty((count, size + len(self._log_stds)), np.float32)  # 1 us less than to concatenate
            outputs[:, :size], outputs[:, size:] = given, self._log_stds
        if not self._values_in_step:
            return Acted(outputs, None, states)
        if not self._shares_tower:
            assert split is not None
            assert next_state is not None
            features, value_state = self._value_tower(flat, images, split[..., self.spec.tower_state_size :])
            assert value_state is not None
            next_state = np.concatenate([next_state, value_state], axis=-1)
        values = out_of_blocks(self._value_head(features), count)[:, 0]
        return Acted(outputs, values, states if next_state is None else out_of_blocks(next_state, count))

    def ask(self, observations: Observations, states: np.ndarray) -> Callable[[], Acted]:
        """``step``, when what is returned is called; see ``Acting``."""
        return partial(self.step, observations, states)

    def values(self, observations: Observations | np.ndarray, states: np.ndarray | None = None) -> np.ndarray:
        """The critic's estimates, [N] float32, of observations as for ``act``, seen in recurrent states [N, S]."""
        columns, states = self._with_states(observations, states)
        flat, images = self._inputs(columns)
        split = None
        if self._is_recurrent:
            split = in_blocks(states if self.spec.shares_tower else states[:, self.spec.tower_state_size :])
        features, _ = self._value_tower(flat, images, split)
        return out_of_blocks(self._value_head(features), len(states))[:, 0]

    def act(
        self,
        observations: Observations | np.ndarray,
        states: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        *,
        deterministic: bool,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions as the vector environment takes them.

        Args:
          observations: Columns [N, *shape]; a bare array where there is only one.
          states: [N, S] recurrent states; None at the start of an episode.
          masks: [N, num_choices] bool, True where allowed; None allows all.
          deterministic: The likeliest action instead of a sampled one.
          rng: What to sample with; needed only if not deterministic.

        Returns:
          actions [N, W]; and the recurrent states to come back with.

        Raises:
          ValueError: asked to sample without rng.
        """
        columns, states = self._with_states(observations, states)
        acted = self.step(columns, states)
        if deterministic:
            actions = self._distribution.mode(acted.parameters, masks)
        elif rng is None:
            raise ValueError("a sampled action needs rng; give one, or ask for deterministic=True")
        else:
            actions = self._distribution.sample(acted.parameters, draw(self._distribution, rng, len(states)), masks)
        return self.spec.actions.for_environment(actions), acted.states

    def _with_states(
        self, observations: Observations | np.ndarray, states: np.ndarray | None
    ) -> tuple[Observations, np.ndarray]:
        columns = self.spec.observations.as_columns(observations)
        if states is None:
            states = self.initial_states(len(columns[self.spec.observations.columns[0].name]))
        return columns, states

    def _inputs(self, observations: Observations) -> tuple[np.ndarray | None, Observations]:
        """The flat input in blocks, if there is any; and where the images are."""
        if self._plain_column is not None:
            return in_blocks(observations[self._plain_column]), observations
        if self._normalizers:
            observations = normalized(observations, self._normalizers)
        return (in_blocks(self._flat(observations)) if self._has_flat else None), observations
