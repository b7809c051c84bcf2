"""N copies of one environment in this process.

The plain implementation of ``VectorEnv``: a loop. ``ParallelVectorEnv`` runs one of these in each of its processes, on
arrays that all of them share; that is why the arrays may be handed in.

A copy whose code raises is replaced by a new one, which starts the next episode; the row is not valid. A copy that has
been replaced ``MAX_FAILURES`` - 1 times without finishing an episode in between has a bug and not bad luck: its next
crash is passed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .actions import ActionLayout
from .arrays import Arrays
from .checks import Watch
from .columns import Columns
from .copies import EnvCopy
from .replay import ActionLog, State, kept_steps, split_state
from .seeds import SeedOfEpisode
from .vector import USUAL_CHECKS, Checks, EnvCrash, EnvFailure, Episode

if TYPE_CHECKING:
    import gymnasium

#: Crashes of a copy, without a finished episode in between, after which it is given up.
MAX_FAILURES = 3


class SerialVectorEnv:
    """Copies stepped one after the other. Attributes and methods: see ``VectorEnv``; ``arrays`` is where they lie.

    Args:
      make: Makes one copy.
      env_indices: Index of each copy among all copies of the run; N = len(env_indices) >= 1.
      seeds: (index, episode number) -> seed of the reset that starts the episode.
      worker_index: The rollout worker that they live in, for messages.
      checks: Which numbers are refused.
      arrays: Makes the arrays, of (observation space, action space, N): in this process's own memory, or where others
        see them too.
      first_episodes: Number of each copy's first episode; 0 by default.

    Raises:
      EnvFailure: a constructor raised.
      UnsupportedSpace: the spaces are of a kind that has no columns.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        env_indices: Sequence[int],
        seeds: SeedOfEpisode,
        *,
        worker_index: int | None = None,
        checks: Checks = USUAL_CHECKS,
        arrays: Callable[[gymnasium.Space[Any], gymnasium.Space[Any], int], Arrays] = Arrays.allocate,
        first_episodes: Sequence[int] | None = None,
    ) -> None:
        self._make, self._seeds, self._worker_index, self._checks = make, seeds, worker_index, checks
        self._copies = [EnvCopy(make, index, worker_index=worker_index) for index in env_indices]
        self.num_envs = len(self._copies)
        self.observation_space = self._copies[0].observation_space
        self.action_space = self._copies[0].action_space
        self._writer, self.layout = self._copies[0].writer, ActionLayout.of(self.action_space)
        self.arrays = arrays(self.observation_space, self.action_space, self.num_envs)
        self.observations, self.final_observations = self.arrays.observations, self.arrays.final_observations
        self.rewards, self.valid = self.arrays.rewards, self.arrays.valid
        self.terminated, self.truncated = self.arrays.terminated, self.arrays.truncated
        self.action_masks: np.ndarray | None = None
        self.finished: list[Episode] = []
        self.is_quiet = True  # then no flag is to be cleared before the next step
        self.replaced = 0
        self.incidents: list[str] = []
        self._rows = self._writer.rows(self.observations)
        self._final_rows = self._writer.rows(self.final_observations)
        self._watch = Watch(self.arrays, self._writer.specs, checks)
        self._log = ActionLog(self.num_envs, self.layout.width, self.layout.dtype)
        self._episodes = self.arrays.episodes
        self._episodes[:] = -1 if first_episodes is None else np.asarray(first_episodes) - 1
        self._returns = [0.0] * self.num_envs
        self._failures = [0] * self.num_envs
        self._begins = np.ones(self.num_envs, bool)  # the next step is the first of what is learned from as one
        self._is_reset = False

    def reset(self) -> None:
        """See ``VectorEnv``."""
        self._clear()
        self.finished = []
        for i in range(self.num_envs):
            self._start(i)
        self._find_masks()
        self._begins[:] = True
        self.is_quiet = False
        self._check()

    def step(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        if not self._is_reset:
            raise RuntimeError("reset the environments before the first step")
        actions = self.layout.read(actions, self.num_envs)
        if not self.is_quiet:
            self._clear()
        self.finished = []
        self._log.record(actions)
        for i, (copy, action) in enumerate(zip(self._copies, self.layout.unflatten_all(actions), strict=True)):
            try:
                reward, terminated, truncated = copy.step(action, self._rows[i])
            except EnvCrash as crash:
                self._cut(i, crash)
                continue
            self.rewards[i] = reward
            self._returns[i] += copy.score
            if terminated or truncated:
                self.terminated[i], self.truncated[i] = terminated, truncated
                self._finish(i, goes_on=copy.goes_on)
            if self.action_masks is not None:
                self._copies[i].write_mask(self.layout, self.action_masks[i], self._log.length(i))
        if not self.is_quiet:
            np.logical_or(self.terminated, self.truncated, out=self._begins)
            self._begins |= ~self.valid
        self._check()

    def state(self) -> State:
        """See ``VectorEnv``; what the arrays are: see ``replay.py``."""
        if not self._is_reset:
            raise RuntimeError("environments that were never reset have no state")
        state = {
            "episode": self._episodes.copy(),
            "length": self._log.lengths,
            "episode_return": np.array(self._returns, np.float64),
            "begins": self._begins.copy(),
            "actions": np.concatenate([self._log.of(i) for i in range(self.num_envs)]),
            **{f"observations/{name}": column.copy() for name, column in self.observations.items()},
        }
        return state if self.action_masks is None else {**state, "action_masks": self.action_masks.copy()}

    def restore(self, state: State) -> int:
        """See ``VectorEnv``. Takes as long as the episodes took."""
        parts = split_state(state, [1] * self.num_envs)
        _check_fits(state, self.observations, self.layout)
        self._clear()
        self.finished = []
        not_continued = 0
        for i, part in enumerate(parts):
            self._episodes[i] = int(part["episode"][0]) - 1
            reason = self._replay(i, part)
            self._returns[i] = float(part["episode_return"][0])
            self._begins[i] = bool(part["begins"][0]) or reason is not None
            if reason is not None:
                not_continued += 1
                index = self._copies[i].env_index
                self.incidents.append(f"environment {index}: a new episode, as the one under way {reason}")
                self._start(i)
        self.is_quiet = False
        self._find_masks()
        self._check()
        return not_continued

    def close(self) -> None:
        """See ``VectorEnv``."""
        copies, self._copies, self._is_reset = self._copies, [], False
        with contextlib.ExitStack() as closing:  # one that fails must not leave the others open
            for copy in copies:
                closing.callback(copy.close)

    def _clear(self) -> None:
        for array in (self.rewards, self.terminated, self.truncated, self._begins):
            array[:] = 0
        self.valid[:] = True
        self.is_quiet = True

    def _start(self, i: int) -> None:
        """The next episode in copy i; a copy that cannot be reset is replaced."""
        while True:
            self._episodes[i] += 1
            self._returns[i] = 0.0
            self._log.restart(i)
            try:
                self._copies[i].reset(self._rows[i], self._seeds(self._copies[i].env_index, int(self._episodes[i])))
                return
            except EnvCrash as crash:
                self._replace(i, crash)

    def _finish(self, i: int, *, goes_on: bool) -> None:
        """An episode of copy i has ended; or only a part of it that is learned from apart, and it goes on."""
        self.is_quiet = False
        for last, place in zip(self._rows[i], self._final_rows[i], strict=True):
            place[...] = last
        length = 0 if goes_on else self._log.length(i)
        self.arrays.final_returns[i], self.arrays.final_lengths[i] = self._returns[i], length
        if not goes_on:
            self.finished.append(Episode(self._copies[i].env_index, self._returns[i], length))
            self._failures[i] = 0
            self._start(i)

    def _cut(self, i: int, crash: EnvCrash) -> None:
        self.is_quiet = False
        self.valid[i], self.rewards[i] = False, 0.0
        self._replace(i, crash)
        self._start(i)
        if self.action_masks is not None:
            self._copies[i].write_mask(self.layout, self.action_masks[i], 0)

    def _replace(self, i: int, crash: EnvCrash) -> None:
        """A new copy in place of one that raised.

        Raises:
          EnvFailure: it was one too many, or the new one cannot be made.
        """
        self._failures[i] += 1
        if self._failures[i] >= MAX_FAILURES:
            message = f"{crash}\nIt was replaced {MAX_FAILURES - 1} times before, and no episode has ended since."
            raise EnvFailure(message) from crash.__cause__
        index, step = self._copies[i].env_index, self._log.length(i)
        cause = str(crash).partition("\n")[0]
        self.incidents.append(f"{cause} (step {step} of episode {self._episodes[i]}); it was replaced")
        self.replaced += 1
        try:
            self._copies[i].close()
        except EnvFailure as failure:  # what is broken may well not close; the new copy does not care
            self.incidents.append(str(failure).partition("\n")[0])
        self._copies[i] = EnvCopy(self._make, index, worker_index=self._worker_index)

    def _replay(self, i: int, part: State) -> str | None:
        """Lead copy i to where it stood. Gives None, or why it is not there, as the end of a sentence."""
        self._start(i)
        if kept_steps(part)[0] < part["length"][0]:
            return "is too long to be repeated"
        for done, action in enumerate(self.layout.unflatten_all(part["actions"])):
            try:
                _, terminated, truncated = self._copies[i].step(action, self._rows[i])
            except EnvCrash as crash:
                self._replace(i, crash)
                return f"crashed in step {done + 1} when it was repeated"
            if (terminated or truncated) and not self._copies[i].goes_on:
                return f"ended in step {done + 1} when it was repeated: it is not a function of seed and actions"
        self._log.load(i, part["actions"])
        for name, place in zip(self._writer.specs, self._rows[i], strict=True):
            if not np.array_equal(place, part[f"observations/{name}"][0], equal_nan=place.dtype.kind == "f"):
                return "led elsewhere when it was repeated: it is not a function of seed and actions"
        return None

    def _find_masks(self) -> None:
        """Whether there are masks is known after the first reset, and stays so."""
        if not self._is_reset and any(copy.mask is not None for copy in self._copies):
            self.action_masks = self.arrays.action_masks
        self._is_reset = True
        if self.action_masks is not None:
            for i, copy in enumerate(self._copies):
                copy.write_mask(self.layout, self.action_masks[i], self._log.length(i))

    def _check(self) -> None:
        """Refuse wrong numbers. Looked for in whole arrays; only then in which copy."""
        ended = None if self.is_quiet else self.terminated | self.truncated
        if self._watch.is_right(ended):
            return
        lengths = {episode.env_index: episode.length for episode in self.finished}
        for i, copy in enumerate(self._copies):
            reward = float(self.rewards[i])
            if copy.env_index in lengths:
                copy.check_outcome(lengths[copy.env_index], self._final_rows[i], reward, self._checks)
            copy.check_outcome(self._log.length(i), self._rows[i], reward, self._checks)


def _check_fits(state: State, observations: Columns, layout: ActionLayout) -> None:
    """Raises ValueError if a state is of other spaces."""
    saved = {name.partition("/")[2]: array for name, array in state.items() if name.startswith("observations/")}
    if saved.keys() != observations.keys():
        raise ValueError(f"a state of observations {sorted(saved)}; these have {sorted(observations)}")
    for name, column in observations.items():
        if (saved[name].shape, saved[name].dtype) != (column.shape, column.dtype):
            raise ValueError(f"a state of observations {name!r} {saved[name].shape}; these have {column.shape}")
    if state["actions"].shape[1:] != (layout.width,):
        raise ValueError(f"a state with actions of size {state['actions'].shape[1:]}; these have {layout.width}")
