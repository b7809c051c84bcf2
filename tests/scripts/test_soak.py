"""`shoal soak`: what it refuses, what a failure looks like, and a small run of every limit."""

import pytest

from shoal import exceptions
from shoal.scripts import soak
from shoal.scripts.endurance import limits


@pytest.mark.parametrize("arguments", [["--scale", "0"], ["--scale", "1000"], ["--num-cpus", "0"], ["everything"]])
def test_what_cannot_be_followed_is_told_in_one_line(arguments, capsys):
    assert soak.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("shoal soak: ")
    assert told.count("\n") == 1


@pytest.fixture
def without_a_session(monkeypatch):
    monkeypatch.setattr(soak.shoal, "init", lambda **_: None)
    monkeypatch.setattr(soak.shoal, "shutdown", lambda: None)


@pytest.mark.usefixtures("without_a_session")
def test_a_trial_that_raises_or_complains_fails_and_the_others_still_run(monkeypatch, capsys):
    def falls_short(_scale):
        raise limits.Shortfall("the sum is 3, not 4")

    def is_full(_scale):
        raise exceptions.ObjectStoreFullError("no room")

    trials = {
        "a": falls_short,
        "b": is_full,
        "c": lambda scale: (f"three of {scale}", ["memory grew"]),
        "d": lambda scale: ("done", []),
    }
    monkeypatch.setattr(soak, "_LIMITS", trials)
    assert soak.main(["limits", "--scale", "0.5"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED  a",
        "  Shortfall: the sum is 3, not 4",
        "FAILED  b",
        "  ObjectStoreFullError: no room",
        "FAILED  three of 0.5",
        "  memory grew",
        "ok      done",
    ]


def test_a_small_run_of_every_limit(capsys):
    assert soak.main(["limits", "--scale", "0.002"]) == 0, capsys.readouterr().out
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(limits.LIMITS)
    assert all(line.startswith("ok ") for line in told)
    assert "2,000 tasks queued behind 2 blocked CPUs" in told[1]
