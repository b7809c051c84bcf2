"""N copies of one environment in this process, in groups that are stepped apart.

For rollouts whose actions somebody else picks: while he does so for one group, this process steps another (double
buffering). Each group is a ``SerialVectorEnv`` on its own rows of arrays that all share, so what a copy does is what it
does in a single one, to the last bit. A step is taken when its actions come: ``step_wait`` waits for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Arrays
from .replay import State, join_states, split_state
from .seeds import SeedOfEpisode
from .serial import SerialVectorEnv
from .vector import USUAL_CHECKS, Checks, Episode

if TYPE_CHECKING:
    import gymnasium


class PartedVectorEnv:
    """Groups of copies stepped one after the other. Attributes and methods: see ``VectorEnv`` and ``SteppedInParts``.

    Args:
      make, env_indices, seeds, worker_index, checks: See ``SerialVectorEnv``.
      num_groups: From 1 to the number of copies.

    Raises:
      EnvFailure: a constructor raised.
      UnsupportedSpace: the spaces are of a kind that has no columns.
      ValueError: more groups than copies.
    """

    steps_elsewhere = False

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        env_indices: Sequence[int],
        seeds: SeedOfEpisode,
        *,
        num_groups: int,
        worker_index: int | None = None,
        checks: Checks = USUAL_CHECKS,
    ) -> None:
        self.num_envs = len(env_indices)
        if not 1 <= num_groups <= self.num_envs:
            raise ValueError(f"{self.num_envs} environments cannot be split into {num_groups} groups")
        rows = np.array_split(np.arange(self.num_envs), num_groups)
        self.groups = [slice(int(each[0]), int(each[-1]) + 1) for each in rows]
        shared: list[Arrays] = []
        self._parts: list[SerialVectorEnv] = []

        def arrays(observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], _: int) -> Arrays:
            if not shared:
                shared.append(Arrays.allocate(observation_space, action_space, self.num_envs))
            return shared[0].rows(self.groups[len(self._parts)])

        for each in rows:
            self._parts.append(
                SerialVectorEnv(
                    make, [env_indices[i] for i in each], seeds, worker_index=worker_index, checks=checks, arrays=arrays
                )
            )
        first, self._arrays = self._parts[0], shared[0]
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self.layout = first.layout
        self.observations, self.final_observations = self._arrays.observations, self._arrays.final_observations
        self.rewards, self.valid = self._arrays.rewards, self._arrays.valid
        self.terminated, self.truncated = self._arrays.terminated, self._arrays.truncated
        self.action_masks: np.ndarray | None = None
        self.finished: list[Episode] = []
        self.is_quiet = False
        self.replaced = 0
        self.incidents: list[str] = []
        for part in self._parts:
            part.incidents = self.incidents

    def reset(self) -> None:
        """See ``VectorEnv``."""
        for part in self._parts:
            part.reset()
        self._come_to_rest()

    def step(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        actions = self.layout.read(actions, self.num_envs)
        finished: list[Episode] = []
        for group, rows in enumerate(self.groups):
            self.step_async(group, actions[rows])
            finished += self._parts[group].finished
        self.finished, self.is_quiet = finished, all(part.is_quiet for part in self._parts)

    def step_async(self, group: int, actions: np.ndarray) -> None:
        """Step one group; see ``SteppedInParts``."""
        self._parts[group].step(actions)
        self.replaced = sum(part.replaced for part in self._parts)

    def step_wait(self, group: int) -> None:
        """Show what the step of a group led to; see ``SteppedInParts``."""
        self.finished, self.is_quiet = self._parts[group].finished, self._parts[group].is_quiet

    def state(self) -> State:
        """See ``VectorEnv``."""
        return join_states([part.state() for part in self._parts])

    def restore(self, state: State) -> int:
        """See ``VectorEnv``."""
        states = split_state(state, [part.num_envs for part in self._parts])
        not_continued = sum(part.restore(each) for part, each in zip(self._parts, states, strict=True))
        self._come_to_rest()
        return not_continued

    def close(self) -> None:
        """See ``VectorEnv``."""
        with contextlib.ExitStack() as closing:  # one that fails must not leave the others open
            for part in self._parts:
                closing.callback(part.close)

    def _come_to_rest(self) -> None:
        self.finished, self.is_quiet = [], False
        self.replaced = sum(part.replaced for part in self._parts)
        if self._parts[0].action_masks is not None:
            self.action_masks = self._arrays.action_masks
