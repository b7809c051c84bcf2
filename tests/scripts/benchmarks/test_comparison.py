"""What the figures say, without a process."""

import pytest
from hypothesis import given, strategies as st

from shoal.scripts.benchmarks import comparison
from shoal.scripts.benchmarks.comparison import MILLISECONDS, Row, Samples, Subject

SYNC, ASYNC = "single client tasks sync", "single client tasks async"


def row(name: str, ours: float, theirs: float | None, **subject) -> Row:
    return Row(Subject(name, **subject), Samples([ours]), None if theirs is None else Samples([theirs]))


def judged(*rows: Row) -> dict[str, bool | None]:
    return {verdict.text: verdict.reached for verdict in comparison.verdicts(rows)}


def test_a_ratio_is_ours_over_theirs_for_speeds_and_the_other_way_for_times():
    assert row("a", 30, 10).ratio == 3
    assert row("a", 10, 30, unit=MILLISECONDS).ratio == 3


def test_the_ratio_is_that_of_the_medians_and_every_round_has_its_own():
    compared = Row(Subject("a"), Samples([10, 20, 90]), Samples([1, 4, 3]))
    assert compared.ratio == 20 / 3
    assert compared.ratios == [10, 5, 30]


def test_the_spread_is_the_range_over_the_median():
    assert Samples([8, 10, 13]).spread == 0.5
    assert Samples().spread == 0


@pytest.mark.parametrize("trouble", [Samples(), Samples([1.0], "failed: in the second round")])
def test_a_case_without_figures_has_no_ratio(trouble):
    assert Row(Subject("a"), trouble, Samples([1])).ratio is None
    assert Row(Subject("a"), Samples([1]), trouble).ratio is None
    assert Row(Subject("a"), Samples([1]), None).ratio is None


@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=1))
def test_the_mean_is_the_geometric_one_of_the_ratios(pairs):
    ratios = [ours / theirs for ours, theirs in pairs]
    expected = 1.0
    for ratio in ratios:
        expected *= ratio ** (1 / len(ratios))
    texts = judged(*(row(f"case {i}", *pair) for i, pair in enumerate(pairs)))
    (told,) = (text.split() for text in texts if text.startswith("geometric mean"))
    assert (told[3], told[4]) == (str(len(pairs)), "cases")
    assert float(told[5]) == pytest.approx(expected, rel=1e-6, abs=0.051)


@pytest.mark.parametrize(("ratio", "reached"), [(10.0, True), (9.99, False)])
def test_the_goal_of_the_mean_is_ten(ratio, reached):
    assert judged(row("a", ratio, 1))[f"geometric mean of 1 cases {ratio:.1f} (goal 10)"] is reached


@pytest.mark.parametrize(("ratio", "reached"), [(3.0, True), (2.99, False)])
def test_the_smallest_ratio_is_named_and_must_be_three(ratio, reached):
    assert judged(row("b", 100, 1), row("a", ratio, 1))[f"smallest ratio {ratio:.1f}, a (goal 3)"] is reached


@pytest.mark.parametrize(("ratio", "reached"), [(6.0, True), (5.9, False)])
def test_synchronous_calls_must_be_six_times_as_fast(ratio, reached):
    texts = judged(row(SYNC, ratio, 1), row(ASYNC, 4, 1))
    assert texts[f"{SYNC} {ratio:.1f} times (goal 6)"] is reached
    assert not any(ASYNC in text and "goal 6" in text for text in texts)


@pytest.mark.parametrize(("ours", "reached"), [(8.0, True), (7.9, False)])
def test_what_is_bound_by_memory_is_judged_by_its_ceiling_and_not_by_the_floor(ours, reached):
    texts = judged(row("put", ours, ours, ceiling="copy"), row("copy", 10, 10, counts=False), row("a", 5, 1))
    assert texts[f"put {ours / 10:.0%} of its ceiling (goal 80%)"] is reached
    assert texts["smallest ratio 5.0, a (goal 3)"] is True
    assert any(text.startswith("geometric mean of 2 cases") for text in texts)  # it counts all the same


def test_a_case_that_is_not_of_ray_stands_outside_of_the_mean_and_says_so():
    ours = row("random", 1, 1, counts=False)
    assert "geometric mean of 1 cases 12.0 (goal 10)" in judged(row("a", 12, 1), ours)
    assert comparison.table([ours], "ray 2.60.0")[1][0] == "random *"
    assert comparison.table([ours])[1][0] == "random"


def test_a_case_that_has_no_ratio_is_named_and_nothing_claims_the_goal_for_it():
    missing = Row(Subject(SYNC), Samples(trouble="not there yet"), Samples([1]))
    texts = judged(missing, row("a", 12, 1))
    assert texts[f"without a ratio: {SYNC}"] is None
    assert texts[f"{SYNC} without a ratio (goal 6)"] is None
    assert any(text.startswith("geometric mean of 1 of 2 cases") for text in texts)
    assert comparison.table([missing], "ray")[1][1] == "not there yet"


def test_without_a_peer_only_the_ceilings_and_the_life_cycle_are_judged():
    texts = judged(
        row("a", 1, None),
        row("put", 9, None, ceiling="copy"),
        row("copy", 10, None, counts=False),
        row("init", 301, None, unit=MILLISECONDS, counts=False),
        row("shutdown", 499, None, unit=MILLISECONDS, counts=False),
    )
    assert texts == {
        "put 90% of its ceiling (goal 80%)": True,
        "init 301 ms (goal 300 ms)": False,
        "shutdown 499 ms (goal 500 ms)": True,
    }


def test_the_table_has_its_figures_in_columns():
    rows = [Row(Subject("a"), Samples([1000, 1100]), Samples([10, 11])), row("init", 150.4, 3000, unit=MILLISECONDS)]
    text = comparison.as_text(comparison.table(rows, "ray 2.60.0"))
    assert text.splitlines() == [
        "case    shoal  spread  ray 2.60.0  spread  ratio        by round",
        "a     1,050/s     10%      10.5/s     10%  100.0  100.0 to 100.0",
        "init   150 ms            3,000 ms           19.9",
    ]


def test_markdown_has_a_rule_below_the_head_and_a_bar_at_both_ends():
    assert comparison.as_markdown(comparison.table([row("a", 1.5, None)])) == (
        "| case | shoal | spread |\n| --- | --: | --: |\n| a | 1.50/s |  |"
    )


@pytest.mark.parametrize(("theirs", "reached"), [(10, True), (8, True), (12.5, True), (7, False), (13, False)])
def test_what_asks_nothing_of_an_engine_shows_whether_the_machine_was_the_same_for_both(theirs, reached):
    texts = judged(row("copy", 10, theirs, counts=False, is_control=True))
    assert texts == {f"the machine gave both the same: copy {10 / theirs:.2f} (0.8 to 1.25)": reached}
