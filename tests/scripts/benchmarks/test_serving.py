"""What `shoal bench serve` prints; and its arms, shortened, for what holds on any machine."""

import pytest

from shoal.scripts.benchmarks import serving
from shoal.scripts.benchmarks.loads import Answered
from shoal.scripts.benchmarks.serving import Figure
from shoal.scripts.command_line import UsageError


def test_medians_stand_beside_their_range_and_goal():
    found = {
        "p50": [Figure("p50", value, "us", 200e-6) for value in (150e-6, 100e-6, 300e-6)],
        "goodput": [Figure("goodput", value, "share", 0.9, is_ceiling=False) for value in (0.8, 0.95, 0.85)],
        "versions": [Figure("versions", 101, "")],
        "wait": [Figure("wait", 0.0123, "ms")],
    }
    assert serving.table(found) == [
        ["", "median", "lowest", "highest", "goal"],
        ["p50", "150 us", "100 us", "300 us", "<= 200 us"],
        ["goodput", "85.0%", "80.0%", "95.0%", ">= 90.0%"],
        ["versions", "101", "101", "101", ""],
        ["wait", "12.3 ms", "12.3 ms", "12.3 ms", ""],
    ]
    assert serving.verdicts(found) == ["goal missed: goodput"]
    assert serving.verdicts({"p50": found["p50"]}) == ["all goals met"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--only", "lunch"], "'lunch' is in the name of no arm; they are: latency, table 3"),
    ],
)
def test_what_cannot_be_followed_is_told(arguments, complaint):
    with pytest.raises(UsageError, match=complaint):
        serving.bench(arguments, "shoal bench serve")


def test_answers_that_come_late_are_told_apart():
    assert serving.in_time([Answered(0.0, late_s) for late_s in (0.001, 0.02, 0.021, 5.0)]) == 0.5
    assert serving.in_time([]) == 0.0


def test_versions_change_under_load_without_a_failed_request_or_a_mixed_batch():
    figures = {figure.name: figure.value for figure in serving.ARMS["swaps"](1.0)}
    assert figures["swaps: requests that failed"] == 0
    assert figures["swaps: answers of another version than they say"] == 0
    assert figures["swaps: versions that answered"] > 10


def test_a_server_that_is_killed_under_load_is_there_again_and_every_failure_says_why():
    figures = {figure.name: figure.value for figure in serving.ARMS["kill"](1.0)}
    assert figures["kill: failures that do not say why"] == 0
    assert figures["kill: longest wait"] < 20.0
