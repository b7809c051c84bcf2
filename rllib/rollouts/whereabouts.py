"""Where the environments of each rollout worker stand, as the driver knows it. A table.

Two places are kept for each worker, and a rollout moves them one after the other: behind its last rollout that has
*come*, where another worker goes on if it dies; and behind its last one that is *counted* (learned from), which is what
a checkpoint tells. Where all workers play together the two are the same.

    begin(states) ... came(worker, state) ... counted(worker, state)

A place is None where environments cannot tell it, or before anybody asked. A worker that dies then can be replaced
exactly only if it has sent nothing yet: its episodes begin as they did.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...envs.replay import State, join_states


class Whereabouts:
    """Places of the environments of some workers.

    Args:
      count: Number of workers.
    """

    def __init__(self, count: int) -> None:
        self.begin([None] * count)

    def begin(self, states: Sequence[State | None]) -> None:
        """No worker has sent a rollout since; the environments stand here, by worker."""
        self._come: list[State | None] = list(states)
        self._counted: list[State | None] = list(states)
        self._has_sent = [False] * len(states)

    def came(self, worker: int, state: State | None) -> None:
        """A worker's rollout has come, and ended here."""
        self._come[worker] = state
        self._has_sent[worker] = True

    def counted(self, worker: int, state: State | None) -> None:
        """A worker's rollout that ended here is learned from."""
        self._counted[worker] = state

    @property
    def places(self) -> list[State | None]:
        """Behind the last rollouts that have come, by worker."""
        return list(self._come)

    def successor_is_exact(self, worker: int) -> bool:
        """Whether another worker can go on as this one would have."""
        return self._come[worker] is not None or not self._has_sent[worker]

    def all_counted(self) -> State | None:
        """Of all copies, behind the last rollouts that were learned from; None if one place is not known."""
        states = [state for state in self._counted if state is not None]
        is_known = states and len(states) == len(self._counted)  # not where external simulators play
        return join_states(states) if is_known else None
