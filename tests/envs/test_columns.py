"""Observations to columns and actions from rows, checked against gymnasium's own samples of random nested spaces."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings, strategies

from shoal.envs.actions import ActionLayout
from shoal.envs.arrays import Arrays
from shoal.envs.columns import ColumnSpec, ColumnWriter, UnsupportedSpace, column_specs

FLAT = spaces.Box(-1.0, 1.0, (3,), np.float32)

LEAVES = [
    FLAT,
    spaces.Box(np.array([[0.0, -np.inf]]), np.array([[2.0, np.inf]]), dtype=np.float64),
    spaces.Discrete(4, start=3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [-1, 2]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
]


def nested(leaves):
    return strategies.recursive(
        strategies.sampled_from(leaves),
        lambda part: (
            strategies.lists(part, min_size=1, max_size=3).map(spaces.Tuple)
            | strategies.dictionaries(strategies.sampled_from("abc"), part, min_size=1).map(spaces.Dict)
        ),
        max_leaves=6,
    )


def leaf_values(space, value):
    """Leaves in the space's own order, by plain recursion over gymnasium's containers."""
    if isinstance(space, spaces.Dict):
        return [leaf for name, part in space.spaces.items() for leaf in leaf_values(part, value[name])]
    if isinstance(space, spaces.Tuple):
        return [leaf for part, inner in zip(space.spaces, value, strict=True) for leaf in leaf_values(part, inner)]
    return [value]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(nested([*LEAVES, spaces.Box(0, 255, (4, 4, 1), np.uint8)]), strategies.integers(0, 2**20))
def test_a_stored_observation_is_found_leaf_by_leaf_in_its_own_row_only(space, seed):
    space.seed(seed)
    writer = ColumnWriter(space)
    columns = writer.allocate(3)
    rows = writer.rows(columns)
    value = space.sample()
    writer.write(rows[1], value)
    for column, leaf in zip(columns.values(), leaf_values(space, value), strict=True):
        np.testing.assert_array_equal(column[1], leaf)
        assert not column[[0, 2]].any()


@settings(max_examples=60, deadline=None)
@given(nested(LEAVES), strategies.integers(0, 2**20))
def test_an_action_of_the_space_flattened_by_hand_comes_back_as_it_was(space, seed):
    space.seed(seed)
    layout = ActionLayout.of(space)
    value = space.sample()
    row = np.concatenate([np.ravel(leaf) for leaf in leaf_values(space, value)])
    taken = layout.unflatten_all(layout.read(row[None].astype(layout.dtype), 1))[0]
    expected = value
    if layout.dtype == np.float32:  # what a float64 box holds passes through float32 on its way
        assert space.contains(taken)
        layout64 = np.concatenate([np.ravel(leaf) for leaf in leaf_values(space, taken)])
        np.testing.assert_allclose(layout64, row, rtol=1e-6)
    else:
        assert same(taken, expected)
    assert layout.width == row.size


def test_columns_are_named_by_their_paths_in_the_spaces_own_order():
    space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (8, 8), np.uint8), "state": spaces.Tuple((FLAT, spaces.Discrete(2)))}
    )
    assert list(column_specs(space)) == ["camera", "state/0", "state/1"]
    assert list(column_specs(FLAT)) == ["observation"]


def test_a_spec_tells_bounds_choices_and_starts():
    box, _, discrete, _, many, bits, _ = (column_specs(space)["observation"] for space in LEAVES)
    assert box == ColumnSpec((3,), np.dtype(np.float32), "box", low=(-1.0,), high=(1.0,))
    assert (discrete.nvec, discrete.start, discrete.bounds()) == ((4,), (3,), (3, 6))
    assert (many.nvec, many.start) == ((2, 3, 4, 5), (1, 0, -1, 2))
    assert many.bounds()[1].tolist() == [[2, 2], [2, 6]]
    assert bits.bounds() == (0, 1)
    assert {box: "hashable"}[box]


def test_an_observation_that_lacks_a_part_or_has_another_shape_is_refused_by_name():
    writer = ColumnWriter(spaces.Dict({"a": FLAT, "b": FLAT}))
    row = writer.rows(writer.allocate(1))[0]
    with pytest.raises(ValueError, match="no part 'b', which the space names"):
        writer.write(row, {"a": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'b' of shape \(1,\); the space says \(3,\)"):
        writer.write(row, {"a": np.zeros(3), "b": np.zeros(1)})


@pytest.mark.parametrize(
    "space",
    [spaces.Text(3), spaces.Sequence(FLAT), spaces.Graph(FLAT, None), spaces.OneOf((FLAT, FLAT))],
    ids=lambda space: type(space).__name__,
)
def test_other_spaces_are_refused_in_one_line_that_says_what_is_supported(space):
    for whole, where in ((space, ""), (spaces.Dict({"words": spaces.Tuple((space,))}), "part 'words/0' of ")):
        with pytest.raises(UnsupportedSpace, match=f"spaces of kind {type(space).__name__} are not supp") as caught:
            column_specs(whole)
        assert where in str(caught.value)
        assert "supported are Box, Discrete" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(UnsupportedSpace):
            ActionLayout.of(whole)


def test_spaces_that_look_possible_and_are_not_are_refused():
    with pytest.raises(UnsupportedSpace, match="actions of int64 in a Box are not supported"):
        ActionLayout.of(spaces.Box(0, 5, (2,), np.int64))
    with pytest.raises(UnsupportedSpace, match="have the same name, 'a/b'"):
        column_specs(spaces.Dict({"a": spaces.Dict({"b": FLAT}), "a/b": FLAT}))
    with pytest.raises(UnsupportedSpace, match="is empty"):
        column_specs(spaces.Dict({}))
    with pytest.raises(UnsupportedSpace, match=r"observations of shape \(0, 2\) have no numbers, in Box"):
        column_specs(spaces.Box(0, 1, (0, 2)))
    with pytest.raises(UnsupportedSpace, match=r"a NoneType is no space of gymnasium .part 'a' of"):
        column_specs(with_a_stranger())


def with_a_stranger():
    space = spaces.Dict({"a": FLAT})
    space.spaces["a"] = None
    return space


def test_numbers_that_are_not_whole_or_do_not_fit_are_not_bent_into_a_space_of_whole_ones():
    for space, value, told in (
        (spaces.Box(0, 255, (3,), np.uint8), np.array([0.5, 1, 2]), r"observation of float64, \[0.5, 1. , 2. \]"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([300]), r"observation of int64, \[300\]; the space says uint8"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([np.nan]), r"observation of float64, \[nan\]"),
        (spaces.Discrete(3), 1.5, "observation of float64, 1.5; the space says int64"),
        (spaces.Dict({"a": spaces.Discrete(3)}), {"a": 1.5}, "observation 'a' of float64, 1.5"),
    ):
        writer = ColumnWriter(space)
        with pytest.raises(ValueError, match=told):
            writer.write(writer.rows(writer.allocate(1))[0], value)
    writer = ColumnWriter(spaces.Box(0, 255, (2,), np.uint8))
    columns = writer.allocate(1)
    writer.write(writer.rows(columns)[0], np.array([255.0, 0.0]))
    assert columns["observation"].tolist() == [[255, 0]]


def test_parts_may_have_any_name():
    space = spaces.Dict({"": FLAT, "..": FLAT, "a b": FLAT})
    assert sorted(Arrays.allocate(space, spaces.Discrete(2), 2).observations) == ["", "..", "a b"]
