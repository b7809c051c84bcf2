"""What a run leaves for people to read: one row of numbers per iteration, in four forms.

    progress.csv     a column per number; missing ones are empty
    metrics.jsonl    an object per row; numbers that are not finite are null, as JSON has no word for them
    events.*         TensorBoard, through tensorboardX (the step is `steps`)
    curve.png        return over environment steps, drawn from progress.csv when the log is closed

A row is a flat mapping of names to numbers with at least `steps`. Every row is on its way to disk when `write`
returns, so a killed run keeps all but its last; a table that must be written anew is written beside the old one, which
it then replaces. A run that is resumed from a checkpoint forgets the rows after it: they will be made again. Not for
settings or results of a run (config.json, evaluation.json: scripts write these), and not for the terminal (`progress`).
tensorboardX and matplotlib are imported at the first use: `shoal train --help` must not wait for them.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import tensorboardX

CSV_NAME = "progress.csv"
JSON_LINES_NAME = "metrics.jsonl"
CURVE_NAME = "curve.png"
#: How the names of TensorBoard's files begin.
EVENTS_PREFIX = "events.out.tfevents."

#: Rows where an evaluation took place carry its mean under this name; the curve marks them.
EVALUATION = "evaluation/return_mean"


class RunLog:
    """The four logs of one run directory, written together. A context manager; leaving it closes the log."""

    def __init__(self, run_dir: Path, *, title: str, resume_at: int | None = None) -> None:
        """Open the logs.

        Args:
          run_dir: an existing folder.
          title: heading of the curve.
          resume_at: go on after this many environment steps and drop the rows beyond; None starts afresh.
        """
        import tensorboardX

        self._run_dir = run_dir
        self._title = title
        keep_until = -1 if resume_at is None else resume_at
        self._csv = CsvLog(run_dir / CSV_NAME, keep_until)
        self._json_lines = JsonLinesLog(run_dir / JSON_LINES_NAME, keep_until)
        self._events: tensorboardX.SummaryWriter = tensorboardX.SummaryWriter(
            str(run_dir), purge_step=None if resume_at is None else resume_at + 1, flush_secs=10
        )

    def write(self, row: Mapping[str, float]) -> None:
        """Add one row. `row["steps"]` is the number of environment steps so far."""
        self._csv.write(row)
        self._json_lines.write(row)
        for name, value in row.items():
            if name != "steps" and math.isfinite(value):  # of others tensorboardX complains on stderr
                self._events.add_scalar(name, value, int(row["steps"]))

    def close(self) -> None:
        """Finish the files and draw the curve; a run without rows gets none."""
        self._events.close()
        self._json_lines.close()
        self._csv.close()
        draw_curve(self._run_dir / CSV_NAME, self._run_dir / CURVE_NAME, title=self._title)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class CsvLog:
    """Rows with a common header. A name that first comes late widens the table: the file is then written anew."""

    def __init__(self, path: Path, keep_until: int = -1) -> None:
        """Open `path`, keeping the rows of an earlier run whose `steps` are at most `keep_until`."""
        self._path = path
        self._columns: list[str] = []
        kept: list[dict[str, str]] = []
        if keep_until >= 0 and path.is_file():
            rows = read_csv(path)
            kept = [row for row in rows if _steps(row.get("steps")) <= keep_until]
            self._columns = list(rows[0]) if rows else []
        self._rewrite(kept)

    def write(self, row: Mapping[str, float]) -> None:
        unheard = [name for name in row if name not in self._columns]
        if unheard:
            self._file.close()
            rows = read_csv(self._path)
            self._columns += unheard
            self._rewrite(rows)
        self._writer.writerow({name: _spelt(value) for name, value in row.items()})
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with _replacing(self._path) as self._file:
            self._writer = csv.DictWriter(self._file, self._columns, restval="", lineterminator="\n")
            if self._columns:
                self._writer.writeheader()
            self._writer.writerows(rows)


class JsonLinesLog:
    """One JSON object per line."""

    def __init__(self, path: Path, keep_until: int = -1) -> None:
        """Open `path`, keeping the lines of an earlier run whose `steps` are at most `keep_until`."""
        kept = []
        if keep_until >= 0 and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    steps = json.loads(line)["steps"]
                except ValueError:  # the line that was being written when the run was killed
                    continue
                if _steps(steps) <= keep_until:
                    kept.append(f"{line}\n")
        with _replacing(path) as self._file:
            self._file.writelines(kept)

    def write(self, row: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a `progress.csv`, as text; a missing number is "". Without a line that a kill has cut short."""
    whole_lines = path.read_text(encoding="utf-8").rpartition("\n")[0]
    rows = csv.DictReader(whole_lines.splitlines())
    return [{name: value or "" for name, value in row.items() if name} for row in rows]


def draw_curve(progress: Path, target: Path, *, title: str) -> None:
    """Draw mean return over environment steps, with the evaluations marked, as a PNG.

    Args:
      progress: the CSV to draw.
      target: the picture; not made if there is nothing to draw yet.
      title: its heading.
    """
    rows = read_csv(progress)
    training = _points(rows, "return_mean")
    evaluations = _points(rows, EVALUATION)
    if not training and not evaluations:
        return
    # A figure of its own and not pyplot: PNG then goes through Agg, with no display and no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), label="training: mean of the latest episodes")
    if evaluations:
        axes.plot(*zip(*evaluations, strict=True), "o", label="evaluation: frozen policy")
    axes.set(title=title, xlabel="environment steps", ylabel="return")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(target, format="png")


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file to fill, which then takes the place of `path` at once and stays open. A kill leaves the old or the new."""
    beside = path.with_suffix(".tmp")
    file = beside.open("w", newline="", encoding="utf-8")
    try:
        yield file
        file.flush()
        os.replace(beside, path)
    except BaseException:
        file.close()
        raise


def _points(rows: list[dict[str, str]], name: str) -> list[tuple[float, float]]:
    points = [(float(row["steps"]), float(row[name])) for row in rows if row.get("steps") and row.get(name)]
    return [(steps, value) for steps, value in points if math.isfinite(value)]


def _steps(told: object) -> float:
    """Steps of a row read back; a row that tells none counts as beyond every checkpoint."""
    try:
        return float(str(told))
    except ValueError:
        return math.inf


def _spelt(value: float) -> str:
    """The shortest text that reads back as the same number; counts without a decimal point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
