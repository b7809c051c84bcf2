"""Lines of workers' output: out of bytes, each with who printed it, and repeated ones folded. Pure.

    bytes of one stream  --LineReader-->  Line(title, pid, stream, text)  --Folding-->  lines to print

Folding: a line that one worker has printed is held back when another prints the very same within the window, and told
once at its end, with the number. What one worker repeats by itself is never held back: a loop that prints is a loop
that is seen. Nothing is lost: a line that was held back alone comes out as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

#: A line without an end is cut here: memory is bounded, whatever is printed.
LINE_BYTES = 64 * 1024
#: Texts that are remembered at once.
_TEXTS = 1_000


class Line(NamedTuple):  # made for every line; a frozen dataclass costs three times as much
    """One line, without its end. stream: 1 or 2. title: the task's or actor's name; empty: not known."""

    title: str
    pid: int
    stream: int
    text: str

    def shown(self, *, colour: bool) -> str:
        """With its prefix."""
        pid = f" pid={self.pid}" if self.pid else ""
        prefix = f"({self.title or 'worker'}{pid})"
        return f"\x1b[36m{prefix}\x1b[0m {self.text}" if colour else f"{prefix} {self.text}"


@dataclass(slots=True)
class Speaker:
    """Whom a worker has named last, on either of its streams."""

    title: str = ""
    pid: int = 0


class LineReader:
    """Bytes of one stream of one worker, cut into lines; the marks in between say whose they are."""

    def __init__(self, stream: int, mark: bytes, speaker: Speaker) -> None:
        self._stream = stream
        self._mark = mark
        self._speaker = speaker
        self._partial = b""

    def feed(self, data: bytes) -> list[Line]:
        """The lines that `data` completes."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        lines = [line for raw in whole for line in self._take(raw)]
        # Of a line that is written over again and again, as progress bars are, only the last state will be seen.
        self._partial = self._partial[self._partial.rfind(b"\r", 0, -1) + 1 :]
        if len(self._partial) > LINE_BYTES:
            lines += self.end()
        return lines

    def end(self) -> list[Line]:
        """The line that had no end, if there is one."""
        raw, self._partial = self._partial, b""
        return self._take(raw) if raw else []

    def _take(self, raw: bytes) -> list[Line]:
        text, marked, announced = raw.partition(self._mark)
        lines = []
        speaker = self._speaker
        if text or not marked:
            shown = text.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
            lines.append(Line(speaker.title, speaker.pid, self._stream, shown))
        if marked:
            pid, _, title = announced.decode("utf-8", "replace").partition(" ")
            speaker.pid, speaker.title = int(pid) if pid.isdecimal() else 0, title
        return lines


@dataclass(slots=True)
class _Seen:
    """A text that has been printed in this window: since when, by which processes, how many are held back."""

    since_s: float
    pids: set[int]
    held: int = 0
    last: Line | None = None


@dataclass(slots=True)
class Folding:
    """Holds back what several workers print alike. window_s: for how long; 0: nothing is held back."""

    window_s: float
    _seen: OrderedDict[tuple[int, str], _Seen] = field(default_factory=OrderedDict)

    def feed(self, line: Line, now_s: float) -> list[Line]:
        """What is to be printed now that `line` has come."""
        if self.window_s <= 0 or not line.text.strip():
            return [line]
        key = (line.stream, line.text)
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(now_s, {line.pid})
            return [*(self._end(next(iter(self._seen))) if len(self._seen) > _TEXTS else ()), line]
        seen.pids.add(line.pid)
        if len(seen.pids) == 1:
            return [line]
        seen.held += 1
        seen.last = line
        return []

    def due(self, now_s: float) -> list[Line]:
        """What the windows that are over by now have held back."""
        lines: list[Line] = []
        while self._seen:
            key, seen = next(iter(self._seen.items()))
            if now_s - seen.since_s < self.window_s:
                break
            lines += self._end(key)
            if seen.held > 1:  # there is more to come, as it seems: the text goes on being folded
                self._seen[key] = _Seen(now_s, seen.pids)
        return lines

    def next_due_s(self) -> float | None:
        """When `due` has something to say or to forget; None: nothing is remembered."""
        return None if not self._seen else next(iter(self._seen.values())).since_s + self.window_s

    def end(self) -> list[Line]:
        """Everything that is still held back."""
        return [line for key in list(self._seen) for line in self._end(key)]

    def _end(self, key: tuple[int, str]) -> list[Line]:
        seen = self._seen.pop(key)
        if seen.last is None:
            return []
        if seen.held == 1:
            return [seen.last]
        return [seen.last._replace(text=f"{seen.last.text} [{seen.held} more times, by {len(seen.pids)} workers]")]
