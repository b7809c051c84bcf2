import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from shoal.serving.checking import Checker, first_not_finite
from shoal.serving.errors import BadObservation, BadRequest, ServingError
from shoal.serving.requests import ActRequest, parse_name

GOOD = {
    "camera": np.zeros((2, 4, 3), np.uint8),
    "state/0": np.zeros((2, 2), np.float32),
    "state/1": np.full(2, 5),
    "gears": np.ones((2, 2), np.int64),
    "lamps": np.ones((2, 2), np.int8),
}


def request(**changes) -> ActRequest:
    columns = GOOD | {name: array for name, array in changes.items() if name in GOOD}
    rest = {name: value for name, value in changes.items() if name not in GOOD}
    return ActRequest(**({"observations": columns} | rest))


def test_arrays_that_fit_are_not_copied(everything):
    checked = Checker(everything).checked(request())
    assert all(checked.observations[name] is array for name, array in GOOD.items() if array.flags.c_contiguous)


def test_a_request_of_one_column_that_fits_is_the_same_one_and_one_that_does_not_is_another(cartpole):
    fits = ActRequest(observations={"observation": np.zeros((1, 4), np.float32)}, deterministic=False)
    assert Checker(cartpole).checked(fits) is fits
    other = ActRequest(observations={"observation": np.zeros((1, 4))}, deterministic=False)
    checked = Checker(cartpole).checked(other)
    assert (checked.observations["observation"].dtype, checked.deterministic) == (np.float32, False)
    assert other.observations["observation"].dtype == np.float64


def test_the_first_number_that_is_not_finite_is_found_wherever_it_is():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 4), (2, 3, 5), (0, 4), (100, 7)):
        for count in (0, 1, 3):
            array = rng.standard_normal(shape).astype(np.float32)
            for place in rng.integers(0, max(1, array.size), count if array.size else 0):
                array.flat[place] = rng.choice([np.nan, np.inf, -np.inf])
            places = [place for place, number in enumerate(array.flat) if not np.isfinite(number)]
            assert first_not_finite(array) == (places[0] if places else None)


def test_lists_of_numbers_become_the_policys_dtypes(everything):
    checked = Checker(everything).checked(
        request(camera=np.full((2, 4, 3), 255), **{"state/0": np.array([[1, 2], [3, 4]]), "lamps": np.ones((2, 2))})
    )
    assert {name: array.dtype for name, array in checked.observations.items()} == {
        name: array.dtype for name, array in GOOD.items()
    }
    assert checked.observations["camera"].max() == 255


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"camera": np.zeros((2, 4), np.uint8)}, "observations.camera", "shape [2, 4]; the policy takes [N, 4, 3]"),
        ({"camera": np.array(3)}, "observations.camera", "shape []; the policy takes [N, 4, 3]"),
        ({"camera": np.float64(3)}, "observations.camera", "no array but float64"),
        ({"state/0": [[0, 1]] * 2}, "observations.state/0", "no array but list; the policy takes [N, 2] of float32"),
        ({"state": [[0.0, 1.0]] * 2}, "state", "no array but list; the policy takes [N, 2] of float32"),
        ({"action_mask": ((True,) * 3,) * 2}, "action_mask", "no array but tuple; the policy takes [N, 3] of bool"),
        ({"camera": np.full((2, 4, 3), 256)}, "observations.camera", "numbers that are no uint8"),
        ({"camera": np.full((2, 4, 3), 0.5)}, "observations.camera", "numbers that are no uint8"),
        ({"camera": np.full((2, 4, 3), np.nan)}, "observations.camera", "numbers that are no uint8"),
        ({"camera": np.full((2, 4, 3), "a")}, "observations.camera", "<U1; the policy takes uint8"),
        ({"state/0": np.array([[0, 1], [0, np.nan]])}, "observations.state/0", "not a finite number at [1, 1]"),
        ({"state/0": np.array([[0, 1], [0, 1e300]])}, "observations.state/0", "not a finite number at [1, 1]"),
        ({"state/0": np.ones((2, 2), bool)}, "observations.state/0", "bool; the policy takes float32"),
        ({"state/0": np.full((2, 2), None)}, "observations.state/0", "object; the policy takes float32"),
        ({"state/0": np.zeros((3, 2))}, "observations.state/0", "3 rows; 'camera' has 2"),
        ({"state/1": np.array([5, 8])}, "observations.state/1", "row 1 is 8; there are 5 to 7"),
        ({"gears": np.array([[0, 0], [1, -1]])}, "observations.gears", "row 1 is [ 1, -1]; there are [0, 0] to [1, 2]"),
        ({"lamps": np.full((2, 2), 2)}, "observations.lamps", "row 0 is [2, 2]"),
        ({"observations": GOOD | {"extra": np.zeros(2)}}, "observations.extra", "no such column; it has camera, "),
        ({"observations": {"camera": GOOD["camera"]}}, "observations.gears", "missing"),
        ({"observations": {"x": np.zeros((9, 1))}}, "observations.x", "no such column"),
        ({"observations": {}}, "observations.camera", "missing"),
        ({"observations": GOOD | {"gears": None}}, "observations.gears", "missing"),
        ({"action_mask": np.ones((2, 4))}, "action_mask", "shape [2, 4]; the policy takes [N, 3] of bool"),
        ({"action_mask": np.full((2, 3), 2)}, "action_mask", "int64; it takes booleans, or 0 and 1"),
        ({"action_mask": np.array([[1, 0, 0], [0, 0, 0]])}, "action_mask", "row 1 allows no choice"),
        ({"state": np.zeros((2, 3))}, "state", "shape [2, 3]; the policy takes [N, 2] of float32"),
        ({"state": np.full((2, 2), np.inf)}, "state", "not a finite number at [0, 0]"),
        ({"episode_start": np.ones(3)}, "episode_start", "shape [3]"),
        ({"sessions": ("a",)}, "sessions", "1 names for 2 rows"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(everything, changes, field, text):
    with pytest.raises(BadObservation) as caught:
        Checker(everything).checked(request(**changes))
    assert caught.value.field == field
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sessions": ("a", "a")}, "sessions"),
        ({"sessions": ("a", "")}, "sessions"),
        ({"sessions": ("a", "b\n")}, "sessions"),
        ({"sessions": ("a", "x" * 129)}, "sessions"),
        ({"sessions": ("a", "b"), "state": np.zeros((2, 2))}, "state"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": 1e9}, "timeout_s"),
    ],
)
def test_what_contradicts_itself_is_named(everything, changes, field):
    with pytest.raises(BadRequest) as caught:
        Checker(everything).checked(request(**changes))
    assert caught.value.field == field


def test_there_are_as_many_rows_as_the_policy_takes(cartpole):
    checker = Checker(cartpole)
    for rows in (0, 65):
        with pytest.raises(BadObservation, match=f"{rows} rows; 'cartpole' takes 1 to 64 in a request"):
            checker.checked(ActRequest(observations={"observation": np.zeros((rows, 4))}))


def test_a_policy_without_memory_or_choices_says_so(cartpole):
    with pytest.raises(BadObservation, match="no recurrent state"):
        Checker(cartpole).checked(
            ActRequest(observations={"observation": np.zeros((1, 4))}, state=np.zeros((1, 0), np.float32))
        )
    real = dataclasses.replace(cartpole, action_space=cartpole.observation_space)
    with pytest.raises(BadObservation, match="nothing to choose from"):
        Checker(real).checked(
            ActRequest(observations={"observation": np.zeros((1, 4))}, action_mask=np.zeros((1, 0), bool))
        )


def test_names_may_have_a_version():
    assert parse_name("walker") == ("walker", None)
    assert parse_name("walker:12") == ("walker", 12)
    for name in ("walker:", "walker:x", "walker:-1", "walker:1:2", "walker:\u0661", "walker:" + "9" * 5000):
        with pytest.raises(ServingError) as caught:
            parse_name(name)
        assert caught.value.field == "name"


def test_a_space_of_another_kind_is_refused():
    from shoal.serving.spaces import space_form

    with pytest.raises(ValueError, match="Text are not served"):
        space_form(spaces.Dict({"a": spaces.Text(3)}))
