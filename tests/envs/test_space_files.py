"""Spaces from a file: those that a server tells, and what is no space."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.space_files import SpaceFileError, read
from shoal.serving.forms import to_json
from shoal.serving.spaces import space_form

EVERYTHING = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (4, 3), np.uint8),
        "state": spaces.Tuple((spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(3, start=5))),
        "arm": spaces.Box(np.array([-1, -2], np.float32), np.array([1, np.inf], np.float32)),
        "gears": spaces.MultiDiscrete([2, 3], start=[1, 4]),
        "lamps": spaces.MultiBinary(2),
    }
)


def written(tmp_path, told):
    path = tmp_path / "spaces.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return path


def test_what_a_server_tells_of_spaces_can_be_read_from_a_file(tmp_path):
    told = {
        "observation_space": to_json(space_form(EVERYTHING)),
        "action_space": to_json(space_form(spaces.Discrete(2))),
    }
    assert read(written(tmp_path, told)) == (EVERYTHING, spaces.Discrete(2))


def test_what_is_left_away_is_usual(tmp_path):
    told = {"observation_space": {"kind": "box", "shape": [4]}, "action_space": {"kind": "discrete", "nvec": [3]}}
    observations, actions = read(written(tmp_path, told))
    assert observations == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert actions == spaces.Discrete(3)


def test_whole_numbers_of_64_bits_without_bounds_have_those_of_their_kind(tmp_path):
    unbounded = {"kind": "box", "shape": [1], "dtype": "int64"}
    above = {"kind": "box", "shape": [2], "dtype": "uint64", "low": [-5, 7], "high": [None, 1e300]}
    observations, actions = read(written(tmp_path, {"observation_space": unbounded, "action_space": above}))
    whole = np.iinfo(np.int64)
    assert observations == spaces.Box(whole.min, whole.max, (1,), np.int64)
    assert (actions.low.tolist(), actions.high.tolist()) == ([0, 7], [2**64 - 1] * 2)


def test_the_parts_of_a_tuple_are_in_the_order_of_their_numbers(tmp_path):
    parts = {"1": {"kind": "discrete", "nvec": [7]}, "0": {"kind": "box", "shape": [2]}}
    told = {"observation_space": {"kind": "tuple", "parts": parts}, "action_space": GOOD}
    observations, _ = read(written(tmp_path, told))
    assert [type(part) for part in observations.spaces] == [spaces.Box, spaces.Discrete]


GOOD = {"kind": "discrete", "nvec": [3]}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{", "is no JSON"),
        ({"observation_space": GOOD}, "is no object of observation_space and action_space"),
        ({"observation_space": 3, "action_space": GOOD}, "observation_space has no kind of box"),
        ({"observation_space": {"kind": []}, "action_space": GOOD}, "observation_space has no kind of box"),
        (
            {"observation_space": {"kind": "tuple", "parts": {"a": GOOD}}, "action_space": GOOD},
            "observation_space: '0' is missing",
        ),
        ({"observation_space": {"kind": "sequence"}, "action_space": GOOD}, "observation_space has no kind of box"),
        ({"observation_space": {"kind": "box"}, "action_space": GOOD}, "observation_space: 'shape' is missing"),
        ({"observation_space": GOOD | {"size": 3}, "action_space": GOOD}, "observation_space.size: a discrete has"),
        ({"observation_space": GOOD | {"nvec": [-3]}, "action_space": GOOD}, "observation_space: "),
        (
            {"observation_space": GOOD | {"nvec": 3}, "action_space": GOOD},
            "observation_space.nvec: 3 is no list of numbers, as [0]",
        ),
        ({"observation_space": {"kind": "box", "shape": "x"}, "action_space": GOOD}, 'shape: "x" is no list'),
        ({"observation_space": {"kind": "box", "shape": [2], "low": 0}, "action_space": GOOD}, "low: 0 is no list"),
        (
            {"observation_space": {"kind": "box", "shape": [2], "low": [1, 2, 3]}, "action_space": GOOD},
            "observation_space: ",
        ),
        (
            {"observation_space": {"kind": "box", "shape": [1 << 20, 1 << 20]}, "action_space": GOOD},
            "observation_space: its shape has 1,099,511,627,776 numbers; there may be",
        ),
        (
            {"observation_space": {"kind": "dict", "parts": {"a": {"kind": "box"}}}, "action_space": GOOD},
            "observation_space.a: 'shape' is missing",
        ),
        (
            {"observation_space": {"kind": "dict", "parts": [1]}, "action_space": GOOD},
            "observation_space: ",
        ),
    ],
)
def test_what_is_no_space_is_told_in_one_line_with_its_place(tmp_path, told, message):
    with pytest.raises(SpaceFileError, match="spaces") as refused:
        read(written(tmp_path, told))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SpaceFileError, match="cannot be read"):
        read(tmp_path / "none.json")
