"""Sampling: step environments with a policy for T steps. A function; whoever calls it decides how and where.

Called by ``EnvRunner`` in the rollout workers. Imports no torch, but for policies that see images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..envs.vector import VectorEnv
from .batch import Batch, FinishedEpisode
from .distributions import Categorical
from .policy import Policy
from .streams import ActionStreams


@dataclass
class Memory:
    """What acting carries from one rollout into the next, beside the environments."""

    states: np.ndarray  #: [B, S] float32 recurrent states after the last step
    starts: np.ndarray  #: [B] bool: the next observation is the first of an episode

    @classmethod
    def of_new_episodes(cls, policy: Policy, num_envs: int) -> Memory:
        """Nothing to remember."""
        return cls(policy.initial_states(num_envs), np.ones(num_envs, bool))


def collect(
    envs: VectorEnv, policy: Policy, num_steps: int, streams: ActionStreams, memory: Memory
) -> Batch:
    """Act for ``num_steps`` steps in every copy, going on where the last call stopped.

    Values are computed after the last step, all at once, where the critic takes no part in acting.

    Args:
      envs: B copies; left where they are, ready for the next call.
      policy: What acts.
      num_steps: T.
      streams: What the copies' actions are drawn with.
      memory: Of the last call, or ``Memory.of_new_episodes`` after a reset; brought up to date.
    """
    spec, distribution = policy.spec, policy.spec.actions.distribution
    noise = distribution.noise(streams.uniforms(num_steps, distribution.num_uniforms))
    rows, states, values = _Rows(envs, policy, num_steps, memory.starts), memory.states, None
    for t in range(num_steps):
        rows.observe(t, envs)
        if spec.is_recurrent:
            states = rows.remembered(t, states, spec.network.sequence_length)
        rows.parameters[t], values, states = policy.step(rows.seen[t], states)
        if values is not None:
            rows.values[t] = values
        mask = None if rows.masks is None else rows.masks[t]
        rows.actions[t] = distribution.sample(rows.parameters[t], noise[t], mask)
        envs.step(spec.actions.for_environment(rows.actions[t]))
        rows.take_outcome(t, envs, states)
    rows.observe(num_steps, envs)
    rows.starts[1:] = rows.terminated | rows.truncated | ~rows.valid
    memory.states, memory.starts = states, rows.starts[num_steps].copy()
    if values is not None:
        rows.values[num_steps] = policy.values(rows.seen[num_steps], states)
    else:
        flat = {name: column.reshape(-1, *column.shape[2:]) for name, column in rows.observations.items()}
        rows.values[:] = policy.values(flat, policy.initial_states(rows.values.size)).reshape(rows.values.shape)
    return rows.batch(policy)


class _Rows:
    """The rows of a rollout while it is under way: T + 1 of observations, values and starts, T of all else."""

    def __init__(self, envs: VectorEnv, policy: Policy, num_steps: int, starts: np.ndarray) -> None:
        spec, distribution, shape = policy.spec, policy.spec.actions.distribution, (num_steps, envs.num_envs)
        self.observations = spec.observations.empty(num_steps + 1, envs.num_envs)
        self.seen = [{name: column[t] for name, column in self.observations.items()} for t in range(num_steps + 1)]
        self.parameters = np.empty((*shape, distribution.num_parameters), np.float32)
        dtype = np.int64 if isinstance(distribution, Categorical) else np.float32
        self.actions = np.empty((*shape, distribution.action_size), dtype)
        self.masks = None if envs.action_masks is None else np.empty((*shape, distribution.num_choices), bool)
        self.rewards = np.empty(shape, np.float32)
        self.terminated, self.truncated, self.valid = (np.empty(shape, bool) for _ in range(3))
        self.values = np.empty((num_steps + 1, envs.num_envs), np.float32)
        self.starts = np.empty((num_steps + 1, envs.num_envs), bool)
        self.starts[0] = starts
        self._kept_states: list[np.ndarray] = []
        self._episodes: list[FinishedEpisode] = []
        self._cuts: list[tuple[Mapping[str, np.ndarray], np.ndarray]] = []  # last observations, and recurrent states

    def observe(self, t: int, envs: VectorEnv) -> None:
        """Store what the policy acts on in step t."""
        for name, place in self.seen[t].items():
            place[...] = envs.observations[name]
        if self.masks is not None and t < len(self.masks):
            self.masks[t] = envs.action_masks

    def remembered(self, t: int, states: np.ndarray, sequence_length: int) -> np.ndarray:
        """Recurrent states before step t: zeros where an episode starts. Each ``sequence_length``-th is kept."""
        if t:
            self.starts[t] = self.terminated[t - 1] | self.truncated[t - 1] | ~self.valid[t - 1]
        states = np.where(self.starts[t, :, None], np.float32(0.0), states)
        if t % sequence_length == 0:
            self._kept_states.append(states)
        return states

    def take_outcome(self, t: int, envs: VectorEnv, states: np.ndarray) -> None:
        """Store what step t led to; ``states`` are the recurrent ones after it."""
        self.rewards[t], self.valid[t] = envs.rewards, envs.valid
        self.terminated[t], self.truncated[t] = envs.terminated, envs.truncated
        if envs.finished:
            self._episodes += [FinishedEpisode(t, episode) for episode in envs.finished]
        cut = self.truncated[t]
        if np.count_nonzero(cut):  # a fifth of any()'s time
            last = {name: envs.final_observations[name][cut] for name in self.observations}
            self._cuts.append((last, states[cut]))

    def batch(self, policy: Policy) -> Batch:
        """All together, when the last row and the values are there."""
        distribution, num_steps = policy.spec.actions.distribution, len(self.rewards)
        # The row below holds the successor, except where an episode ended: there it holds the reset that followed.
        next_values = self.values[1:].copy()
        next_values[self.terminated] = 0.0
        cut_observations = policy.spec.observations.empty(int(self.truncated.sum()))
        if self._cuts:
            for name, column in cut_observations.items():
                column[...] = np.concatenate([last[name] for last, _ in self._cuts])
            cut_states = np.concatenate([states for _, states in self._cuts])
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
            states=np.stack(self._kept_states) if self._kept_states else None,
            last_observations=self.seen[num_steps],
            cut_observations=cut_observations,
            episodes=tuple(self._episodes),
            version=policy.version,
        )


def revalued(batch: Batch, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """What another critic makes of a rollout.

    Args:
      batch: As ``collect`` made it.
      policy: Of the same shape as the one that acted; if it is recurrent it begins with the memory of that one.

    Returns:
      values and next_values, [T, B] each, as in the batch.
    """
    num_steps, num_envs = batch.valid.shape
    states, cut_states = policy.initial_states(num_envs), []
    if batch.states is None:
        rows = {name: column.reshape(-1, *column.shape[2:]) for name, column in batch.observations.items()}
        values = policy.values(rows).reshape(batch.values.shape)
        cut_states = [policy.initial_states(int(batch.truncated.sum()))]
    else:
        values, states = np.empty_like(batch.values), batch.states[0]
        for t in range(num_steps):
            states = np.where(batch.starts[t, :, None], np.float32(0.0), states)
            acted = policy.step({name: column[t] for name, column in batch.observations.items()}, states)
            assert acted.values is not None
            values[t], states = acted.values, acted.states
            cut_states.append(states[batch.truncated[t]])
    next_values = np.concatenate([values[1:], policy.values(batch.last_observations, states)[None]])
    next_values[batch.terminated] = 0.0
    if batch.truncated.any():
        next_values[batch.truncated] = policy.values(batch.cut_observations, np.concatenate(cut_states))
    return values, next_values


def _flat(column: np.ndarray) -> np.ndarray:
    return column.reshape(-1, column.shape[-1])
