import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks.stepping import CASES, table


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--seconds", "0"], "--seconds positive"),
        (["--only", "no such case"], "is in the name of no case; they are: serial, 8 copies; parallel"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["envs", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_every_case_is_stepped_and_told(capsys):
    assert bench.main(["envs", "--rounds", "1", "--seconds", "0.01", "--markdown"]) == 0
    told = capsys.readouterr().out
    for case in CASES:
        assert f"| {case.name} | " in told


def test_the_median_and_the_spread_are_over_the_rounds():
    assert table({"a": [900_000.0, 1_000_000.0, 1_200_000.0]})[1] == ["a", "1,000,000", "30%"]
