"""Sampling: step environments with a policy for T steps. A function; whoever calls it decides how and where.

Called by ``EnvRunner`` in the rollout workers. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..envs.columns import ONLY
from ..envs.vector import VectorEnv
from .batch import Batch, FinishedEpisode
from .policy import Policy


def collect(envs: VectorEnv, policy: Policy, num_steps: int, streams: Sequence[np.random.Generator]) -> Batch:
    """Act for ``num_steps`` steps in every copy, going on where the last call stopped.

    Values are computed after the last step, all at once: the critic takes no part in acting.

    Args:
      envs: B copies; left where they are, ready for the next call.
      policy: What acts.
      num_steps: T.
      streams: One random stream for each copy, for its actions.
    """
    distribution, width = policy.spec.distribution, policy.spec.observation_size
    noise = np.stack([distribution.draw(stream, num_steps) for stream in streams], axis=1)
    observations = np.empty((num_steps + 1, envs.num_envs, width), np.float32)
    parameters = np.empty((num_steps, envs.num_envs, distribution.num_parameters), np.float32)
    rewards = np.empty((num_steps, envs.num_envs), np.float32)
    terminated = np.empty((num_steps, envs.num_envs), bool)
    truncated = np.empty((num_steps, envs.num_envs), bool)
    actions: list[np.ndarray] = []
    episodes: list[FinishedEpisode] = []
    cut_observations: list[np.ndarray] = []
    for t in range(num_steps):
        observations[t] = envs.observations[ONLY]
        parameters[t] = policy.parameters(observations[t])
        actions.append(distribution.sample(parameters[t], noise[t]))
        envs.step(distribution.for_environment(actions[t]))
        rewards[t], terminated[t], truncated[t] = envs.rewards, envs.terminated, envs.truncated
        if envs.finished:
            episodes += [FinishedEpisode(t, episode) for episode in envs.finished]
            cut_observations += list(envs.final_observations[ONLY][envs.truncated])
    observations[num_steps] = envs.observations[ONLY]
    stored_actions = np.stack(actions)

    values = policy.values(observations.reshape(-1, width)).reshape(num_steps + 1, envs.num_envs)
    # The row below holds the successor, except where an episode ended: there it holds the reset that followed.
    next_values = values[1:].copy()
    next_values[terminated] = 0.0
    if cut_observations:
        next_values[truncated] = policy.values(np.stack(cut_observations).astype(np.float32))
    flat_parameters = parameters.reshape(-1, parameters.shape[-1])
    flat_actions = stored_actions.reshape(-1, *stored_actions.shape[2:])
    return Batch(
        observations=observations[:num_steps],
        actions=stored_actions,
        log_probs=distribution.log_prob(flat_parameters, flat_actions).reshape(num_steps, envs.num_envs),
        rewards=rewards,
        values=values[:num_steps],
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        episodes=tuple(episodes),
        version=policy.version,
    )
