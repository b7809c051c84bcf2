"""Sampling: step environments with a policy for T steps. A function; whoever calls it decides how and where.

Called by ``EnvRunner`` in the rollout workers. Imports no torch, but for policies that see images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...envs.columns import Columns
from ...envs.vector import SteppedInParts, VectorEnv
from ..policies.acting import Acted, Acting
from ..policies.distributions import Categorical
from ..policies.policy import Policy
from ..policies.spaces import ActionSpec
from ..streams import ActionStreams
from .batch import Batch, FinishedEpisode


@dataclass
class Memory:
    """What acting carries from one rollout into the next, beside the environments."""

    states: np.ndarray  #: [B, S] float32 recurrent states after the last step
    starts: np.ndarray  #: [B] bool: the next observation is the first of an episode

    @classmethod
    def of_new_episodes(cls, policy: Acting, num_envs: int) -> Memory:
        """Nothing to remember."""
        return cls(policy.initial_states(num_envs), np.ones(num_envs, bool))


def collect(envs: VectorEnv, policy: Acting, num_steps: int, streams: ActionStreams, memory: Memory) -> Batch:
    """Act for ``num_steps`` steps in every copy, going on where the last call stopped.

    Values are computed after the last step, all at once, where the critic takes no part in acting.

    Args:
      envs: B copies; left where they are, ready for the next call.
      policy: What acts.
      num_steps: T.
      streams: What the copies' actions are drawn with.
      memory: Of the last call, or ``Memory.of_new_episodes`` after a reset; brought up to date.
    """
    distribution = policy.spec.actions.distribution
    noise = distribution.noise(streams.uniforms(num_steps, distribution.num_uniforms))
    rows = _Rows(envs, policy, num_steps, memory.starts)
    stepping = _stepping(envs)
    parts = [_Part(rows, envs, each, memory.states[each], noise[:, each]) for each in stepping.slices]
    plays = [part.play(number, policy, stepping) for number, part in enumerate(parts)]
    for _ in itertools.zip_longest(*plays):  # in turn: while one waits for somebody, the others go on
        pass
    rows.starts[1:] = rows.terminated | rows.truncated | ~rows.valid
    memory.states, memory.starts = _joined([part.states for part in parts]), rows.starts[num_steps].copy()
    if rows.are_valued:
        rows.values[num_steps] = policy.values(rows.seen(num_steps), memory.states)
    else:
        flat = {name: column.reshape(-1, *column.shape[2:]) for name, column in rows.observations.items()}
        rows.values[:] = policy.values(flat, policy.initial_states(rows.values.size)).reshape(rows.values.shape)
    return rows.batch(policy, parts)


class _Stepping(NamedTuple):
    """How copies are stepped in parts; a row's bits do not depend on it."""

    slices: list[slice]  #: the rows of each part
    begin: Callable[[int, np.ndarray], None]  #: a part's step, of its number and actions
    end: Callable[[int], None]  #: the same: its rows then hold the outcome
    is_elsewhere: bool  #: other processes step between the two


def _stepping(envs: VectorEnv) -> _Stepping:
    if isinstance(envs, SteppedInParts):
        return _Stepping(envs.groups, envs.step_async, envs.step_wait, envs.steps_elsewhere)
    whole = [slice(0, envs.num_envs)]
    return _Stepping(whole, lambda _, actions: envs.step(actions), lambda _: None, is_elsewhere=False)


class _Rows:
    """The rows of a rollout while it is under way: T + 1 of observations, values and starts, T of all else."""

    def __init__(self, envs: VectorEnv, policy: Acting, num_steps: int, starts: np.ndarray) -> None:
        spec, distribution, shape = policy.spec, policy.spec.actions.distribution, (num_steps, envs.num_envs)
        self.observations = spec.observations.empty(num_steps + 1, envs.num_envs)
        self.parameters = np.empty((*shape, distribution.num_parameters), np.float32)
        dtype = np.int64 if isinstance(distribution, Categorical) else np.float32
        self.actions = np.empty((*shape, distribution.action_size), dtype)
        self.masks = None if envs.action_masks is None else np.empty((*shape, distribution.num_choices), bool)
        self.rewards = np.empty(shape, np.float32)
        # As quiet steps leave them.
        self.terminated, self.truncated, self.valid = np.zeros(shape, bool), np.zeros(shape, bool), np.ones(shape, bool)
        self.values = np.empty((num_steps + 1, envs.num_envs), np.float32)
        self.are_valued = False  # acting gave the values, too
        self.starts = np.empty((num_steps + 1, envs.num_envs), bool)
        self.starts[0] = starts
        self.episodes: list[FinishedEpisode] = []
        self.cuts: list[_Cut] = []

    def seen(self, t: int) -> Columns:
        """What the policy acts on in step t."""
        return {name: column[t] for name, column in self.observations.items()}

    def batch(self, policy: Acting, parts: Sequence[_Part]) -> Batch:
        """All together, when the last row and the values are there."""
        distribution, num_steps = policy.spec.actions.distribution, len(self.rewards)
        # The row below holds the successor, except where an episode ended: there it holds the reset that followed.
        next_values = self.values[1:].copy()
        next_values[self.terminated] = 0.0
        cut_observations = policy.spec.observations.empty(int(self.truncated.sum()))
        if self.cuts:
            for name, column in cut_observations.items():
                column[...] = np.concatenate([cut.observations[name] for cut in self.cuts])
            cut_states = np.concatenate([cut.states for cut in self.cuts])
            next_values[self.truncated] = policy.values(cut_observations, cut_states)
        masks = None if self.masks is None else _flat(self.masks)
        log_probs = distribution.log_prob(_flat(self.parameters), _flat(self.actions), masks)
        return Batch(
            observations={name: column[:num_steps] for name, column in self.observations.items()},
            actions=self.actions,
            masks=self.masks,
            log_probs=log_probs.reshape(self.rewards.shape),
            rewards=self.rewards,
            values=self.values[:num_steps],
            next_values=next_values,
            terminated=self.terminated,
            truncated=self.truncated,
            valid=self.valid,
            starts=self.starts[:num_steps],
            states=_joined([part.states_before() for part in parts], axis=1) if policy.spec.is_recurrent else None,
            last_observations=self.seen(num_steps),
            cut_observations=cut_observations,
            episodes=tuple(self.episodes),
            version=policy.version,
        )


class _Cut(NamedTuple):
    """What was cut in one step of one part."""

    observations: Columns  #: the last ones
    states: np.ndarray  #: recurrent, after the last step


class _Part:
    """Copies that are stepped together, in a rollout under way: views of their rows, and of what is seen of them.

    Args:
      rows: Of all copies.
      envs: All copies.
      place: Which are meant.
      states: [n, S] recurrent ones that the last rollout ended with.
      noise: [T, n, ...] for their actions.
    """

    def __init__(self, rows: _Rows, envs: VectorEnv, place: slice, states: np.ndarray, noise: np.ndarray) -> None:
        self._rows, self._envs, self._place, self._noise = rows, envs, place, noise
        self.states = states
        self._kept_states: list[np.ndarray] = []
        self._shown = [(name, envs.observations[name][place]) for name in rows.observations]
        self._seen = [
            {name: column[t, place] for name, column in rows.observations.items()} for t in range(len(rows.values))
        ]
        self._parameters, self._actions = rows.parameters[:, place], rows.actions[:, place]
        self._masks = None if rows.masks is None else rows.masks[:, place]
        self._shown_masks = None if envs.action_masks is None else envs.action_masks[place]
        self._rewards, self._shown_rewards = rows.rewards[:, place], envs.rewards[place]
        self._flags = [
            (ours[:, place], shown[place])
            for ours, shown in (
                (rows.valid, envs.valid),
                (rows.terminated, envs.terminated),
                (rows.truncated, envs.truncated),
            )
        ]
        self._truncated = rows.truncated[:, place]

    def observe(self, t: int) -> None:
        """Store what the environments show before step t."""
        for name, shown in self._shown:
            self._seen[t][name][...] = shown

    def play(self, number: int, policy: Acting, stepping: _Stepping) -> Iterator[None]:
        """All steps. Stops where somebody else is at work, so that another part may go on: when the policy was asked,
        if another process answers; and when a step has begun, if another process steps. At least once in each step, so
        that no part is ahead of another: what ends in a rollout comes by step, then by copy.

        Args:
          number: This part's.
          policy: What acts.
          stepping: How the environments are stepped.
        """
        num_steps = len(self._parameters)
        for t in range(num_steps):
            answer = self.ask(t, policy)
            if policy.is_elsewhere:
                yield
            stepping.begin(number, self.act(t, policy.spec.actions, answer()))
            if stepping.is_elsewhere or not policy.is_elsewhere:
                yield
            stepping.end(number)
            self.take_outcome(t)
        self.observe(num_steps)

    def ask(self, t: int, policy: Acting) -> Callable[[], Acted]:
        """Have the policy see step t; what it saw is stored."""
        self.observe(t)
        if policy.spec.is_recurrent:
            self._remember(t, policy.spec.network.sequence_length)
        return policy.ask(self._seen[t], self.states)

    def act(self, t: int, actions_of: ActionSpec, acted: Acted) -> np.ndarray:
        """The actions of step t as the environment takes them, [n, W]; they and all that led to them are stored."""
        parameters, values, self.states = acted
        self._parameters[t] = parameters
        if values is not None:
            self._rows.values[t, self._place], self._rows.are_valued = values, True
        mask = None
        if self._masks is not None:
            self._masks[t] = self._shown_masks
            mask = self._masks[t]
        actions = actions_of.distribution.sample(parameters, self._noise[t], mask)
        self._actions[t] = actions
        return actions_of.for_environment(actions)

    def take_outcome(self, t: int) -> None:
        """Store what step t led to."""
        self._rewards[t] = self._shown_rewards
        if self._envs.is_quiet:
            return
        for ours, shown in self._flags:
            ours[t] = shown
        self._rows.episodes += [FinishedEpisode(t, episode) for episode in self._envs.finished]
        cut = self._truncated[t]
        if np.count_nonzero(cut):  # a fifth of any()'s time
            last = {name: self._envs.final_observations[name][self._place][cut] for name, _ in self._shown}
            self._rows.cuts.append(_Cut(last, self.states[cut]))

    def states_before(self) -> np.ndarray:
        """[ceil(T / L), n, S]: recurrent states before each L-th step, L the sequence length."""
        return np.stack(self._kept_states)

    def _remember(self, t: int, sequence_length: int) -> None:
        """Recurrent states before step t: zeros where an episode starts. Each ``sequence_length``-th is kept."""
        rows, place = self._rows, self._place
        if t:
            before = (t - 1, place)
            rows.starts[t, place] = rows.terminated[before] | rows.truncated[before] | ~rows.valid[before]
        self.states = np.where(rows.starts[t, place, None], np.float32(0.0), self.states)
        if t % sequence_length == 0:
            self._kept_states.append(self.states)


class Reevaluated(NamedTuple):
    """What another policy and its critic make of a rollout; shapes and names are those of the batch."""

    log_probs: np.ndarray
    values: np.ndarray
    next_values: np.ndarray
    states: np.ndarray | None  #: what it remembers before each L-th row, having seen all rows of the rollout before


def reevaluated(batch: Batch, policy: Policy) -> Reevaluated:
    """How likely another policy is to act as it was acted, and what its critic expects.

    Of the policy that acted these are the batch's own, bit for bit; its memory, too, if it is recurrent.

    Args:
      batch: As ``collect`` made it, or several of them joined.
      policy: Of the same shape as the one that acted; if it is recurrent it begins with the memory of that one.
    """
    distribution, shape = policy.spec.actions.distribution, batch.valid.shape
    if batch.states is None:
        rows = {name: column.reshape(-1, *column.shape[2:]) for name, column in batch.observations.items()}
        acted = policy.step(rows, policy.initial_states(batch.valid.size))
        parameters = acted.parameters
        values = policy.values(rows) if acted.values is None else acted.values
        values, states = values.reshape(shape), policy.initial_states(shape[1])
        kept_states, cut_states = None, policy.initial_states(int(batch.truncated.sum()))
    else:
        steps, values, kept_states, states, cut_states = _remembered(batch, policy)
        parameters = np.concatenate([acted.parameters for acted in steps])
    masks = None if batch.masks is None else _flat(batch.masks)
    log_probs = distribution.log_prob(parameters, _flat(batch.actions), masks)
    next_values = _values_of_successors(batch, policy, values, states, cut_states)
    return Reevaluated(log_probs.reshape(shape), values, next_values, kept_states)


def revalued(batch: Batch, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """What another critic makes of a rollout.

    Args:
      batch: As for ``reevaluated``, which does this and more.
      policy: As for ``reevaluated``.

    Returns:
      values and next_values, [T, B] each, as in the batch.
    """
    if batch.states is None:
        rows = {name: column.reshape(-1, *column.shape[2:]) for name, column in batch.observations.items()}
        values, states = policy.values(rows).reshape(batch.values.shape), policy.initial_states(batch.valid.shape[1])
        cut_states = policy.initial_states(int(batch.truncated.sum()))
    else:
        _, values, _, states, cut_states = _remembered(batch, policy)
    return values, _values_of_successors(batch, policy, values, states, cut_states)


def _remembered(batch: Batch, policy: Policy) -> tuple[list[Acted], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A recurrent policy's way through a rollout: what it made of each step; values [T, B]; and states, before each
    L-th step [ceil(T / L), B, S], after the last one [B, S], and after the truncated rows [C, S].
    """
    assert batch.states is not None
    steps, states, kept_states, cut_states = [], batch.states[0], [], []
    values, elsewhere = np.empty_like(batch.values), batch.goes_on_elsewhere
    for t in range(len(values)):
        states = np.where(batch.starts[t, :, None], np.float32(0.0), states)
        if t % (length := policy.spec.network.sequence_length) == 0:
            states = np.where(elsewhere[t, :, None], batch.states[t // length], states)
            kept_states.append(states)
        acted = policy.step({name: column[t] for name, column in batch.observations.items()}, states)
        assert acted.values is not None
        values[t], states = acted.values, acted.states
        cut_states.append(states[batch.truncated[t]])
        steps.append(acted)
    return steps, values, np.stack(kept_states), states, np.concatenate(cut_states)


def _values_of_successors(
    batch: Batch, policy: Policy, values: np.ndarray, states: np.ndarray, cut_states: np.ndarray
) -> np.ndarray:
    """``next_values`` of a batch whose ``values`` the policy's critic gave, see ``_remembered``."""
    next_values = np.concatenate([values[1:], policy.values(batch.last_observations, states)[None]])
    next_values[batch.terminated] = 0.0
    if batch.truncated.any():
        next_values[batch.truncated] = policy.values(batch.cut_observations, cut_states)
    return next_values


def _joined(parts: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _flat(column: np.ndarray) -> np.ndarray:
    return column.reshape(-1, column.shape[-1])
