"""`shoal bench appo`: how fast APPO trains beside Sample Factory's APPO, and what it earns in its time beside PPO.

Training CartPole-v1 with equal settings, each peer in processes of its own, in turn (`benchmarks/asynchronous.py`,
`asynchronous_sf.py`): two rollout workers and a learner; Sample Factory has a process that acts for its workers, too.
Then the entries of the zoo for HalfCheetah-v5, PPO's and APPO's, to their ends, with as many workers each on the same
cores: the return of the policy of the end over the minutes of training. The seeds are those of the rounds, 1, 2, 3 ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shoal.scripts.benchmarks import children, report
from shoal.scripts.benchmarks.comparison import Row, Verdict
from shoal.scripts.benchmarks.in_turn import Case, Suite, check_json, publish
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import say

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


TRAINING, PPO, APPO = "CartPole-v1, APPO", "HalfCheetah-v5, PPO of the zoo", "HalfCheetah-v5, APPO of the zoo"
CASES = (
    Case(TRAINING, _APPO, has_peer=True),
    Case(PPO, {"work": "earn", "entry": "HalfCheetah-v5", "num_workers": 2}),
    Case(APPO, {"work": "earn", "entry": "HalfCheetah-v5-appo", "num_workers": 2}),
)
_PER_MINUTE = ": return per minute"
SUITE = Suite(
    CASES,
    {"shoal": "asynchronous.py", "sample_factory": "asynchronous_sf.py"},
    {
        "steps_per_second": ("", "/s"),
        "training_return": (": return of the last episodes", ""),
        "evaluated_return": (": return of the evaluation", ""),
        "seconds": (": seconds of training", ""),
        "return_per_minute": (_PER_MINUTE, ""),
    },
    patience_s=3600.0,  # a million steps are two minutes, or many more where others use the machine
)


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
        f"{report.counted(options.rounds, 'round')}; {options.steps:,} steps of APPO on CartPole-v1: "
        f"{_APPO['num_workers']} workers of "
        f"{_APPO['envs_per_worker']} environments, segments of {_APPO['rollout_steps']} steps, "
        f"batches of {_APPO['batch_size']}, {_APPO['num_epochs']} epochs",
    )
    try:
        rows = SUITE.measure(chosen, engines, range(1, options.rounds + 1))
    except children.ChildError as error:
        say(f"{prog}: {error}")
        return FAILED
    publish(rows, verdicts(rows), peer, conditions, markdown=options.markdown, json=options.json)
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
    check_json(options.json)
    steps = {"total_steps": options.steps}
    return [
        replace(case, order={**case.order, **steps}) if case.has_peer else case for case in SUITE.chosen(options.only)
    ]


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """How the rows stand against the goals; about cases that were not run, nothing is said."""
    by_name = {row.subject.name: row for row in rows}
    told: list[Verdict] = []
    if TRAINING in by_name and (ratio := by_name[TRAINING].ratio) is not None:
        text = f"{TRAINING} {ratio:.1f} times Sample Factory (goal {GOAL_TIMES:g})"
        told.append(Verdict(text, ratio >= GOAL_TIMES))
    per_minute = [by_name.get(name + _PER_MINUTE) for name in (APPO, PPO)]
    medians = [row.ours.median for row in per_minute if row is not None]
    if len(medians) == 2 and medians[0] is not None and medians[1] is not None:
        text = f"HalfCheetah-v5, return per minute: APPO {medians[0]:,.0f}, PPO {medians[1]:,.0f} (goal: as much)"
        told.append(Verdict(text, medians[0] >= medians[1]))
    return told
