"""`shoal bench rl`: how fast training is, beside Stable-Baselines3 with equal settings and beside simulation alone.

In every round each case has its turn on shoal and then on the peer, each in a process of its own
(`benchmarks/learning.py`, `learning_sb3.py`); the medians and the spread are over the rounds, whose seeds are 0, 1, 2,
... Returns are told with the speed, because a fast run that learns nothing is worth nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shoal.scripts.benchmarks import children, report
from shoal.scripts.benchmarks.comparison import Row, Verdict
from shoal.scripts.benchmarks.in_turn import Case, Suite, check_json, publish
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse
from shoal.scripts.standard_streams import say

#: What issue 5 promises: times the peer's steps per second, part of simulation alone, steps per second with a policy.
GOAL_TIMES, GOAL_PART, GOAL_ROLLOUT = 5.0, 0.75, 300_000.0

#: The settings of every case: PPO as in its paper, on eight environments. None is left to a default: both get them all.
_PPO = {
    "num_workers": 2,
    "num_envs": 8,
    "rollout_steps": 128,
    "minibatch_size": 256,
    "num_epochs": 4,
    "learning_rate": 1e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "value_coef": 0.5,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "adam_epsilon": 1e-5,
    "hidden_sizes": [64, 64],
    "eval_episodes": 20,
}


TRAINING, DYNAMIC, CHEETAH, DYNAMIC_CHEETAH, SIMULATION, ROLLOUT = (
    "CartPole-v1, training",
    "CartPole-v1, training that collects dynamically",
    "HalfCheetah-v5, training",
    "HalfCheetah-v5, training that collects dynamically",
    "HalfCheetah-v5, simulation alone",
    "CartPole of many copies, a policy acting",
)
#: The same, but workers play on with the weights that they have while the learner learns, at most two updates old.
_OVERLAPPED = {**_PPO, "collect": "dynamic", "max_in_flight": 2, "max_lag": 2}
CASES = (
    Case(TRAINING, {**_PPO, "work": "train", "env": "CartPole-v1", "total_steps": 102_400}, has_peer=True),
    Case(DYNAMIC, {**_OVERLAPPED, "work": "train", "env": "CartPole-v1", "total_steps": 102_400}),
    Case(CHEETAH, {**_PPO, "work": "train", "env": "HalfCheetah-v5", "total_steps": 102_400}),
    Case(DYNAMIC_CHEETAH, {**_OVERLAPPED, "work": "train", "env": "HalfCheetah-v5", "total_steps": 102_400}),
    Case(SIMULATION, {**_PPO, "work": "simulate", "env": "HalfCheetah-v5", "total_steps": 102_400}),
    Case(
        ROLLOUT,
        {"work": "roll_out", "env": "CartPole-v1", "num_envs": 2048, "rollout_steps": 32, "total_steps": 2_000_000},
    ),
)


SUITE = Suite(
    CASES,
    {"shoal": "learning.py", "stable_baselines3": "learning_sb3.py"},
    {
        "steps_per_second": ("", "/s"),
        "training_return": (": return of the last episodes", ""),
        "evaluated_return": (": return of the evaluation", ""),
    },
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench rl` can be told."""

    vs: Literal["nothing", "sb3"] = "nothing"
    """Train the same with an installed Stable-Baselines3, in turn with ours, and print the ratios."""

    sb3_python: str = ""
    """Interpreter that has Stable-Baselines3, which need not share our environment; this one by default."""

    rounds: int = 3
    """Rounds of each case, each with a seed of its own; the median counts."""

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
    options = parse(Options, arguments, prog=prog, description="Measure the speed of training.")
    chosen = _check(options)
    engines, peer = [children.Engine("shoal")], ""
    if options.vs == "sb3":
        engines.append(children.Engine("stable_baselines3", options.sb3_python or sys.executable))
        advice = "pip install stable-baselines3, or name an interpreter that has it with --sb3-python"
        peer = f"sb3 {report.version_of(engines[1], advice)}"
    conditions = report.conditions(
        [f"shoal {engines[0].version()}", *([peer] if peer else [])],
        f"{report.counted(options.rounds, 'round')}; PPO on {_PPO['num_envs']} environments, "
        f"{_PPO['rollout_steps']} steps, "
        f"minibatches of {_PPO['minibatch_size']}, {_PPO['num_epochs']} epochs; {_PPO['num_workers']} rollout workers "
        f"and a learner of one thread each{', the peer in one process with one thread' if peer else ''}",
    )
    try:
        rows = SUITE.measure(chosen, engines, range(options.rounds))
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
    if options.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {options.rounds}")
    if options.sb3_python and options.vs != "sb3":
        raise UsageError("--sb3-python says which Stable-Baselines3 to compare with: give --vs sb3, too")
    check_json(options.json)
    return SUITE.chosen(options.only)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """How the rows stand against the goals; about cases that were not run, nothing is said."""
    by_name = {row.subject.name: row for row in rows}
    speeds = {name: row.ours.median for name, row in by_name.items()}
    told: list[Verdict] = []
    peer = by_name[TRAINING].theirs if TRAINING in by_name else None
    if peer is not None and peer.median:
        for name in (TRAINING, DYNAMIC):
            if speed := speeds.get(name):
                text = f"{name} {speed / peer.median:.1f} times Stable-Baselines3 (goal {GOAL_TIMES:g})"
                told.append(Verdict(text, speed / peer.median >= GOAL_TIMES))
    if simulated := speeds.get(SIMULATION):
        for name in (CHEETAH, DYNAMIC_CHEETAH):
            if trained := speeds.get(name):
                text = f"{name} {trained / simulated:.0%} of simulation alone (goal {GOAL_PART:.0%})"
                told.append(Verdict(text, trained / simulated >= GOAL_PART))
    if ROLLOUT in by_name and (speed := by_name[ROLLOUT].ours.median):
        told.append(Verdict(f"{ROLLOUT} {speed:,.0f} steps/s (goal {GOAL_ROLLOUT:,.0f})", speed >= GOAL_ROLLOUT))
    return told
