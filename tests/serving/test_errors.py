import pickle

import pytest

from shoal.serving import errors


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_every_error_survives_pickle_with_what_it_says(kind):
    error = kind("the text", field="observations.x")
    if hasattr(error, "retry_after_s"):
        error = kind("the text", field="observations.x", retry_after_s=2.5)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "the text"
    assert vars(again) == vars(error)


def test_an_answer_names_code_message_and_field():
    assert errors.BadObservation("shape [3]", field="observations.x").to_json() == {
        "error": {"code": "bad_observation", "message": "shape [3]", "field": "observations.x"}
    }


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_an_answer_becomes_the_error_that_it_was(kind):
    error = kind("the text", field="timeout_s")
    again = errors.failure(kind.status, error.to_json())
    assert type(again) is kind
    assert vars(again) == vars(error)


def test_when_to_come_back_travels():
    error = errors.failure(503, errors.Overloaded("full", retry_after_s=0.25).to_json())
    assert error.retry_after_s == 0.25


@pytest.mark.parametrize("answer", [None, [], {}, {"error": "x"}, {"error": {"code": "unheard"}}, {"detail": "x"}])
def test_an_answer_of_something_else_may_pass_if_it_is_its_own_fault(answer):
    assert errors.failure(502, answer).can_retry
    assert not errors.failure(404, answer).can_retry


def test_the_tree_in_the_docstring_is_the_tree():
    for kind in errors.ServingError.__subclasses__():
        (line,) = [line for line in errors.__doc__.splitlines() if f"- {kind.__name__} " in line]
        assert f" {kind.code} " in line
        assert kind is errors.Unreachable or f" {kind.status} " in line
