"""`shoal zoo`: the tuned settings that come with shoal, and the returns that were measured with them.

Reads `algorithms/zoo_results.json` and prints; what was not measured is said to be so. `make results` measures for it,
`shoal results` for a file of its own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from shoal.algorithms import zoo
from shoal.algorithms.zoo import Entry, Measured
from shoal.scripts.benchmarks import comparison
from shoal.scripts.command_line import DONE, parse, run_command
from shoal.scripts.standard_streams import leave, printing

PROG = "shoal zoo"
NOT_MEASURED = "not measured yet"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal zoo` can be told."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """An entry, to see its settings and the return of each seed; all are listed by default."""

    markdown: bool = False
    """Print the table as it stands in docs/results.md."""


def main(arguments: Sequence[str]) -> int:
    """Run `shoal zoo` with these arguments and return its exit code."""
    return run_command(PROG, lambda: show(arguments))


def show(arguments: Sequence[str]) -> int:
    """Print the table, or one entry.

    Raises:
      UsageError, ConfigError: what is wrong, in one line.
    """
    about = "List tuned settings and the returns measured with them."
    options = parse(Options, arguments, prog=PROG, description=about)
    measured = zoo.measured()
    entries = [zoo.find(options.name)] if options.name else list(zoo.ENTRIES)
    cells = table(entries, measured)
    with printing():
        print(comparison.as_markdown(cells) if options.markdown else comparison.as_text(cells))
        for line in conditions([told for entry in entries if (told := measured.get(entry.name))]):
            print(f"\n{line}")
        if options.name:
            print(described(entries[0], measured.get(options.name)))
        elif not options.markdown:
            print("\ntrain with one: shoal train --zoo NAME; its settings: shoal zoo NAME")
    return DONE


def table(entries: Sequence[Entry], measured: Mapping[str, Measured]) -> list[list[str]]:
    """The cells, with their head."""
    head = ["environment", "algorithm", "steps", "goal", "seeds", "median", "mean", "IQM", "95 % interval", "a run"]
    return [head, *(_cells(entry, measured.get(entry.name)) for entry in entries)]


def _cells(entry: Entry, told: Measured | None) -> list[str]:
    about = [entry.name, entry.algorithm, f"{entry.config().total_steps:,}", f"{entry.goal:,.0f}"]
    if told is None:
        return [*about, NOT_MEASURED, "", "", "", "", ""]
    low, high = told.interval
    returns = [f"{value:,.1f}" for value in (told.median, told.mean, told.iqm)]
    return [*about, str(len(told.seeds)), *returns, f"{low:,.1f} to {high:,.1f}", f"{told.wall_s:,.0f} s"]


def conditions(rows: Sequence[Measured]) -> list[str]:
    """How these were measured: what a return is, and which machine `a run` is the time of; [] if there are none."""
    if not rows:
        return []
    episodes = " or ".join(str(count) for count in sorted({told.episodes for told in rows}))
    returns = f"return: of the policy at the end of a run, its likeliest actions, mean of {episodes} episodes"
    machines = sorted({(told.machine, told.num_workers, told.runs_at_once) for told in rows})
    return [returns, *(_of_machine(*each) for each in machines)]


def _of_machine(machine: str, num_workers: int, runs_at_once: int) -> str:
    workers = f"{num_workers} rollout worker{'s' if num_workers > 1 else ''}"
    company = "alone" if runs_at_once == 1 else f"with {runs_at_once - 1} beside it"
    return f"a run: training one seed, median, {workers}, {company}; on {machine}"


def described(entry: Entry, told: Measured | None) -> str:
    """An entry's settings and returns, for people."""
    defaults = type(entry.config())()
    changed = {
        field.name: value
        for field in dataclasses.fields(defaults)
        if (value := getattr(entry.config(), field.name)) != getattr(defaults, field.name)
    }
    lines = ["", f"settings ({entry.source}); the others are the defaults:"]
    lines += [f"  {name} = {value!r}" for name, value in changed.items()]
    if told is None:
        return "\n".join([*lines, "", f"{NOT_MEASURED}: shoal results --only {entry.name}"])
    lines += ["", f"measured {told.date} with {told.versions}; return of the final evaluation, by seed:"]
    lines += [f"  {seed}: {value:,.1f}" for seed, value in zip(told.seeds, told.returns, strict=True)]
    if dict(told.settings) != _as_json(entry.settings):
        lines.append("the settings have changed since: shoal results measures again")
    return "\n".join(lines)


def _as_json(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
