"""The arithmetic of `shoal bench es`, and what it refuses."""

import pytest

from shoal.scripts.bench import main
from shoal.scripts.benchmarks import replaying
from shoal.scripts.benchmarks.evolving import root_table, root_verdicts
from shoal.scripts.benchmarks.replaying import Cost

COSTS = [Cost(64, 0, 0.01, 1.0), Cost(64, 8, 0.01, 0.02), Cost(8192, 0, 0.5, 1.1), Cost(8192, 8, 0.01, 0.01)]


def test_the_table_tells_flat_and_tree_of_each_number_of_senders():
    assert root_table(COSTS)[3:] == [
        ["8,192 senders, flat", "0.500", "1.100", "1.600"],
        ["8,192 senders, tree, fan-out 8", "0.010", "0.010", "0.020"],
    ]


def test_the_verdict_is_of_the_most_senders():
    (verdict,) = root_verdicts(COSTS)
    assert str(verdict).startswith("8,192 senders: the flat root takes 80 times the tree's CPU (goal 8)")


def test_a_replay_gives_flat_and_tree_the_same_parameters(monkeypatch):
    monkeypatch.setattr(replaying, "PAIRS", 100)
    monkeypatch.setattr(replaying, "PARAMETERS", 50)
    replaying.shoal.init(engine="inline")
    try:
        flat, tree = replaying.Root(3), replaying.Root(3)
        assert flat.generation(10, 0).fan_out == 0
        assert tree.generation(10, 3).senders == 10
        assert flat._strategy.centre.tobytes() == tree._strategy.centre.tobytes() != bytes(200)
    finally:
        replaying.shoal.shutdown()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--fan-out", "1"], "--workers, --rounds and --generations must be at least 1, --fan-out at least 2"),
        (["--evotorch-python", "python"], "--evotorch-python says which EvoTorch to compare with: give --vs evotorch"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(capsys, arguments, line):
    assert main(["es", *arguments]) == 2
    assert line in capsys.readouterr().err
