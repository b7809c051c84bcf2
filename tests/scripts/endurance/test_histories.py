"""The judge of histories: good ones pass, and each fault that a runtime could have is found."""

import random

import pytest
from hypothesis import given, strategies as st

from shoal.scripts.endurance.histories import Entry, Outcome, violations

FAILED = "ActorUnavailableError: it restarts"


def history(*entries: tuple[str, int, int]) -> list[Entry]:
    return [Entry(*entry) for entry in entries]


def told(entries: list[Entry]) -> list[Outcome]:
    """What callers are told when every run is answered; of a call that ran twice, the last."""
    answers: dict[tuple[str, int], Outcome] = {}
    counts: dict[int, int] = {}
    for entry in entries:
        counts[entry.incarnation] = counts.get(entry.incarnation, 0) + 1
        answer = (entry.incarnation, counts[entry.incarnation])
        answers[entry.caller, entry.number] = Outcome(entry.caller, entry.number, answer)
    return list(answers.values())


def test_a_line_comes_back_as_it_was_written():
    entry = Entry("driver", 12, 345)
    assert Entry.parse(entry.line().decode()) == entry
    with pytest.raises(ValueError, match="invalid literal"):
        Entry.parse("half a li")


@pytest.mark.parametrize("at_least_once", [False, True])
def test_calls_that_all_ran_once_and_in_order_are_right(at_least_once):
    ran = history(("a", 0, 1), ("b", 0, 1), ("a", 1, 1), ("b", 1, 2), ("a", 2, 2))
    assert violations(ran, told(ran), at_least_once=at_least_once) == []


def test_at_most_once_lets_calls_fail_whether_they_ran_or_not():
    ran = history(("a", 0, 1), ("a", 1, 1), ("a", 4, 2))
    outcomes = [
        Outcome("a", 0, (1, 1)),
        Outcome("a", 1, failure=FAILED),
        Outcome("a", 2, failure=FAILED),
        Outcome("a", 3, failure=FAILED),
        Outcome("a", 4, (2, 1)),
    ]
    assert violations(ran, outcomes, at_least_once=False) == []


def test_at_least_once_lets_what_was_not_answered_run_again_after_a_restart():
    ran = history(("a", 0, 1), ("a", 1, 1), ("a", 2, 1), ("a", 1, 2), ("a", 2, 2), ("a", 3, 2))
    assert violations(ran, told(ran), at_least_once=True) == []
    assert violations(ran, told(ran), at_least_once=False) != []


def test_a_restart_before_anything_ran_again_is_right():
    ran = history(("a", 0, 1), ("b", 0, 1), ("b", 0, 2), ("a", 0, 3), ("b", 0, 3), ("b", 1, 3))
    assert violations(ran, told(ran), at_least_once=True) == []


@pytest.mark.parametrize(
    ("ran", "at_least_once", "complaint"),
    [
        (history(("a", 0, 1), ("a", 0, 2)), False, "a 0 ran again, after 0"),
        (history(("a", 1, 1), ("a", 0, 1)), False, "a 0 ran too late, after 1"),
        (history(("a", 1, 1), ("a", 0, 2)), False, "a 0 ran too late, after 1"),
        (history(("a", 0, 1), ("a", 0, 1)), True, "a 0 ran out of order: 1 was next"),
        (history(("a", 0, 1), ("a", 2, 1), ("a", 1, 1)), True, "a 2 ran out of order: 1 was next"),
        (history(("a", 0, 1), ("a", 2, 2), ("a", 1, 2)), True, "a 2 ran out of order: 1 was next"),
        (history(("a", 0, 2), ("a", 1, 1)), True, "a 1 ran in incarnation 1, after 2 had begun"),
        (history(("a", 0, 2), ("a", 1, 1)), False, "a 1 ran in incarnation 1, after 2 had begun"),
    ],
)
def test_runs_that_may_not_be_are_found(ran, at_least_once, complaint):
    assert complaint in violations(ran, told(ran), at_least_once=at_least_once)


@pytest.mark.parametrize("at_least_once", [False, True])
@pytest.mark.parametrize("answer", [(1, 2), (2, 1), (1, 7)])
def test_an_answer_that_does_not_match_a_run_is_found(answer, at_least_once):
    ran = history(("a", 0, 1))
    (complaint,) = violations(ran, [Outcome("a", 0, answer)], at_least_once=at_least_once)
    assert complaint == f"a 0 was answered by incarnation {answer[0]} as its call {answer[1]}, but did not run so"


@pytest.mark.parametrize("at_least_once", [False, True])
def test_an_answer_for_a_call_that_never_ran_and_a_run_that_nobody_made_are_found(at_least_once):
    assert violations([], [Outcome("a", 0, (1, 1))], at_least_once=at_least_once)
    assert violations(history(("a", 0, 1)), [], at_least_once=at_least_once) == ["a 0 ran, but nobody made it"]


def test_at_least_once_no_call_may_fail_and_every_one_runs():
    assert violations([], [Outcome("a", 0, failure=FAILED)], at_least_once=True) == [
        f"a 0 failed: {FAILED}",
        "a 0 has never run",
    ]


def simulate(seed: int, *, at_least_once: bool) -> tuple[list[Entry], list[Outcome]]:
    """An actor as it should be, in a few lines: calls run in order, it is killed at any moment."""
    source = random.Random(seed)
    ran: list[Entry] = []
    outcomes: dict[tuple[str, int], Outcome] = {}
    sent: dict[str, list[int]] = {"a": [], "b": []}
    made = {"a": 0, "b": 0}
    incarnation, count = 1, 0
    for _ in range(source.randrange(60)):
        caller = source.choice("ab")
        act = source.choice(["make", "run", "run", "kill"])
        if act == "make":
            sent[caller].append(made[caller])
            made[caller] += 1
        elif act == "run" and sent[caller]:
            count += 1
            number = sent[caller][0]
            ran.append(Entry(caller, number, incarnation))
            if source.random() < 0.8:  # else it is killed before it can answer
                sent[caller].pop(0)
                outcomes[caller, number] = Outcome(caller, number, (incarnation, count))
            else:
                act = "kill"
        if act == "kill":
            incarnation, count = incarnation + 1, 0
            if not at_least_once:
                for each, numbers in sent.items():
                    outcomes |= {(each, number): Outcome(each, number, failure=FAILED) for number in numbers}
                    numbers.clear()
    for each, numbers in sent.items():  # the rest runs in peace
        for number in numbers:
            count += 1
            ran.append(Entry(each, number, incarnation))
            outcomes[each, number] = Outcome(each, number, (incarnation, count))
    return ran, list(outcomes.values())


@given(st.integers(0, 2**32), st.booleans())
def test_whatever_a_right_actor_does_is_accepted(seed, at_least_once):
    ran, outcomes = simulate(seed, at_least_once=at_least_once)
    assert violations(ran, outcomes, at_least_once=at_least_once) == []


@given(st.integers(0, 2**32), st.booleans(), st.data())
def test_a_run_that_is_taken_out_or_doubled_is_found(seed, at_least_once, data):
    ran, outcomes = simulate(seed, at_least_once=at_least_once)
    answered = {(each.caller, each.number, each.answer[0]) for each in outcomes if each.answer}
    places = [i for i, each in enumerate(ran) if (each.caller, each.number, each.incarnation) in answered]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    doubled = [*ran[: place + 1], *ran[place:]]
    missing = [*ran[:place], *ran[place + 1 :]]
    assert violations(doubled, outcomes, at_least_once=at_least_once)
    assert violations(missing, outcomes, at_least_once=at_least_once)
