"""`shoal chaos`: what it refuses, that it fails when something is wrong, and a few seconds of it."""

import contextlib
import itertools

import pytest

from shoal.scripts import chaos
from shoal.scripts.chaos import Findings
from shoal.scripts.endurance.killer import Killer


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--num-cpus", "0"],
        ["--seed", "-1"],
        ["everything"],
        ["--sead", "1"],
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, capsys, monkeypatch):
    monkeypatch.setattr(chaos, "_in_a_session", lambda run, options: pytest.fail("it has begun"))
    assert chaos.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("shoal chaos: ")
    assert told.count("\n") == 1


def test_what_was_wrong_is_printed_up_to_a_bound():
    findings = Findings("tasks", "3 graphs", wrong=[f"node {i}" for i in range(12)])
    lines = str(findings).splitlines()
    assert lines[0] == "tasks     3 graphs: 12 WRONG"
    assert lines[1:] == [*(f"  node {i}" for i in range(10)), "  ... and 2 more"]
    assert str(Findings("tasks", "3 graphs")) == "tasks     3 graphs: all as it must be"


def test_the_exit_code_says_that_something_was_wrong(monkeypatch, capsys):
    monkeypatch.setattr(chaos, "_in_a_session", lambda run, options: Findings("tasks", "done", wrong=["node 1"]))
    assert chaos.main(["tasks"]) == 1
    assert "node 1" in capsys.readouterr().out


def test_a_killer_without_victims_kills_nobody():
    killer = Killer(0, list, pace_s=0.001)
    with killer.at_work():
        pass
    assert killer.kills == 0


def test_a_few_seconds_of_each_part(capsys):
    arguments = ["--seconds", "2", "--seed", "3", "--num-cpus"]
    assert chaos.main(["tasks", *arguments, "2"]) == 0, capsys.readouterr().out
    assert chaos.main(["actors", *arguments, "2"]) == 0, capsys.readouterr().out
    assert chaos.main(["evolution", *arguments, "3"]) == 0, capsys.readouterr().out
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["tasks", "actors", "evolution"]
    assert all(line.endswith(": all as it must be") for line in told)
    assert " 0 workers killed" not in told[0]


def test_a_part_in_which_nobody_was_killed_shows_nothing_and_fails(monkeypatch):
    monkeypatch.setattr(chaos.shoal, "init", lambda **_: None)
    monkeypatch.setattr(chaos.shoal, "shutdown", lambda: None)
    options = chaos.Options()
    assert chaos._in_a_session(lambda _: Findings("tasks", "done"), options).wrong == [
        "nobody was killed: nothing is shown"
    ]
    assert chaos._in_a_session(lambda _: Findings("tasks", "done", kills=1), options).wrong == []


def test_one_graph_is_told_as_one(monkeypatch):
    class OneKill:
        kills = 1

        def __init__(self, seed, victims):
            self.at_work = contextlib.nullcontext

    moments = itertools.count()  # each time that the clock is looked at is a second later
    monkeypatch.setattr(chaos.time, "monotonic", lambda: float(next(moments)))
    monkeypatch.setattr(chaos, "Killer", OneKill)
    monkeypatch.setattr(chaos.graphs, "random_graph", lambda seed: ["the only node"])
    monkeypatch.setattr(chaos.graphs, "submit", lambda nodes: [])
    monkeypatch.setattr(chaos.graphs, "differences", lambda nodes, values: [])
    monkeypatch.setattr(chaos.shoal, "get", lambda refs, timeout: [])
    told = str(chaos.tasks_under_fire(chaos.Options(part="tasks", seconds=2.0)))
    assert told == "tasks     1 graph of 1 task, 1 worker killed, slowest graph 1.0 s: all as it must be"
