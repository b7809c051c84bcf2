"""What `shoal bench rl` refuses and makes of its figures; and a tiny run of each kind of work."""

import json
import os
import subprocess
import sys

import pytest

import shoal.scripts.benchmarks
from shoal.scripts import bench
from shoal.scripts.benchmarks import in_turn
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject
from shoal.scripts.benchmarks.in_turn import publish
from shoal.scripts.benchmarks.learning_report import (
    CASES,
    CHEETAH,
    DYNAMIC,
    DYNAMIC_CHEETAH,
    ROLLOUT,
    SIMULATION,
    SUITE,
    TRAINING,
    verdicts,
)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--only", "no such case"], "is in the name of no case; they are: CartPole-v1, training; CartPole-v1"),
        (["--sb3-python", "python3"], "give --vs sb3, too"),
        (["--json", "/no/such/folder/figures.json"], "its folder does not exist"),
        (["--vs", "spark"], "--vs"),
        (["--vs", "sb3", "--sb3-python", "/no/such/python"], "pip install stable-baselines3"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["rl", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.err.startswith("shoal bench: ")
    assert (told.err.count("\n"), told.out) == (1, "")


def row(name, ours, theirs=None, unit="/s", *, counts=True):
    return Row(Subject(name, unit, counts=counts), Samples(ours), None if theirs is None else Samples(theirs))


def test_goals_are_judged_by_the_medians():
    rows = [
        row(TRAINING, [90.0, 100.0, 130.0], [20.0, 20.0, 21.0]),
        row(DYNAMIC, [98.0]),
        row(CHEETAH, [70.0]),
        row(DYNAMIC_CHEETAH, [75.0]),
        row(SIMULATION, [100.0]),
        row(ROLLOUT, [250_000.0, 310_000.0, 320_000.0]),
    ]
    assert [str(verdict) for verdict in verdicts(rows)] == [
        "CartPole-v1, training 5.0 times Stable-Baselines3 (goal 5): reached",
        "CartPole-v1, training that collects dynamically 4.9 times Stable-Baselines3 (goal 5): MISSED",
        "HalfCheetah-v5, training 70% of simulation alone (goal 75%): MISSED",
        "HalfCheetah-v5, training that collects dynamically 75% of simulation alone (goal 75%): reached",
        "CartPole of many copies, a policy acting 310,000 steps/s (goal 300,000): reached",
    ]
    assert verdicts([rows[0], row(SIMULATION, [100.0])])[1:] == []
    assert verdicts([row(TRAINING, [100.0])]) == []


def test_the_report_has_speeds_returns_and_ratios(capsys):
    rows = [row(TRAINING, [100.0, 110.0], [20.0, 20.0]), row(f"{TRAINING}: return", [500.0], [490.0], "", counts=False)]
    publish(rows, verdicts(rows), "sb3 2.9", "here and now", markdown=True, json="")
    text = capsys.readouterr().out
    assert "| CartPole-v1, training | 105/s | 10% | 20.0/s | 0% | 5.2 | 5.0 to 5.5 |" in text
    assert "| CartPole-v1, training: return * | 500 |" in text
    assert text.startswith("here and now\n")


def test_rounds_have_their_seeds_and_each_engine_its_turn(monkeypatch):
    asked = []

    def run(engine, program, order, *, patience_s):
        asked.append((engine.module, order["seed"], order["env"], order["work"]))
        yield {"steps_per_second": 5.0, "evaluated_return": 1.0}

    monkeypatch.setattr(in_turn.children, "run", run)
    engines = [in_turn.children.Engine(name) for name in ("shoal", "stable_baselines3")]
    rows = SUITE.measure([CASES[0], CASES[2]], engines, range(2))
    assert asked == [
        ("shoal", 0, "CartPole-v1", "train"), ("stable_baselines3", 0, "CartPole-v1", "train"),
        ("shoal", 0, "HalfCheetah-v5", "train"), ("shoal", 1, "CartPole-v1", "train"),
        ("stable_baselines3", 1, "CartPole-v1", "train"), ("shoal", 1, "HalfCheetah-v5", "train"),
    ]  # fmt: skip
    assert [(each.subject.name, each.theirs is None) for each in rows] == [
        (TRAINING, False), (f"{TRAINING}: return of the evaluation", False),
        (CHEETAH, True), (f"{CHEETAH}: return of the evaluation", True),
    ]  # fmt: skip


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4], CASES[5]], ids=lambda case: case.name)
def test_a_child_does_its_work_and_tells_it(case):
    small = {"total_steps": 1024, "eval_episodes": 1, "num_envs": 8, "rollout_steps": 32}
    reading, writing = os.pipe()
    order = {**case.order, **small, "engine": "shoal", "seed": 0, "results_fd": writing}
    program = os.path.join(shoal.scripts.benchmarks.__path__[0], "learning.py")
    ran = subprocess.run(
        [sys.executable, program, json.dumps(order)], pass_fds=[writing], capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert ran.returncode == 0, ran.stderr
    with os.fdopen(reading) as results:
        told = json.loads(results.read())
    assert told["steps_per_second"] > 0
    assert ("evaluated_return" in told) == (case.order["work"] == "train")
