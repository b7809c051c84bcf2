"""`shoal bench appo`: how fast APPO trains beside Sample Factory's APPO, and what it earns in its time beside PPO.

Training CartPole-v1 with equal settings, each peer in processes of its own, in turn (`benchmarks/asynchronous.py`,
`asynchronous_sf.py`): two rollout workers and a learner; Sample Factory has a process that acts for its workers, too.
Then the entries of the zoo for HalfCheetah-v5, PPO's and APPO's, to their ends, with as many workers each on the same
cores: the return of the policy of the end over the minutes of training. The seeds are those of the rounds, 1, 2, 3 ...
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoal.scripts.benchmarks import children, comparison, report
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject, Verdict
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import printing, say

#: What issue 6 promises: times the peer's steps per second.
GOAL_TIMES = 5.0

#: Of both peers; none is left to a default. Sample Factory's benchmark settings for CartPole, PPO's paper for the rest.
_APPO = {
    "work": "train",
    "env": "CartPole-v1",
    "num_workers": 2,
    "envs_per_worker": 8,
    "rollout_steps": 32,
    "batch_size": 512,
    "num_epochs": 4,
    "learning_rate": 5e-4,
    "gamma": 0.99,
    "trace_lambda": 0.95,
    "clip_range": 0.1,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
    "max_grad_norm": 0.5,
    "adam_epsilon": 1e-5,
    "hidden_sizes": [64, 64],
}


@dataclass(frozen=True)
class Case:
    """What a child is told to do; `has_peer`: the peer can do it, too."""

    name: str
    order: Mapping[str, Any]
    has_peer: bool = False


TRAINING, PPO, APPO = "CartPole-v1, APPO", "HalfCheetah-v5, PPO of the zoo", "HalfCheetah-v5, APPO of the zoo"
CASES = (
    Case(TRAINING, _APPO, has_peer=True),
    Case(PPO, {"work": "earn", "entry": "HalfCheetah-v5", "num_workers": 2}),
    Case(APPO, {"work": "earn", "entry": "HalfCheetah-v5-appo", "num_workers": 2}),
)
#: How long a child may take: a million steps are two minutes, or many more where others use the machine.
_PATIENCE_S = 3600.0
#: What a child tells, as it is called in the table.
_TOLD = {
    "steps_per_second": ("", "/s"),
    "training_return": (": return of the last episodes", ""),
    "evaluated_return": (": return of the evaluation", ""),
    "seconds": (": seconds of training", ""),
    "return_per_minute": (": return per minute", ""),
}
#: The child of each engine.
_PROGRAMS = {"shoal": "asynchronous.py", "sample_factory": "asynchronous_sf.py"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench appo` can be told."""

    vs: Literal["nothing", "sample-factory"] = "nothing"
    """Train the same with an installed Sample Factory, in turn with ours, and print the ratios."""

    sf_python: str = ""
    """Interpreter that has Sample Factory, which wants older libraries than shoal; this one by default."""

    rounds: int = 3
    """Rounds of each case, each with a seed of its own; the median counts."""

    steps: int = 102_400
    """Environment steps of a training on CartPole-v1."""

    only: str = ""
    """Run only the cases whose name holds this text."""

    json: str = ""
    """Write every figure of every round to this file, too."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure APPO, beside Sample Factory and beside PPO.")
    chosen = _check(options)
    engines, peer = [children.Engine("shoal")], ""
    if options.vs == "sample-factory":
        engines.append(children.Engine("sample_factory", options.sf_python or sys.executable))
        advice = "pip install sample-factory into an environment of its own, and name its interpreter with --sf-python"
        peer = f"sample-factory {report.version_of(engines[1], advice)}"
    conditions = report.conditions(
        [f"shoal {engines[0].version()}", *([peer] if peer else [])],
        f"{options.rounds} rounds; {options.steps:,} steps of APPO on CartPole-v1: {_APPO['num_workers']} workers of "
        f"{_APPO['envs_per_worker']} environments, segments of {_APPO['rollout_steps']} steps, "
        f"batches of {_APPO['batch_size']}, {_APPO['num_epochs']} epochs",
    )
    try:
        rows = measure(chosen, engines, options.rounds, options.steps)
    except children.ChildError as error:
        say(f"{prog}: {error}")
        return FAILED
    judged = verdicts(rows)
    with printing():
        cells = comparison.table(rows, peer)
        print(report.laid_out(cells, conditions, [str(each) for each in judged], markdown=options.markdown))
    if options.json:
        Path(options.json).write_text(report.as_json(rows, judged, conditions) + "\n", encoding="utf-8")
    return DONE


def _check(options: Options) -> list[Case]:
    """The cases that the options ask for.

    Raises:
      UsageError: they cannot be followed.
    """
    if options.rounds < 1 or options.steps < 1:
        raise UsageError("--rounds and --steps must be at least 1")
    if options.sf_python and options.vs != "sample-factory":
        raise UsageError("--sf-python says which Sample Factory to compare with: give --vs sample-factory, too")
    if options.json and not Path(options.json).parent.is_dir():
        raise UsageError(f"--json {options.json}: its folder does not exist")
    if not (chosen := [case for case in CASES if options.only in case.name]):
        names = "; ".join(case.name for case in CASES)
        raise UsageError(f"--only {options.only!r} is in the name of no case; they are: {names}")
    return chosen


def measure(chosen: Sequence[Case], engines: Sequence[children.Engine], rounds: int, steps: int) -> list[Row]:
    """Run the rounds, case by case and engine by engine in turn.

    Raises:
      ChildError: a child failed.
    """
    found: dict[tuple[str, str, str], Samples] = {}
    for seed in range(1, rounds + 1):
        for case in chosen:
            for engine in engines[: 2 if case.has_peer else 1]:
                say(f"round {seed} of {rounds}: {case.name}, {engine.module}")
                order = {**case.order, "seed": seed, **({"total_steps": steps} if case.has_peer else {})}
                for told in children.run(engine, _PROGRAMS[engine.module], order, patience_s=_PATIENCE_S):
                    for what, figure in told.items():
                        found.setdefault((case.name, what, engine.module), Samples()).figures.append(figure)
    rows: list[Row] = []
    for case in chosen:
        for what, (words, unit) in _TOLD.items():
            if (ours := found.get((case.name, what, "shoal"))) is not None:
                subject = Subject(case.name + words, unit, counts=what == "steps_per_second")
                rows.append(Row(subject, ours, found.get((case.name, what, "sample_factory"))))
    return rows


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """How the rows stand against the goals; about cases that were not run, nothing is said."""
    by_name = {row.subject.name: row for row in rows}
    told: list[Verdict] = []
    if TRAINING in by_name and (ratio := by_name[TRAINING].ratio) is not None:
        text = f"{TRAINING} {ratio:.1f} times Sample Factory (goal {GOAL_TIMES:g})"
        told.append(Verdict(text, ratio >= GOAL_TIMES))
    per_minute = [by_name.get(f"{name}{_TOLD['return_per_minute'][0]}") for name in (APPO, PPO)]
    medians = [row.ours.median for row in per_minute if row is not None]
    if len(medians) == 2 and medians[0] is not None and medians[1] is not None:
        text = f"HalfCheetah-v5, return per minute: APPO {medians[0]:,.0f}, PPO {medians[1]:,.0f} (goal: as much)"
        told.append(Verdict(text, medians[0] >= medians[1]))
    return told
