"""What every benchmark tells: where and when it ran, its table, and what that comes to; or all of it as JSON.

conditions (before the first measurement) + cells (comparison.table, or a benchmark's own) + lines --> text, Markdown
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from shoal.scripts.benchmarks import children, comparison
from shoal.scripts.benchmarks.comparison import Row, Verdict
from shoal.scripts.command_line import UsageError


def conditions(versions: Sequence[str], how: str) -> str:
    """Versions, machine, time, `how` it is measured, and how busy the machine is now: to be asked for beforehand."""
    return (
        f"{', '.join(versions)}, Python {platform.python_version()}, {machine()}; "
        f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d %H:%M} UTC; "
        f"{how}; {os.getloadavg()[0]:.1f} processes ready to run when it began"
    )


def counted(number: int, what: str) -> str:
    """So many of something: "1 round", "3 rounds", "1,000 rounds"."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def machine() -> str:
    """CPUs, memory and system in a few words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{platform.system()} {platform.machine()} with {os.cpu_count()} CPUs ({model}) and {gigabytes:.0f} GB"


def version_of(engine: children.Engine, advice: str) -> str:
    """Version of what is measured against.

    Raises:
      UsageError: it cannot be had; `advice` says what to do.
    """
    try:
        return engine.version()
    except children.ChildError as error:
        raise UsageError(f"{error}: {advice}") from None


def laid_out(cells: Sequence[Sequence[str]], conditions: str, lines: Sequence[str] = (), *, markdown: bool) -> str:
    """All that is printed at the end.

    Args:
      lines: verdicts and notes, below the table.
      markdown: as it stands in docs/benchmarks.md.
    """
    if not markdown:
        return "\n".join([conditions, "", comparison.as_text(cells), *([""] if lines else []), *lines])
    listed = [f"- \\{line}" if line.startswith("*") else f"- {line}" for line in lines]
    return "\n".join([conditions, "", comparison.as_markdown(cells), *([""] if lines else []), *listed])


def as_json(rows: Sequence[Row], verdicts: Sequence[Verdict], conditions: str) -> str:
    """Every figure of every round."""
    cases = [
        {
            **dataclasses.asdict(row.subject),
            "ours": dataclasses.asdict(row.ours),
            "theirs": row.theirs and dataclasses.asdict(row.theirs),
            "ratio": row.ratio,
        }
        for row in rows
    ]
    told = [dataclasses.asdict(verdict) for verdict in verdicts]
    return json.dumps({"conditions": conditions, "cases": cases, "verdicts": told}, indent=1)
