"""`shoal bench core`: the speed of the runtime, case by case, under the names of Ray's own microbenchmark.
`shoal bench appo`: APPO, beside Sample Factory and beside PPO (`benchmarks/asynchronous_report.py`).
`shoal bench engine`: what the Ray engine adds to Ray's own time (`benchmarks/engine_report.py`).
`shoal bench envs`: stepping environments, beside gymnasium's own vector environments (`benchmarks/stepping.py`).
`shoal bench es`: evolution strategies, beside EvoTorch, and the root of their tree (`benchmarks/evolving.py`).
`shoal bench http`: policies over HTTP, beside other servers (`benchmarks/serving_http.py`).
`shoal bench inference`: rollouts of workers that act by themselves, and of those that ask (`benchmarks/inferring.py`).
`shoal bench rl`: training, beside Stable-Baselines3 and beside simulation alone (`benchmarks/learning_report.py`).
`shoal bench learners`: learners that share their work, beside torch's DDP (`benchmarks/sharing.py`).
`shoal bench serve`: policies that answer requests (`benchmarks/serving.py`).
`shoal bench simulation`: unequal rollouts, beside MPI and multiprocessing (`benchmarks/simulating_report.py`).
`shoal bench straggler`: what one slow environment costs, with a barrier and without (`benchmarks/straggling.py`).

`--vs ray` runs the same cases on an installed Ray, in turn with ours: in every round a few cases at a time, each time
in one process per engine with a session of its own, because what a shared machine gives changes by the minute. Printed
are the medians, the spread between rounds (largest less smallest, over the median), the ratio, and how all that stands
against the goals. The cases are in `benchmarks/cases.py`, the arithmetic in `benchmarks/comparison.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

import shoal
from shoal.scripts.benchmarks import (
    asynchronous_report,
    children,
    comparison,
    engine_report,
    evolving,
    inferring,
    learning_report,
    report,
    serving,
    serving_http,
    sharing,
    simulating_report,
    stepping,
    straggling,
)
from shoal.scripts.benchmarks.cases import CASES
from shoal.scripts.benchmarks.comparison import MILLISECONDS, Row, Samples, Subject
from shoal.scripts.benchmarks.life_cycle import STAGES
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.session_flags import NATIVE, SessionFlags
from shoal.scripts.standard_streams import printing, say

PROG = "shoal bench"
#: Name by which `--only` chooses the life cycle as a whole.
_LIFE_CYCLE = "life cycle"
#: Cases that an engine runs before it is the other's turn: a compromise, for a session of Ray takes seconds to start.
_TURN = 4
#: It reserves a resource that a cluster which runs already has not got.
_NEEDS_A_SESSION_OF_ITS_OWN = "placement group create/removal"
#: What else is measured, with options of its own.
_OTHERS: Mapping[str, Callable[[Sequence[str], str], int]] = {
    "appo": asynchronous_report.bench,
    "engine": engine_report.bench,
    "envs": stepping.bench,
    "es": evolving.bench,
    "http": serving_http.bench,
    "inference": inferring.bench,
    "learners": sharing.bench,
    "rl": learning_report.bench,
    "serve": serving.bench,
    "simulation": simulating_report.bench,
    "straggler": straggling.bench,
}
#: Ray's own cases that go through its remote client (`ray://`): nothing here to compare them with.
_OF_THE_CLIENT = "Ray's eight `client:` cases are left out: shoal has no remote client (ray://)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench` can be told."""

    subject: tyro.conf.Positional[
        Literal[
            "core", "appo", "engine", "envs", "es", "http", "inference", "learners", "rl", "serve", "simulation",
            "straggler",
        ]
    ] = "core"
    """What to measure. core: tasks, actors, objects and life cycle. appo: APPO beside Sample Factory and PPO. engine:
    what the engine "ray" adds to Ray. envs: steps of environments. es: evolution strategies. http: policies over HTTP.
    inference: workers that ask for their actions. learners: learners that share their work. rl: training. serve:
    policies through a handle. simulation: rollouts of unequal length. straggler: one slow environment. All but core
    have options of their own, which --help behind the subject tells."""

    vs: Literal["nothing", "ray"] = "nothing"
    """Run the same on an installed Ray, in turn with ours, and print the ratios."""

    ray_python: str = ""
    """Interpreter that has Ray, which need not share our environment; this one by default."""

    rounds: int = 3
    """Rounds of each case; the median counts."""

    seconds: float = 0.5
    """Length of each of the four measurements in a round; what takes longer is done once in each."""

    only: str = ""
    """Run only the cases whose name holds this text."""

    num_cpus: int = 0
    """CPUs of the session; 0: those of the machine."""

    session: tyro.conf.OmitArgPrefixes[SessionFlags] = NATIVE

    json: str = ""
    """Write every figure to this file, too."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def subjects(only: str) -> list[Subject]:
    """The chosen cases, in their order; a case that is judged by a ceiling brings that with it."""
    of_cases = [Subject(name, each.unit, each.is_of_ray, each.ceiling, each.is_control) for name, each in CASES.items()]
    chosen = {subject.name for subject in of_cases if only in subject.name}
    chosen |= {subject.ceiling for subject in of_cases if subject.name in chosen}
    stages = [Subject(name, MILLISECONDS, counts=False) for name in STAGES if only in name or only in _LIFE_CYCLE]
    return [subject for subject in of_cases if subject.name in chosen] + stages


def measure(chosen: Sequence[Subject], engines: Sequence[children.Engine], options: Options) -> list[Row]:
    """Run the rounds, engine by engine in turn, and gather what they gave.

    Raises:
      ChildError: the engine could not be started at all.
    """
    found = {(subject.name, engine.module): Samples() for subject in chosen for engine in engines}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for turn in turns(chosen):
            for engine in engines:
                for line in _one_turn(turn, engine, options):
                    samples = found[line["case"], engine.module]
                    if "figure" in line:
                        samples.figures.append(line["figure"])
                    else:
                        samples.trouble = "not there yet" if "missing" in line else f"failed: {line['error']}"
    modules = [engine.module for engine in engines]
    return [
        Row(subject, found[subject.name, modules[0]], found[subject.name, modules[1]] if modules[1:] else None)
        for subject in chosen
    ]


def turns(chosen: Sequence[Subject]) -> list[list[Subject]]:
    """The cases a few at a time, one with its ceiling, which the same process has to copy; last the life cycle."""
    parts: list[list[Subject]] = [[]]
    stages = [subject for subject in chosen if subject.name in STAGES]
    for subject in chosen:
        if subject in stages:
            continue
        awaited = {each.ceiling for each in parts[-1]}
        if len(parts[-1]) >= _TURN and subject.name not in awaited:
            parts.append([])
        parts[-1].append(subject)
    return [part for part in (*parts, stages) if part]


def _one_turn(turn: Sequence[Subject], engine: children.Engine, options: Options) -> Iterator[dict[str, Any]]:
    """What the child of a turn tells: cases in one session, or the life cycle."""
    init: dict[str, Any] = {"num_cpus": options.num_cpus or os.cpu_count() or 1}
    wishes = {**init, "resources": {"custom": 100}}
    if engine.module == "shoal":
        init, wishes = options.session.arguments(**init), options.session.arguments(**wishes)
    stages = {subject.name for subject in turn if subject.name in STAGES}
    if not stages:
        names = [subject.name for subject in turn]
        order = {"init": wishes, "cases": names, "seconds": options.seconds}
        yield from children.run(engine, children.CASES, order)
    else:
        for line in children.run(engine, children.LIFE_CYCLE, {"init": init}):
            if line["case"] in stages:
                yield {**line, "figure": 1000 * line["figure"]}


def summary(rows: Sequence[Row], peer: str, conditions: str, *, markdown: bool) -> str:
    """All that is printed at the end."""
    verdicts = [str(verdict) for verdict in comparison.verdicts(rows)]
    notes = [] if not peer else ["* not a case of Ray's own microbenchmark: outside of the mean", _OF_THE_CLIENT]
    return report.laid_out(comparison.table(rows, peer), conditions, [*verdicts, *notes], markdown=markdown)


def main(arguments: Sequence[str]) -> int:
    """Run `shoal bench` with these arguments and return its exit code."""
    subject = arguments[0] if arguments else ""
    if (other := _OTHERS.get(subject)) is not None:
        return run_command(PROG, lambda: other(arguments[1:], f"{PROG} {subject}"))
    return run_command(PROG, lambda: bench(arguments))


def bench(arguments: Sequence[str]) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=PROG, description="Measure the speed of the core, case by case.")
    chosen = _check(options)
    engines, peer = [children.Engine("shoal")], ""
    if options.vs == "ray":
        engines.append(children.Engine("ray", options.ray_python or sys.executable))
        advice = "pip install 'shoal[ray]', or name an interpreter that has Ray with --ray-python"
        peer = f"ray {report.version_of(engines[1], advice)}"
    if options.session.engine == "ray":  # what speaks against it is told before anything is measured
        try:
            options.session.begin()
        finally:
            shoal.shutdown()
    ours = "shoal" if options.session.engine == "native" else f"shoal (engine {options.session.engine})"
    versions = [f"{ours} {engines[0].version()}", *([peer] if peer else [])]
    how = f"{report.counted(options.rounds, 'round')} of 4 times {options.seconds:g} s"
    conditions = report.conditions(versions, how)
    try:
        rows = measure(chosen, engines, options)
    except children.ChildError as error:
        say(f"{PROG}: {error}")
        return FAILED
    with printing():
        print(summary(rows, peer, conditions, markdown=options.markdown))
    if options.json:
        as_json = report.as_json(rows, comparison.verdicts(rows), conditions)
        Path(options.json).write_text(as_json + "\n", encoding="utf-8")
    gathered = [samples for row in rows for samples in (row.ours, row.theirs) if samples]
    has_failed = any(samples.trouble.startswith("failed") for samples in gathered)
    return FAILED if has_failed else DONE


def _check(options: Options) -> list[Subject]:
    """The subjects that the options ask for.

    Raises:
      UsageError: they cannot be followed.
    """
    if options.rounds < 1 or options.seconds <= 0 or options.num_cpus < 0:
        raise UsageError("--rounds must be at least 1, --seconds positive, --num-cpus 0 (all of the machine) or more")
    if options.ray_python and options.vs != "ray":
        raise UsageError("--ray-python says which Ray to compare with: give --vs ray, too")
    options.session.check()
    if options.json and not Path(options.json).parent.is_dir():
        raise UsageError(f"--json {options.json}: its folder does not exist")
    chosen = subjects(options.only)
    if options.session.joins:
        chosen = [subject for subject in chosen if subject.name != _NEEDS_A_SESSION_OF_ITS_OWN]
    if not chosen:
        names = ", ".join([*CASES, *STAGES, _LIFE_CYCLE])
        raise UsageError(f"--only {options.only!r} is in the name of no case; they are: {names}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
