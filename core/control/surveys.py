"""What goes on, asked of every process at once: the head sends the question on and gathers the answers.

    Survey --begin--> Gathering --answered, died (each process)--> complete --> Answer
                          `-------expired-------------------------> Answer, with those that were silent

The head adds what it knows itself (`facts`). A process that does not answer in time is named in the answer.
What workers remember of their work outlives them here, when they leave because they are told to: `farewell`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ..observing.measures import merge
from ..protocol import messages as m
from ..transport.endpoint import HEAD
from ..transport.loop import Loop

Row = dict[str, Any]


@dataclass(slots=True)
class Gathering:
    """One question under way."""

    asker: bytes
    request: int
    subject: str
    facts: list[Row]
    silent: set[bytes]  #: have not answered
    answers: list[tuple[bytes, list[Row], bool]] = field(default_factory=list)

    def answer(self) -> m.Answer:
        return m.Answer(self.request, (self.facts, self.answers, sorted(self.silent)))


class GatheringTable:
    """All questions under way. Pure."""

    def __init__(self) -> None:
        self._open: dict[int, Gathering] = {}
        self._numbers = count(1)

    def begin(self, asker: bytes, request: int, subject: str, facts: list[Row], asked: Iterable[bytes]) -> int:
        """A question goes out to `asked`; returns its number."""
        number = next(self._numbers)
        self._open[number] = Gathering(asker, request, subject, facts, set(asked))
        return number

    def answered(self, number: int, process: bytes, rows: list[Row], *, is_all: bool) -> None:
        """A process has answered; one that comes too late is ignored."""
        gathering = self._open.get(number)
        if gathering is not None and process in gathering.silent:
            gathering.silent.remove(process)
            gathering.answers.append((process, rows, is_all))

    def process_died(self, process: bytes) -> None:
        """It will not answer; and what it has asked itself interests nobody any more."""
        for number, gathering in list(self._open.items()):
            gathering.silent.discard(process)
            if gathering.asker == process:
                del self._open[number]

    def complete(self) -> list[Gathering]:
        """The questions that everybody has answered; they are over."""
        over = [number for number, gathering in self._open.items() if not gathering.silent]
        return [self._open.pop(number) for number in over]

    def expired(self, number: int) -> Gathering | None:
        """Its time is up; None if it was over before."""
        return self._open.pop(number, None)


class Surveys:
    """The head's desk for questions about what goes on."""

    def __init__(
        self,
        loop: Loop,
        *,
        members: Callable[[], Iterable[bytes]],
        facts: Callable[[str, bytes], list[Row]],
        remembered: int,
        on_farewell: Callable[[bytes], None],
    ) -> None:
        """
        Args:
          on_farewell: called with a process that leaves.
          members: the processes that can be asked.
          facts: (subject, key) -> what the head itself knows.
          remembered: rows of workers that have left; older ones are forgotten.
        """
        self._loop = loop
        self._members = members
        self._facts = facts
        self._on_farewell = on_farewell
        self._table = GatheringTable()
        self._left: dict[str, deque[Row]] = {
            subject: deque(maxlen=remembered) for subject in ("tasks", "spans")
        }
        #: What the living have measured, as they last told; what the dead had, added up.
        self._measured: dict[bytes, list[Row]] = {}
        self._measured_by_dead: list[Row] = []
        loop.on(m.Survey, self._survey)
        loop.on(m.Inspected, self._inspected)
        loop.on(m.Farewell, self._farewell)
        loop.on(m.Measured, self._hear_measured)

    def process_died(self, process: bytes) -> None:
        """Nobody waits for it."""
        self._table.process_died(process)
        self._answer_complete()
        rows = self._measured.pop(process, None)
        if rows:
            self._measured_by_dead = merge([*self._measured_by_dead, *rows])

    def _survey(self, peer: bytes, message: m.Survey) -> None:
        members = set(self._members())
        asked = members if not message.target else {message.target} & members
        facts = [] if message.target not in (b"", HEAD) else self._facts(message.subject, message.key)
        if not message.target:
            hexed = message.key.hex()
            facts += [row for row in self._left.get(message.subject, ()) if row.get("task_id") == hexed or not hexed]
        if message.subject == "metrics":
            facts += self._measured_by_dead
        number = self._table.begin(peer, message.request, message.subject, facts, asked)
        for process in asked:
            self._loop.send(process, m.Inspect(number, message.subject, message.key, message.limit))
        self._answer_complete()
        self._loop.after(message.timeout_s, lambda: self._expire(number))

    def _inspected(self, peer: bytes, message: m.Inspected) -> None:
        self._table.answered(message.number, peer, message.rows, is_all=message.is_all)
        self._answer_complete()

    def _farewell(self, peer: bytes, message: m.Farewell) -> None:
        self._on_farewell(peer)
        for subject, rows in message.rows.items():
            if subject in self._left:
                self._left[subject].extend(rows)

    def _hear_measured(self, peer: bytes, message: m.Measured) -> None:
        if peer in self._members():  # else it is counted among the dead already
            self._measured[peer] = message.rows

    def _expire(self, number: int) -> None:
        gathering = self._table.expired(number)
        if gathering is not None:
            self._loop.send(gathering.asker, gathering.answer())

    def _answer_complete(self) -> None:
        for gathering in self._table.complete():
            self._loop.send(gathering.asker, gathering.answer())
