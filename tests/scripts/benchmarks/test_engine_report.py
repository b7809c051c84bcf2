"""What is made of the times of Ray and of shoal on Ray; and one real, short measurement."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shoal.scripts.benchmarks.engine_report import Cost, table, verdict


def cost(name, added, rounds=8):
    return Cost(name, [1e-3] * rounds, [1e-3 * (1 + added)] * rounds)


def test_what_is_added_is_the_median_over_the_rounds_and_not_of_the_ratio_of_medians():
    # A machine that is twice as slow in some rounds is so for both of a round.
    uneven = Cost("calls", ray=[1.0, 2.0, 4.0], shoal=[1.03, 2.06, 4.12])
    assert uneven.median == pytest.approx(0.03)


def test_the_table_has_times_and_parts():
    assert table([cost("tasks sync", 0.02)])[1] == ["tasks sync", "1,000 us", "1,020 us", "+2.0%", "+2.0% to +2.0%"]


@pytest.mark.parametrize(("added", "reached"), [(0.049, True), (0.051, False), (-0.2, True)])
def test_the_worst_case_decides(added, reached):
    found = verdict([cost("tasks sync", 0.0), cost("tasks async", added)])
    assert found.reached is reached
    assert ("tasks async" in str(found)) is (added > 0)


def test_one_round_has_no_middle_half():
    assert cost("tasks sync", 0.02, rounds=1).middle_half == pytest.approx((0.02, 0.02))


@pytest.mark.ray
def test_it_measures_on_a_real_cluster():
    done = subprocess.run(
        [sys.executable, "-m", "shoal.scripts", "bench", "engine", "--rounds", "1", "--num-cpus", "2"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("tasks sync", "tasks async", "actor calls sync", "actor calls async", "at most 5% added"):
        assert name in done.stdout


def test_a_wrong_number_of_rounds_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "shoal.scripts", "bench", "engine", "--rounds", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
