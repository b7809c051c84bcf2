"""How a run looks in the terminal while it goes: one live line on a terminal, plain lines anywhere else.

Shows steps done and left, steps per second, mean return and episode length, and the time left. While it is open,
whatever else the run has to say goes through `note`, which keeps the live line whole; before and after, `train` prints
by itself. Formatting is pure (`Snapshot`), the two displays only put it on the stream. Time comes from the caller's
clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

#: Seconds between plain lines: a log of an hour stays readable, and one of a minute still shows that something moves.
PLAIN_INTERVAL_S = 5.0
#: Columns of the bar: as many as the figures leave, within these bounds; on a terminal of 80 there is no room for it.
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 8, 24


@dataclass(frozen=True)
class Snapshot:
    """What there is to show after an iteration."""

    steps: int
    """Environment steps so far."""
    total_steps: int
    """Environment steps to do."""
    steps_per_second: float
    """Rate of the latest iteration; of the latest ones together, where external simulators play: see ``Pace``."""
    return_mean: float
    """Mean return of the latest episodes; NaN before the first has ended."""
    episode_length_mean: float
    """Mean length of the latest episodes in steps; NaN before the first has ended."""
    time_left_s: float
    """Seconds to the end at the mean rate so far; NaN if that is not known yet."""

    def parts(self) -> tuple[str, ...]:
        """The figures in words, in the order in which they are shown."""
        return (
            f"{self.steps:,} / {self.total_steps:,} steps",
            f"{self.steps_per_second:,.0f} steps/s",
            f"return {_number(self.return_mean)}",
            f"length {_number(self.episode_length_mean)}",
            f"{_duration(self.time_left_s)} left",
        )


class Progress:
    """The display of one run. A context manager: leaving it writes the last state and frees the terminal."""

    def __init__(
        self,
        total_steps: int,
        stream: TextIO,
        *,
        start_steps: int = 0,
        started_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the display; nothing is written yet.

        Args:
          total_steps: environment steps when the run will be over.
          stream: where to write; a terminal gets the live line.
          start_steps: steps that an earlier run has done.
          started_s: when, by the clock, this one's began; None: now.
          clock: monotonic seconds.
        """
        self._total_steps = total_steps
        self._start_steps = start_steps
        self._clock = clock
        self._started_s = clock() if started_s is None else started_s
        console = Console(file=stream)
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._display: _LiveLine | _PlainLines = _LiveLine(console) if is_live else _PlainLines(stream, clock)

    def update(self, row: Mapping[str, float]) -> None:
        """Show the state after an iteration: `steps`, `steps_per_second`, `return_mean`, `episode_length_mean`."""
        steps = int(row["steps"])
        gone_s, done = self._clock() - self._started_s, steps - self._start_steps
        left = max(self._total_steps - steps, 0)
        self._display.show(
            Snapshot(
                steps=steps,
                total_steps=self._total_steps,
                steps_per_second=row.get("steps_per_second", math.nan),
                return_mean=row.get("return_mean", math.nan),
                episode_length_mean=row.get("episode_length_mean", math.nan),
                time_left_s=left * gone_s / done if done > 0 else math.nan,
            )
        )

    def note(self, text: str) -> None:
        """Write one line of its own, above the live one."""
        self._display.note(text)

    def close(self) -> None:
        """Leave the last state on the stream. No `update` may follow."""
        self._display.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _LiveLine:
    """One line that is redrawn in place, by rich."""

    def __init__(self, console: Console) -> None:
        # rich redraws from a thread of its own by default; our figures change only in `show`, which draws at once.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        figures = Text("  ".join(snapshot.parts()), no_wrap=True, overflow="crop")
        bar_width = min(self._live.console.width - len(figures) - 2, MAX_BAR_WIDTH)
        line = Table.grid(padding=(0, 2, 0, 0))
        if bar_width >= MIN_BAR_WIDTH:
            done = min(snapshot.steps, snapshot.total_steps)
            line.add_row(ProgressBar(total=snapshot.total_steps, completed=done, width=bar_width), figures)
        else:
            line.add_row(figures)
        self._live.update(line, refresh=True)

    def note(self, text: str) -> None:
        self._live.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


class _PlainLines:
    """A line now and then, for files and pipes: the first, one every few seconds, and the last."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._written_s = -math.inf
        self._pending: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        self._pending = snapshot
        if self._clock() - self._written_s >= PLAIN_INTERVAL_S:
            self._write_pending()

    def note(self, text: str) -> None:
        self._write_pending()
        self._write(text)

    def close(self) -> None:
        self._write_pending()

    def _write_pending(self) -> None:
        if self._pending is not None:
            self._write("  ".join(self._pending.parts()))
            self._pending = None
            self._written_s = self._clock()

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def _number(value: float) -> str:
    return f"{value:,.1f}" if math.isfinite(value) else "-"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
