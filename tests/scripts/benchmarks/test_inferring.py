import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks.inferring import CASES, WAYS, Figure, table


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds and --rollout-steps must be at least 1"),
        (["--seconds", "0"], "--seconds positive"),
        (["--only", "chess"], "--only 'chess' is in the name of no case"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["inference", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_every_way_is_measured_and_told(capsys):
    few = ["--only", "64x64", "--rollout-steps", "4", "--rounds", "1", "--seconds", "0.05", "--markdown"]
    assert bench.main(["inference", *few]) == 0
    told = capsys.readouterr().out
    assert "| 64x64 net, CartPole, 2 workers of 8 |" in told
    assert "actor, 2 groups: steps/s, us" in told


def test_the_ratio_is_of_the_medians_of_the_best_actor_and_of_no_actor():
    local, actor, groups = (way.name for way in WAYS)
    first, last = CASES[0], CASES[-1]
    rates = {
        (first.name, local): [100.0, 1000.0, 200.0],
        (first.name, actor): [80.0, 60.0, 90.0],
        (first.name, groups): [100.0, 120.0, 90.0],
        (last.name, local): [10.0],
        (last.name, actor): [30.0],
    }
    figures = {each: [Figure(rate, rate / 2) for rate in found] for each, found in rates.items()}
    assert table([first, last], figures)[1:] == [
        [first.name, "200 100", "80 40", "100 50", "0.50"],
        [last.name, "10 5", "30 15", "", "3.00"],
    ]
