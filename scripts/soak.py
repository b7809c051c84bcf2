"""`shoal soak`: work for long and in large amounts, and whether anything grows, leaks or breaks.

    passes   a million tasks, a million puts, a hundred thousand actor calls, three times: memory stays flat
    limits   a million queued tasks, 10,000 arguments, 3,000 returns, a get of 10,000 refs, one array of 4 GiB, and what
             an idle worker holds

A line for each with its figures and the verdict; each has a session of its own and must leave no process, descriptor
or folder. Exit code 1 when one of them fails. The parts are in `endurance/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

import shoal
from shoal import exceptions
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.endurance import limits, passes
from shoal.scripts.endurance.limits import Shortfall
from shoal.scripts.endurance.processes import Before
from shoal.scripts.standard_streams import printing

PROG = "shoal soak"
#: Room for the 4 GiB array and what else is there.
_STORE_BYTES = 6 * 1024**3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal soak` can be told."""

    part: tyro.conf.Positional[Literal["all", "passes", "limits"]] = "all"
    """What to run."""

    scale: float = 1.0
    """Of all amounts; 0.01 is a quick look."""

    num_cpus: int = 2
    """CPUs of the sessions."""


#: Runs at a scale; says what was done, and what was wrong.
Trial = Callable[[float], tuple[str, list[str]]]


def _trial(limit: Callable[[float], str]) -> Trial:
    """A limit as a trial: what is wrong with it, it raises."""
    return lambda scale: (limit(scale), [])


_PASSES: dict[str, Trial] = {"passes": passes.run}
_LIMITS: dict[str, Trial] = {limit.__name__: _trial(limit) for limit in limits.LIMITS}


def examine(name: str, trial: Trial, options: Options) -> tuple[str, bool]:
    """Run a trial in a session of its own; the text that tells how it went, and whether all is well."""
    before = Before.look()
    shoal.init(num_cpus=options.num_cpus, object_store_memory=_STORE_BYTES)
    try:
        done, wrong = trial(options.scale)
    except (exceptions.ShoalError, Shortfall) as error:
        done, wrong = name, [f"{type(error).__name__}: {error}"]
    finally:
        shoal.shutdown()
    wrong += [f"left behind: {line}" for line in before.left_behind()]
    return "\n  ".join([f"{'FAILED' if wrong else 'ok':<8}{done}", *wrong]), not wrong


def main(arguments: Sequence[str]) -> int:
    """Run `shoal soak` with these arguments and return its exit code."""
    return run_command(PROG, lambda: soak(arguments))


def soak(arguments: Sequence[str]) -> int:
    """Run the parts and print a line for each.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=PROG, description="Work for long and in large amounts; look for leaks.")
    if not 0 < options.scale <= 100 or options.num_cpus < 1:
        raise UsageError("--scale must be over 0 and at most 100, --num-cpus at least 1")
    chosen = {"all": {**_PASSES, **_LIMITS}, "passes": _PASSES, "limits": _LIMITS}[options.part]
    is_well = True
    for name, trial in chosen.items():
        told, went_well = examine(name, trial, options)
        is_well = is_well and went_well
        with printing():
            print(told)
    return DONE if is_well else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
