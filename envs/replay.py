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

#: Steps of one episode that are kept. Longer ones, of environments that never end, cannot be continued; 8 MB a copy
#: and action column.
MAX_STEPS = 1_000_000
_FIRST_CAPACITY = 64


class ActionLog:
    """The actions of the episodes under way in N copies.

    Args:
      num_envs: N.
      width: W.
      dtype: of the actions.

    Attributes:
      lengths: [N] int64, steps of each copy's episode so far.
    """

    def __init__(self, num_envs: int, width: int, dtype: np.dtype[np.generic]) -> None:
        self.lengths = np.zeros(num_envs, np.int64)
        self._actions = np.zeros((_FIRST_CAPACITY, num_envs, width), dtype)
        self._copies = np.arange(num_envs)
        self._room = _FIRST_CAPACITY  # steps until a copy may be out of room: saves looking at all lengths each step

    def record(self, actions: np.ndarray) -> None:
        """One more step of every copy, actions [N, W]."""
        if self._room == 0:
            self._make_room()
        places = self.lengths if len(self._actions) < MAX_STEPS else np.minimum(self.lengths, MAX_STEPS - 1)
        self._actions[places, self._copies] = actions
        self.lengths += 1
        self._room -= 1

    def restart(self, copy: int) -> None:
        """A new episode begins in a copy."""
        self.lengths[copy] = 0

    def load(self, copy: int, actions: np.ndarray) -> None:
        """Take over the actions [L, W] of an episode."""
        while len(self._actions) < len(actions):
            self._grow()
        self._actions[: len(actions), copy] = actions
        self.lengths[copy] = len(actions)
        self._room = 0

    def of(self, copy: int) -> np.ndarray:
        """The actions [L, W] of a copy's episode; none if it is longer than ``MAX_STEPS``."""
        length = int(self.lengths[copy])
        return self._actions[: length if length <= MAX_STEPS else 0, copy]

    def _make_room(self) -> None:
        longest = int(self.lengths.max())
        if longest >= MAX_STEPS:  # looked at again when the place that is written over may have changed
            self._room = _FIRST_CAPACITY
            return
        while len(self._actions) <= longest:
            self._grow()
        self._room = len(self._actions) - longest

    def _grow(self) -> None:
        more = min(len(self._actions), MAX_STEPS - len(self._actions))
        self._actions = np.concatenate([self._actions, np.zeros((more, *self._actions.shape[1:]), self._actions.dtype)])


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
