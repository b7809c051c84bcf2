"""States as tables: every entity with a life has one `Lifecycle`, and only `Life.on` moves it.

A table says for each (state, event) what follows; what it does not say cannot happen. An illegal move raises with the
history of the one entity, and changes nothing. Diagrams are printed from the tables, so they cannot lie. Pure; a move
costs 0.2 us and may sit on the task path.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Moves that a `Life` remembers for its errors; an actor that restarts for weeks must not grow.
_REMEMBERED = 32


class InvalidTransition(RuntimeError):  # noqa: N818  named after what happened
    """An event came in a state whose table has no move for it: a fault in shoal. The state stays; no retry helps."""


class Lifecycle:
    """The table of one kind of entity.

    Args:
      name: the kind, for messages: ``actor``.
      start: the state in which every life begins.
      moves: (state, event) -> state.

    Raises:
      ValueError: a state cannot be reached from the start.
    """

    def __init__(self, name: str, *, start: str, moves: Mapping[tuple[str, str], str]) -> None:
        self.name = name
        self.start = start
        self.moves = dict(moves)
        self.states = self._reachable()
        stray = sorted({state for state, _ in self.moves} - set(self.states))
        if stray:
            raise ValueError(f"lifecycle {name}: {', '.join(stray)} cannot be reached from {start}")
        leaving = {state for state, _ in self.moves}
        #: States that are never left.
        self.final = frozenset(state for state in self.states if state not in leaving)

    def begin(self) -> Life:
        """A new life in the start state."""
        return Life(self)

    def events(self, state: str) -> list[str]:
        """The events that `state` has moves for."""
        return [event for origin, event in self.moves if origin == state]

    def describe(self) -> str:
        """The table as text, one move a line."""
        width = max(len(state) for state in self.states)
        lines = [f"{self.name}: starts {self.start}, ends {', '.join(sorted(self.final)) or 'never'}"]
        lines += [f"  {state:<{width}} --{event}--> {target}" for (state, event), target in self.moves.items()]
        return "\n".join(lines)

    def mermaid(self) -> str:
        """The table as a mermaid state diagram, for ARCHITECTURE.md."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.start}"]
        lines += [f"    {state} --> {target}: {event}" for (state, event), target in self.moves.items()]
        lines += [f"    {state} --> [*]" for state in self.states if state in self.final]
        return "\n".join(lines)

    def _reachable(self) -> list[str]:
        """The states, in the order in which they are found from the start."""
        found = [self.start]
        for state in found:  # grows while it is walked
            found += [
                target
                for target in dict.fromkeys(target for (origin, _), target in self.moves.items() if origin == state)
                if target not in found
            ]
        return found


class Life:
    """Where one entity stands in its table, and how it came there."""

    __slots__ = ("_history", "_table", "state")

    def __init__(self, table: Lifecycle) -> None:
        self._table = table
        self._history: list[tuple[str, str]] = []  # not a deque: that takes 0.7 KB, which every dead actor would keep
        self.state = table.start  #: read it, do not set it

    def on(self, event: str) -> str:
        """Move by `event`; returns the new state.

        Raises:
          InvalidTransition: the table has no such move; nothing has changed.
        """
        target = self._table.moves.get((self.state, event))
        if target is None:
            raise InvalidTransition(
                f"{self._table.name}: {event!r} in state {self.state}; came by {list(self._history)}; "
                f"possible here: {', '.join(self._table.events(self.state)) or 'nothing, the state is final'}"
            )
        self._history.append((self.state, event))
        if len(self._history) > _REMEMBERED:
            del self._history[0]
        self.state = target
        return target

    def can(self, event: str) -> bool:
        """Whether `event` has a move from here."""
        return (self.state, event) in self._table.moves

    @property
    def is_over(self) -> bool:
        return self.state in self._table.final

    @property
    def history(self) -> list[tuple[str, str]]:
        """The last moves: (state, event)."""
        return list(self._history)

    def __repr__(self) -> str:
        return f"<{self._table.name} {self.state}>"
