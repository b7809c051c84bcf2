"""What calls to an actor that is killed again and again may have done, judged afterwards. Pure.

Each call appends an `Entry` to the actor's file when it runs; each caller notes the `Outcome` it was told. The rules:

    always          an answer names the incarnation that ran the call, and how many had run in it before
                    incarnations follow one another: none writes after the next has begun
                    the calls of a caller run in the order in which they were made
    at most once    no call stands in the file twice; a call that failed may or may not have run
    at least once   no call fails, and every one has run; one that has run may run again, but only after a restart, and
                    then with all that follow it
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A call has run: written by the actor, into its file.

    caller, number: which call; numbers of a caller count from 0.
    incarnation: which life of the actor; later ones have larger numbers.
    """

    caller: str
    number: int
    incarnation: int

    def line(self) -> bytes:
        """How it stands in the file; short enough for an append to be one write."""
        return f"{self.caller} {self.number} {self.incarnation}\n".encode()

    @classmethod
    def parse(cls, line: str) -> Entry:
        """From the file.

        Raises:
          ValueError: it is no such line.
        """
        caller, number, incarnation = line.split()
        return cls(caller, int(number), int(incarnation))


@dataclass(frozen=True)
class Outcome:
    """What a caller was told of a call.

    answer: (incarnation, calls that this incarnation has run, this one included); None if it failed.
    failure: name and text of the error then.
    """

    caller: str
    number: int
    answer: tuple[int, int] | None = None
    failure: str = ""


def violations(history: Sequence[Entry], outcomes: Iterable[Outcome], *, at_least_once: bool) -> list[str]:
    """What in the history of one actor breaks the rules, a line each; [] when all is well."""
    told = list(outcomes)
    wrong = _wrong_incarnations(history) + _wrong_answers(history, told)
    callers = dict.fromkeys([*(entry.caller for entry in history), *(outcome.caller for outcome in told)])
    for caller in callers:
        mine = [entry for entry in history if entry.caller == caller]
        wrong += _wrong_repetition(caller, mine) if at_least_once else _wrong_order(caller, mine)
    has_run = {(entry.caller, entry.number) for entry in history}
    has_been_made = {(outcome.caller, outcome.number) for outcome in told}
    wrong += [f"{caller} {number} ran, but nobody made it" for caller, number in sorted(has_run - has_been_made)]
    if at_least_once:
        wrong += [f"{each.caller} {each.number} failed: {each.failure}" for each in told if each.answer is None]
        wrong += [f"{caller} {number} has never run" for caller, number in sorted(has_been_made - has_run)]
    return wrong


def _wrong_incarnations(history: Sequence[Entry]) -> list[str]:
    """An incarnation that writes after a later one has begun."""
    wrong, newest = [], 0
    for entry in history:
        if entry.incarnation < newest:
            which = f"{entry.caller} {entry.number}"
            wrong.append(f"{which} ran in incarnation {entry.incarnation}, after {newest} had begun")
        newest = max(newest, entry.incarnation)
    return wrong


def _wrong_answers(history: Sequence[Entry], outcomes: Sequence[Outcome]) -> list[str]:
    """Answers for calls that did not run so."""
    places: dict[tuple[str, int, int], set[int]] = {}
    counts: dict[int, int] = {}
    for entry in history:
        counts[entry.incarnation] = counts.get(entry.incarnation, 0) + 1
        key = (entry.caller, entry.number, entry.incarnation)
        places.setdefault(key, set()).add(counts[entry.incarnation])
    wrong = []
    for outcome in outcomes:
        if outcome.answer is None:
            continue
        incarnation, count = outcome.answer
        if count not in places.get((outcome.caller, outcome.number, incarnation), ()):
            wrong.append(
                f"{outcome.caller} {outcome.number} was answered by incarnation {incarnation} as its call {count}, "
                "but did not run so"
            )
    return wrong


def _wrong_order(caller: str, entries: Sequence[Entry]) -> list[str]:
    """At most once: every number at most once, and rising."""
    return [
        f"{caller} {later.number} ran {'again' if later.number == earlier.number else 'too late'}, "
        f"after {earlier.number}"
        for earlier, later in itertools.pairwise(entries)
        if later.number <= earlier.number
    ]


def _wrong_repetition(caller: str, entries: Sequence[Entry]) -> list[str]:
    """At least once: number after number, and back only at a restart."""
    wrong = []
    expected, incarnation = 0, None
    reached = 0  # one more than the largest number that has run
    for entry in entries:
        if entry.incarnation != incarnation:  # resumes with the first call that was not answered: none may be left out
            is_right = entry.number <= reached
        else:
            is_right = entry.number == expected
        if not is_right:
            wrong.append(f"{caller} {entry.number} ran out of order: {expected} was next")
        incarnation, expected = entry.incarnation, entry.number + 1
        reached = max(reached, expected)
    return wrong
