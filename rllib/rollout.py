"""Sampling: step environments with a policy for T steps. A function; whoever calls it decides how and where.

Called by ``EnvRunner`` in the rollout workers. Imports no torch, but for policies that see images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..envs.columns import Columns
from ..envs.vector import VectorEnv
from .batch import Batch, FinishedEpisode
from .distributions import Categorical
from .policy import Policy


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
    envs: VectorEnv, policy: Policy, num_steps: int, streams: Sequence[np.random.Generator], memory: Memory
) -> Batch:
    """Act for ``num_steps`` steps in every copy, going on where the last call stopped.

    Values are computed after the last step, all at once, where the critic takes no part in acting.

    Args:
      envs: B copies; left where they are, ready for the next call.
      policy: What acts.
      num_steps: T.
      streams: One random stream for each copy, for its actions.
      memory: Of the last call, or ``Memory.of_new_episodes`` after a reset; brought up to date.
    """
    spec, distribution, shape = policy.spec, policy.spec.actions.distribution, (num_steps, envs.num_envs)
    noise = np.stack([distribution.draw(stream, num_steps) for stream in streams], axis=1)
    observations = spec.observations.empty(num_steps + 1, envs.num_envs)
    seen = [{name: column[t] for name, column in observations.items()} for t in range(num_steps + 1)]
    parameters = np.empty((*shape, distribution.num_parameters), np.float32)
    is_choice, is_recurrent = isinstance(distribution, Categorical), spec.is_recurrent
    actions = np.empty((*shape, distribution.action_size), np.int64 if is_choice else np.float32)
    masks = None if envs.action_masks is None else np.empty((*shape, distribution.num_choices), bool)
    rewards = np.empty(shape, np.float32)
    values: np.ndarray = np.empty((num_steps + 1, envs.num_envs), np.float32)
    terminated, truncated, valid = (np.empty(shape, bool) for _ in range(3))
    starts = np.empty((num_steps + 1, envs.num_envs), bool)
    starts[0] = memory.starts
    states, kept_states = memory.states, []
    values_in_step = False
    episodes: list[FinishedEpisode] = []
    cuts: list[Mapping[str, np.ndarray]] = []
    cut_states: list[np.ndarray] = []
    for t in range(num_steps):
        _copy(envs.observations, seen[t])
        if is_recurrent:
            if t:
                starts[t] = terminated[t - 1] | truncated[t - 1] | ~valid[t - 1]
            states = np.where(starts[t, :, None], np.float32(0.0), states)
            if t % spec.network.sequence_length == 0:
                kept_states.append(states)
        acted = policy.step(seen[t], states)
        parameters[t], states = acted.parameters, acted.states
        if acted.values is not None:
            values[t], values_in_step = acted.values, True
        mask = None
        if masks is not None:
            assert envs.action_masks is not None
            masks[t] = mask = envs.action_masks.copy()
        actions[t] = distribution.sample(parameters[t], noise[t], mask)
        envs.step(spec.actions.for_environment(actions[t]))
        rewards[t], terminated[t], truncated[t], valid[t] = envs.rewards, envs.terminated, envs.truncated, envs.valid
        if envs.finished:
            episodes += [FinishedEpisode(t, episode) for episode in envs.finished]
        if truncated[t].any():
            cuts.append({name: envs.final_observations[name][envs.truncated] for name in observations})
            cut_states.append(states[envs.truncated])
    _copy(envs.observations, seen[num_steps])
    starts[1:] = terminated | truncated | ~valid
    memory.states, memory.starts = states, starts[num_steps].copy()

    if values_in_step:
        values[num_steps] = policy.values(seen[num_steps], states)
    else:
        rows = {name: column.reshape(-1, *column.shape[2:]) for name, column in observations.items()}
        values = policy.values(rows, policy.initial_states(values.size)).reshape(values.shape)
    # The row below holds the successor, except where an episode ended: there it holds the reset that followed.
    next_values = values[1:].copy()
    next_values[terminated] = 0.0
    cut_observations = spec.observations.empty(int(truncated.sum()))
    if truncated.any():
        for name, column in cut_observations.items():
            column[...] = np.concatenate([cut[name] for cut in cuts])
        next_values[truncated] = policy.values(cut_observations, np.concatenate(cut_states))
    flat_masks = None if masks is None else _rows(masks)
    log_probs = distribution.log_prob(_rows(parameters), _rows(actions), flat_masks)
    return Batch(
        observations={name: column[:num_steps] for name, column in observations.items()},
        actions=actions,
        masks=masks,
        log_probs=log_probs.reshape(shape),
        rewards=rewards,
        values=values[:num_steps],
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        starts=starts[:num_steps],
        states=np.stack(kept_states) if kept_states else None,
        last_observations=seen[num_steps],
        cut_observations=cut_observations,
        episodes=tuple(episodes),
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


def _copy(observations: Columns, into: Mapping[str, np.ndarray]) -> None:
    for name, place in into.items():
        place[...] = observations[name]


def _rows(column: np.ndarray) -> np.ndarray:
    return column.reshape(-1, column.shape[-1])
