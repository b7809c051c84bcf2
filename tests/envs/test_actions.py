"""The layout of actions and masks; ``test_columns.py`` has actions of random nested spaces."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.actions import ActionLayout, mask_is_observed, without_mask
from shoal.envs.columns import column_specs

FLAT = spaces.Box(-1.0, 1.0, (3,), np.float32)


def test_the_layout_of_a_nested_action_tells_where_each_part_lies():
    layout = ActionLayout.of(
        spaces.Dict({"aim": FLAT, "fire": spaces.Discrete(3, start=1), "keys": spaces.MultiBinary(2)})
    )
    assert [(part.name, part.columns, part.choices) for part in layout.parts] == [
        ("aim", slice(0, 3), slice(0, 0)),
        ("fire", slice(3, 4), slice(0, 3)),
        ("keys", slice(4, 6), slice(3, 7)),
    ]
    assert (layout.width, layout.num_choices, layout.dtype) == (6, 7, np.float32)
    taken = layout.unflatten_all(np.array([[0.5, -0.5, 1.0, 2.0, 1.0, 0.0]], np.float32))[0]
    assert taken["fire"] == 2
    assert taken["keys"].tolist() == [1, 0]
    assert taken["keys"].dtype == np.int8


def test_a_discrete_action_is_an_integer_of_numpy_as_in_samples_and_a_box_an_array_of_its_own_dtype():
    taken = ActionLayout.of(spaces.Discrete(3)).unflatten_all(np.array([[2], [0]]))
    assert taken == [2, 0]
    assert {type(action) for action in taken} == {type(spaces.Discrete(3).sample())}
    (taken,) = ActionLayout.of(spaces.Box(-1, 1, (2,), np.float64)).unflatten_all(np.array([[0.5, 1]], np.float32))
    assert taken.dtype == np.float64


def test_masks_come_flat_or_nested_like_the_action():
    layout = ActionLayout.of(spaces.Tuple((spaces.Discrete(2), FLAT, spaces.MultiDiscrete([2, 3]))))
    expected = [True, False, True, True, False, False, True]
    for mask in (
        np.array(expected, np.int8),
        (np.array([1, 0]), None, (np.array([1, 1]), np.array([0, 0, 1]))),
        ([1, 0], None, ([1, 1], [0, 0, 1])),
    ):
        into = np.zeros(7, bool)
        layout.write_mask(mask, into)
        assert into.tolist() == expected


def test_a_mask_of_another_size_or_that_allows_nothing_is_refused():
    layout = ActionLayout.of(spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match="size 4; the actions have 5 choices"):
        layout.write_mask(np.ones(4), np.zeros(5, bool))
    with pytest.raises(ValueError, match=r"allows no choice: \[1, 0, 0, 0, 0\]"):
        layout.write_mask(np.array([1, 0, 0, 0, 0]), np.zeros(5, bool))


def test_a_mask_among_the_observations_is_told_from_an_ordinary_part_of_that_name():
    space = spaces.Dict({"observation": FLAT, "action_mask": spaces.MultiBinary(4)})
    assert mask_is_observed(space, spaces.Discrete(4))
    assert not mask_is_observed(space, spaces.Discrete(5))
    assert not mask_is_observed(space, FLAT)
    assert not mask_is_observed(FLAT, spaces.Discrete(4))
    assert list(column_specs(without_mask(space))) == ["observation"]
