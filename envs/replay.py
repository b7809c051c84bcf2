"""Where ordinary environments stand, without asking them: the actions since the start of each episode.

An episode is a function of its seed and its actions (``vector.py``), so replaying them leads back to the same place,
bit for bit, in any process. The state of N copies is a dict of arrays, whole rows of which belong to one copy, so that
states of several vector environments can be joined and cut again (``join_states``, ``split_state``): a run may go on
with another number of workers.

    episode [N] int64           number of the episode under way
    length [N] int64            its steps so far
    episode_return [N] float64  what it earned so far
    begins [N] bool             the next step is the first of an episode, or of a life that is learned from as one
    actions [sum of length, W]  all actions of copy 0's episode, then of copy 1's, ...
    observations/NAME [N, ...]  where it stands; what a replay must lead to
    action_masks [N, C] bool    only where the environment gives masks

Batched environments (``batched.py``) keep the first four, and their physical state instead of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

State = dict[str, np.ndarray]

#: Steps of one episode that are kept. Longer ones, of environments that never end, cannot be continued; 8 to 16 MB a
#: copy and action column.
MAX_STEPS = 1_000_000
_FIRST_CAPACITY = 64


class ActionLog:
    """The actions of the episodes under way in N copies: a row for each step of all copies, as they come, and the row
    at which each copy's episode began. So a step writes one row, and costs 0.3 us.

    Args:
      num_envs: N.
      width: W.
      dtype: of the actions.
    """

    def __init__(self, num_envs: int, width: int, dtype: np.dtype[np.generic]) -> None:
        self._actions = np.zeros((_FIRST_CAPACITY, num_envs, width), dtype)
        self._rows = 0  # written so far
        self._begins = [0] * num_envs  # below 0 where an episode is so long that its first rows are gone

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, steps of each copy's episode so far."""
        return self._rows - np.array(self._begins, np.int64)

    def length(self, copy: int) -> int:
        """Steps of a copy's episode so far."""
        return self._rows - self._begins[copy]

    def record(self, actions: np.ndarray) -> None:
        """One more step of every copy, actions [N, W]."""
        if self._rows == len(self._actions):
            self._make_room()
        self._actions[self._rows] = actions
        self._rows += 1

    def restart(self, copy: int) -> None:
        """A new episode begins in a copy."""
        self._begins[copy] = self._rows

    def load(self, copy: int, actions: np.ndarray) -> None:
        """Take over the actions [L, W] of an episode."""
        if len(actions) > self._rows:
            missing = len(actions) - self._rows
            before = np.zeros((missing, *self._actions.shape[1:]), self._actions.dtype)
            self._actions = np.concatenate([before, self._actions[: self._rows]])
            self._move(missing)
        self._begins[copy] = self._rows - len(actions)
        self._actions[self._begins[copy] : self._rows, copy] = actions

    def of(self, copy: int) -> np.ndarray:
        """The actions [L, W] of a copy's episode; none if it is longer than ``MAX_STEPS``."""
        begin = self._begins[copy] if self.length(copy) <= MAX_STEPS else self._rows
        return self._actions[begin : self._rows, copy]

    def _make_room(self) -> None:
        """Drop the rows that are of no episode under way, and have as many free ones as are left."""
        kept = [begin for begin in self._begins if self._rows - begin < MAX_STEPS]  # others grow too long now
        first = min(kept, default=self._rows)
        used = self._actions[first : self._rows]
        capacity = max(_FIRST_CAPACITY, 2 * len(used))
        actions = np.zeros((capacity, *self._actions.shape[1:]), self._actions.dtype)
        actions[: len(used)] = used
        self._actions = actions
        self._move(-first)

    def _move(self, by: int) -> None:
        """All rows have been moved."""
        self._rows += by
        self._begins = [begin + by for begin in self._begins]


def join_states(states: Sequence[State]) -> State:
    """The state of all copies together, in the order given."""
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


def split_state(state: State, counts: Sequence[int]) -> list[State]:
    """The inverse of ``join_states``: states of the first ``counts[0]`` copies, the next ``counts[1]``, ...

    Raises:
      ValueError: the state is not of so many copies, or its parts do not belong together.
    """
    lengths = kept_steps(state)
    if len(lengths) != sum(counts):
        raise ValueError(f"a state of {len(lengths)} environments; there are {sum(counts)}")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    actions = state.get("actions")
    if actions is not None and len(actions) != starts[-1]:
        raise ValueError(f"a state with {len(actions)} actions of episodes that had {starts[-1]} steps")
    parts: list[State] = []
    first = 0
    for count in counts:
        last = first + count
        part = {name: array[first:last] for name, array in state.items() if name != "actions"}
        if actions is not None:
            part["actions"] = actions[starts[first] : starts[last]]
        parts.append(part)
        first = last
    return parts


def kept_steps(state: State) -> np.ndarray:
    """[N] how many actions the state holds of each copy's episode: all or none."""
    lengths = state["length"]
    return np.where(lengths <= MAX_STEPS, lengths, 0)
