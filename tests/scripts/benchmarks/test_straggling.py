import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks.straggling import table, verdict


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "1"], "--workers must be at least 2"),
        (["--rollout-steps", "0"], "--rollout-steps at least 1"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--seconds", "0"], "--seconds positive"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["straggler", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_both_ways_are_measured_and_told(capsys):
    few = ["--workers", "2", "--rollout-steps", "2", "--rounds", "1", "--seconds", "0.1", "--markdown"]
    assert bench.main(["straggler", *few]) == 0
    told = capsys.readouterr().out
    assert "| synchronous | " in told
    assert "| dynamic | " in told
    assert "goal: dynamic loses under 15%" in told


def test_what_is_lost_is_of_each_ways_own_speed_beside_the_least_that_can_be():
    medians = {
        ("synchronous", False): 1000.0,
        ("synchronous", True): 50.0,
        ("dynamic", False): 1200.0,
        ("dynamic", True): 1080.0,
    }
    assert table(medians, 10)[1:] == [
        ["synchronous", "1,000", "50", "95.0%"],
        ["dynamic", "1,200", "1,080", "10.0%"],
        ["nobody waits, as computed", "", "1,086", "9.5%"],
    ]
    assert verdict(medians) == "goal: dynamic loses under 15%: met (10.0%)"
    assert verdict({**medians, ("dynamic", True): 900.0}) == "goal: dynamic loses under 15%: missed (25.0%)"
