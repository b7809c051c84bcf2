"""Which version answers: the rules one by one, and any order of events against what must always hold."""

import pytest
from hypothesis import given, settings, strategies as st

from shoal.serving.errors import PolicyNotFound, Unready
from shoal.serving.policies import PolicyTable, RefusedError


def table(*numbers, name="walker"):
    made = PolicyTable()
    for number in numbers:
        made.add(name, number=number, source=f"checkpoint {number}", loaded_at=float(number))
    return made


def test_before_there_is_a_policy_nobody_is_ready():
    with pytest.raises(Unready, match="no policy is served yet"):
        PolicyTable().choose("walker", None, 0)


def test_an_unknown_name_is_told_the_names_that_there_are():
    with pytest.raises(PolicyNotFound, match="no policy 'runner' is served; choose from walker"):
        table(1).choose("runner", None, 0)


def test_a_newer_version_answers_from_now_on_and_the_one_before_is_retired():
    made = table(3)
    assert made.choose("walker", None, 0) == 3
    assert made.add("walker", number=7, source="learner", loaded_at=1.0) == (7, (3,))
    assert made.choose("walker", None, 0) == 7
    assert [(version.number, version.state) for version in made.versions("walker")] == [(7, "serving"), (3, "retired")]
    with pytest.raises(PolicyNotFound, match="version 3 of 'walker' is retired; there are 7"):
        made.choose("walker", 3, 0)
    with pytest.raises(PolicyNotFound, match="version 5 of 'walker' is unknown; there are 7"):
        made.choose("walker", 5, 0)


def test_a_version_that_is_not_newer_is_refused_and_the_old_one_serves_on():
    made = table(3)
    with pytest.raises(RefusedError, match="policy 'walker': a file is refused: version 3 is not newer than 3"):
        made.add("walker", number=3, source="a file", loaded_at=0.0)
    assert made.choose("walker", None, 0) == 3
    assert [(refusal.policy, refusal.source) for refusal in made.refusals] == [("walker", "a file")]
    assert made.num_refused == 1


def test_without_a_number_a_version_gets_the_next():
    made = table(3)
    assert made.add("walker", number=None, source="a file", loaded_at=0.0)[0] == 4
    assert made.add("runner", number=None, source="a file", loaded_at=0.0)[0] == 0


def test_a_version_with_a_share_stays_when_newer_ones_come_and_go():
    made = table(5)
    made.share("walker", {5: 0.9})
    made.add("walker", number=6, source="learner", loaded_at=0.0)
    assert made.add("walker", number=7, source="learner", loaded_at=0.0) == (7, (6,))
    assert made.traffic("walker") == pytest.approx({5: 0.9, 7: 0.1})
    chosen = [made.choose("walker", None, key) for key in range(10_000)]
    assert chosen.count(5) == pytest.approx(9000, abs=200)
    assert set(chosen) == {5, 7}


def test_a_share_of_nothing_keeps_a_version_for_those_who_ask_for_it_until_it_is_left_out():
    made = table(5)
    made.share("walker", {5: 0.0})
    made.add("walker", number=6, source="learner", loaded_at=0.0)
    assert {made.choose("walker", None, key) for key in range(100)} == {6}
    assert made.choose("walker", 5, 0) == 5
    assert made.share("walker", {}) == (5,)
    with pytest.raises(PolicyNotFound, match="version 5 of 'walker' is retired"):
        made.choose("walker", 5, 0)


def test_a_session_stays_with_its_version_and_a_new_division_moves_only_those_that_must_move():
    made = table(5)
    made.share("walker", {5: 0.5})
    made.add("walker", number=6, source="learner", loaded_at=0.0)
    keys = [f"session-{i}" for i in range(1000)]
    before = {key: made.choose("walker", None, key) for key in keys}
    assert before == {key: made.choose("walker", None, key) for key in keys}
    made.share("walker", {5: 0.6})
    after = {key: made.choose("walker", None, key) for key in keys}
    assert {key for key in keys if before[key] == 5} < {key for key in keys if after[key] == 5}


@pytest.mark.parametrize("shares", [{5: -0.1}, {5: 1.1}, {5: float("nan")}, {5: 0.7, 6: 0.4}])
def test_shares_that_are_no_parts_of_a_whole_are_refused(shares):
    made = table(5)
    made.share("walker", {5: 0.5})
    made.add("walker", number=6, source="learner", loaded_at=0.0)
    with pytest.raises(ValueError, match="share"):
        made.share("walker", shares)
    assert made.shares("walker") == {5: 0.5}


def test_a_shadow_answers_nobody_until_it_is_put_in_front():
    made = table(5)
    made.add("walker", number=6, source="learner", loaded_at=0.0, is_shadow=True)
    assert made.shadows("walker") == (6,)
    assert made.choose("walker", None, 0) == 5
    with pytest.raises(PolicyNotFound, match="version 6 of 'walker' is shadow"):
        made.choose("walker", 6, 0)
    assert made.serve("walker", 6) == (5,)
    assert made.choose("walker", None, 0) == 6
    with pytest.raises(ValueError, match="no shadow"):
        made.serve("walker", 6)


def test_the_first_version_of_a_policy_cannot_be_a_shadow():
    made = PolicyTable()
    with pytest.raises(RefusedError, match="nobody would answer"):
        made.add("walker", number=1, source="learner", loaded_at=0.0, is_shadow=True)
    assert made.names == ()


def test_the_version_in_front_can_neither_be_retired_nor_made_a_shadow():
    made = table(5)
    for change in (made.retire, made.shadow):
        with pytest.raises(ValueError, match="is the one in front"):
            change("walker", 5)


def test_what_is_retired_or_made_a_shadow_leaves_its_share_to_the_version_in_front():
    for change in ("shadow", "retire"):
        made = table(5)
        made.share("walker", {5: 0.5})
        made.add("walker", number=6, source="learner", loaded_at=0.0)
        getattr(made, change)("walker", 5)
        assert {made.choose("walker", None, key) for key in range(50)} == {6}


def test_of_many_retired_versions_the_last_are_told_of():
    assert len(table(*range(100)).versions("walker")) == 9


def test_a_policy_that_is_removed_is_gone():
    made = table(5)
    assert made.remove("walker") == (5,)
    assert made.names == ()


VERSIONS = st.integers(0, 12)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), VERSIONS | st.none(), st.booleans()),
        st.tuples(st.sampled_from(["serve", "shadow", "retire"]), VERSIONS),
        st.tuples(st.just("share"), st.dictionaries(VERSIONS, st.sampled_from([0.0, 0.25, 0.5]), max_size=2)),
    ),
    max_size=30,
)


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_there_is_one_in_front_that_serves_and_only_who_serves_answers(events):
    made = PolicyTable()
    for kind, *arguments in events:
        try:
            if kind == "add":
                number, is_shadow = arguments
                made.add("walker", number=number, source="x", loaded_at=0.0, is_shadow=is_shadow)
            else:
                getattr(made, kind)("walker", *arguments)
        except (RefusedError, PolicyNotFound, Unready, ValueError):
            pass
        if not made.names:
            continue
        serving = made.serving("walker")
        assert made.front("walker") in serving
        assert {made.choose("walker", None, key) for key in range(20)} <= set(serving)
        assert set(made.shares("walker")) <= set(serving)
        assert sum(made.traffic("walker").values()) == pytest.approx(1.0 if made.traffic("walker") else 0.0)
        assert set(serving) == {made.front("walker"), *made.shares("walker")}
        looking_on = {version.number for version in made.versions("walker") if version.state == "shadow"}
        assert set(made.shadows("walker")) == looking_on
