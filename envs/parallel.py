"""N copies of one environment, spread over processes of this machine.

Observations, actions, rewards, flags and final observations lie in one block of memory that all processes map. A step
writes actions into it, wakes every process with one byte, and sleeps until each has sent a byte back: nothing is
pickled or copied, and nobody spins. Each process runs ``SerialVectorEnv`` on its own rows (``child.py``), so what a
copy does is the same as without processes, bit for bit.

    this process   actions -> block   byte ->          sleep           -> byte   read the block
    child                  sleep               step copies, write rows           sleep

Copies may be split into groups that are stepped apart, ``step_async`` and ``step_wait``: while one group is stepped,
this process picks the actions of the other (double buffering). A group has rows in every process, and groups are
answered in the order in which they were sent.

A process that dies, or gives no answer in time, is started anew by whoever waits for it: all its copies begin new
episodes, and the step in flight is no transition for any of them. One that ends ``MAX_FAILURES`` times without an
episode finished in between is given up. Exceptions in environment code are the child's business (``serial.py``). The
processes die with this one, also when it is killed.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .actions import ActionLayout
from .arrays import Arrays, open_block
from .channel import CALL, ChannelClosed
from .child import Group, News, Setup
from .processes import ChildProcess, end_all
from .replay import State, join_states, split_state
from .seeds import SeedOfEpisode
from .serial import MAX_FAILURES
from .vector import USUAL_CHECKS, Checks, EnvFailure, Episode

if TYPE_CHECKING:
    import gymnasium

#: Seconds that a process may take for one step of its copies: ten times what slow simulators need for a reset.
STEP_DEADLINE_S = 60.0
#: Seconds until the environments of a process are made, or reset: some unpack or compile a lot.
START_DEADLINE_S = 300.0


class ParallelVectorEnv:
    """Copies stepped in other processes. Attributes and methods: see ``VectorEnv``; and the two for groups.

    Args:
      make: Makes one copy; picklable by cloudpickle, and what it names can be imported in a new process.
      env_indices: Index of each copy among all copies of the run; N = len(env_indices).
      seeds: (index, episode number) -> seed of the reset that starts the episode; picklable too.
      num_processes: How many.
      num_groups: Parts that can be stepped apart; num_processes * num_groups <= N.
      worker_index: The rollout worker that they belong to, for messages.
      checks: Which numbers are refused.
      step_deadline_s: A process that does not answer to a step for so long counts as hanging.
      start_deadline_s: The same while environments are made or reset.

    Attributes:
      groups: the rows of each group.

    Raises:
      EnvFailure: a constructor raised, or ended its process.
      UnsupportedSpace: the spaces are of a kind that has no columns.
      ValueError: more processes and groups than copies.
    """

    steps_elsewhere = True

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        env_indices: Sequence[int],
        seeds: SeedOfEpisode,
        *,
        num_processes: int,
        num_groups: int = 1,
        worker_index: int | None = None,
        checks: Checks = USUAL_CHECKS,
        step_deadline_s: float = STEP_DEADLINE_S,
        start_deadline_s: float = START_DEADLINE_S,
    ) -> None:
        self.num_envs = len(env_indices)
        if min(num_processes, num_groups) < 1 or num_processes * num_groups > self.num_envs:
            raise ValueError(
                f"{self.num_envs} environments cannot be split into {num_groups} groups in {num_processes} processes"
            )
        self._env_indices = [int(index) for index in env_indices]
        self._make, self._seeds, self._worker_index, self._checks = make, seeds, worker_index, checks
        self._step_deadline_s, self._start_deadline_s = step_deadline_s, start_deadline_s
        by_group = np.array_split(np.arange(self.num_envs), num_groups)
        self.groups = [_slice(rows) for rows in by_group]
        shares = zip(*(np.array_split(rows, num_processes) for rows in by_group), strict=True)
        block = open_block()
        self._processes = [ChildProcess([_slice(rows) for rows in share], block) for share in shares]
        self._end = weakref.finalize(self, end_all, self._processes, block)
        self._arrays = self._open(block)
        self.observations, self.final_observations = self._arrays.observations, self._arrays.final_observations
        self.rewards, self.valid = self._arrays.rewards, self._arrays.valid
        self.terminated, self.truncated = self._arrays.terminated, self._arrays.truncated
        self.action_masks: np.ndarray | None = None
        self.finished: list[Episode] = []
        self.is_quiet = False  # not known
        self.replaced = 0
        self.incidents: list[str] = []
        self._flying: deque[int] = deque()  # groups that were sent and not yet waited for, oldest first
        self._is_reset = False

    def reset(self) -> None:
        """See ``VectorEnv``."""
        self._come_to_rest()
        answers = self._call("reset", [()] * len(self._processes), self._start_deadline_s)
        for answer in answers:
            if answer is not None:
                self._take_in(*answer)
        self._forget_lost()

    def step(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        actions = self.layout.read(actions, self.num_envs)
        for group, rows in enumerate(self.groups):
            self.step_async(group, actions[rows])
        finished: list[Episode] = []
        for group in range(len(self.groups)):
            self.step_wait(group)
            finished += self.finished
        self.finished = finished

    def step_async(self, group: int, actions: np.ndarray) -> None:
        """Begin a step of one group. Its rows of the arrays must not be read until ``step_wait``.

        Args:
          group: which; ``groups[group]`` are its rows.
          actions: of these rows, [n, W].
        """
        if not self._is_reset:
            raise RuntimeError("reset the environments before the first step")
        if group in self._flying:
            raise RuntimeError(f"group {group} is being stepped already: wait for it first")
        rows = self.groups[group]
        self._arrays.actions[rows] = self.layout.read(actions, rows.stop - rows.start)
        self._flying.append(group)
        for process in self._processes:
            if group not in process.lost:
                try:
                    process.channel.send(group)
                except ChannelClosed:
                    self._replace(process)

    def step_wait(self, group: int) -> None:
        """Wait for the group that was sent first of those in flight. Its rows then hold the outcome; ``finished`` are
        its episodes.
        """
        if not self._flying or self._flying[0] != group:
            raise RuntimeError(f"group {group} is not the next to be waited for; in flight are {list(self._flying)}")
        for process in self._processes:
            if group not in process.lost:
                try:
                    news = self._hear(process, self._step_deadline_s)
                    if news is not None:
                        self._tell(news)
                except (ChannelClosed, TimeoutError):
                    self._replace(process)
            if group in process.lost:
                process.lost.discard(group)
                self._invalidate(process.rows[group])
        self._flying.popleft()
        self.finished = self._finished_in(group)

    def state(self) -> State:
        """See ``VectorEnv``."""
        if not self._is_reset:
            raise RuntimeError("environments that were never reset have no state")
        self._come_to_rest()
        while True:
            # Death is heard at once, so that there is no need of a deadline; nothing runs but shoal's own code.
            answers = self._call("state", [()] * len(self._processes), 0.0)
            if None not in answers:
                break
        parts = [
            (rows.start, state)
            for process, states in zip(self._processes, answers, strict=True)
            for rows, state in zip(process.rows, states, strict=True)
        ]
        return join_states([state for _, state in sorted(parts, key=lambda part: part[0])])

    def restore(self, state: State) -> int:
        """See ``VectorEnv``."""
        self._come_to_rest()
        owners = sorted((rows.start, rows.stop - rows.start) for process in self._processes for rows in process.rows)
        parts = split_state(state, [count for _, count in owners])
        by_start = {start: part for (start, _), part in zip(owners, parts, strict=True)}
        arguments = [([by_start[rows.start] for rows in process.rows],) for process in self._processes]
        not_continued = 0
        # No deadline: repeating episodes takes as long as they took.
        for process, answer in zip(self._processes, self._call("restore", arguments, 0.0), strict=True):
            if answer is None:
                not_continued += sum(rows.stop - rows.start for rows in process.rows)
            else:
                not_continued += answer[0]
                self._take_in(*answer[1:])
        self._forget_lost()
        return not_continued

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._is_reset = False
        self._end()

    def _open(self, block: int) -> Arrays:
        """Start all processes, side by side, and lay out the block when they have told their spaces.

        Raises:
          EnvFailure, UnsupportedSpace: the environments cannot be made.
        """
        try:
            for process in self._processes:
                process.start(self._setup(process, np.zeros(self.num_envs, np.int64)))
            spaces = [self._hear_at_start(process) for process in self._processes]
            self.observation_space, self.action_space = spaces[0]
            self.layout = ActionLayout.of(self.action_space)
            arrays = Arrays.map(block, self.observation_space, self.action_space, self.num_envs)
            for process in self._processes:
                process.channel.send_frame(CALL, self.num_envs)
            for process in self._processes:
                self._hear_at_start(process)
        except BaseException:
            for process in self._processes:
                process.kill()  # some may still be busy in constructors, and would not hear that nobody needs them
            self.close()
            raise
        return arrays

    def _hear_at_start(self, process: ChildProcess) -> Any:
        try:
            return process.hear(self._start_deadline_s)
        except (ChannelClosed, TimeoutError) as error:
            told = f"{self._who(process)}: their process {process.kill()} while the environments were made"
            raise EnvFailure(told) from error

    def _setup(self, process: ChildProcess, first_episodes: np.ndarray) -> Setup:
        groups = [
            Group(rows, tuple(self._env_indices[rows]), tuple(first_episodes[rows].tolist())) for rows in process.rows
        ]
        return Setup(self._make, tuple(groups), self._seeds, self._worker_index, self._checks)

    def _hear(self, process: ChildProcess, deadline_s: float) -> Any:
        """What the process answers. What an environment raised ends this vector environment."""
        try:
            return process.hear(deadline_s)
        except RuntimeError:  # EnvFailure is one
            self.close()
            raise

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...]], deadline_s: float) -> list[Any]:
        """Have all processes do something. None instead of an answer where a new process had to be started."""
        asked: list[ChildProcess] = []
        for process, given in zip(self._processes, arguments, strict=True):
            try:
                process.channel.send_frame(CALL, (method, given))
                asked.append(process)
            except ChannelClosed:
                self._replace(process)
        answers: list[Any] = []
        for process in self._processes:
            try:
                answers.append(self._hear(process, deadline_s) if process in asked else None)
            except (ChannelClosed, TimeoutError):
                self._replace(process)
                answers.append(None)
        return answers

    def _replace(self, process: ChildProcess) -> None:
        """A new process in place of one that is dead or hangs; its copies stand at the beginning of new episodes.

        Raises:
          EnvFailure: this one ended once too often, or what it makes can no longer be made.
        """
        end = process.kill()
        process.failures += 1
        if process.failures >= MAX_FAILURES:
            self.close()
            told = f"{self._who(process)}: their process {end}, {MAX_FAILURES} times without finishing an episode"
            raise EnvFailure(told)
        self.incidents.append(f"{self._who(process)}: their process {end}; it was replaced")
        self.replaced += sum(rows.stop - rows.start for rows in process.rows)
        try:
            process.start(self._setup(process, self._arrays.episodes + 1))
            process.hear(self._start_deadline_s)
            process.channel.send_frame(CALL, self.num_envs)
            process.hear(self._start_deadline_s)
            process.channel.send_frame(CALL, ("reset", ()))
            self._take_in(*process.hear(self._start_deadline_s))
        except (ChannelClosed, TimeoutError):
            self._replace(process)
        except RuntimeError:  # EnvFailure is one
            self.close()
            raise
        process.lost = set(range(len(self.groups)))

    def _come_to_rest(self) -> None:
        if self._flying:
            raise RuntimeError(f"groups {list(self._flying)} are being stepped: wait for them first")

    def _forget_lost(self) -> None:
        """All copies stand at the beginning of a step that the caller has not seen the beginning of."""
        for process in self._processes:
            process.lost.clear()
        self._is_reset = True
        self.finished = []

    def _take_in(self, has_masks: bool, news: News) -> None:  # noqa: FBT001 - an answer of the child, as it comes
        if has_masks:
            self.action_masks = self._arrays.action_masks
        self._tell(news)

    def _tell(self, news: News) -> None:
        self.incidents += news.incidents
        self.replaced += news.replaced

    def _invalidate(self, rows: slice) -> None:
        arrays = self._arrays
        for array in (arrays.rewards, arrays.terminated, arrays.truncated, arrays.valid):
            array[rows] = 0

    def _finished_in(self, group: int) -> list[Episode]:
        arrays, finished = self._arrays, []
        for process in self._processes:
            rows = process.rows[group]
            ended = np.flatnonzero(arrays.terminated[rows] | arrays.truncated[rows])
            for i in (ended + rows.start).tolist():
                if length := int(arrays.final_lengths[i]):  # 0: the episode goes on
                    process.failures = 0
                    finished.append(Episode(self._env_indices[i], float(arrays.final_returns[i]), length))
        return finished

    def _who(self, process: ChildProcess) -> str:
        indices = [index for rows in process.rows for index in self._env_indices[rows]]
        worker = "" if self._worker_index is None else f"worker {self._worker_index}, "
        return f"{worker}environment{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def _slice(rows: np.ndarray) -> slice:
    return slice(int(rows[0]), int(rows[-1]) + 1)
