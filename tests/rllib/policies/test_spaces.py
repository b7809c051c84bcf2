"""What becomes of observations and actions: kinds of columns, one-hot, images, bounds, offsets."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.actions import ActionLayout
from shoal.envs.columns import ColumnWriter, column_specs
from shoal.rllib.config import ConfigError
from shoal.rllib.policies.distributions import Categorical, DiagonalGaussian, Product, draw
from shoal.rllib.policies.spaces import ActionSpec, ObservationSpec

NESTED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (40, 36, 3), np.uint8),
        "state": spaces.Dict(
            {"position": spaces.Box(-1.0, 1.0, (2, 2), np.float64), "gear": spaces.Discrete(3, start=-1)}
        ),
        "pair": spaces.Tuple((spaces.MultiDiscrete([2, 3], start=[5, 0]), spaces.MultiBinary(2))),
    }
)


def observations_of(space, network="auto"):
    return ObservationSpec.of(column_specs(space), network)


def actions_of(space, predicts_log_std=False, is_squashed=False):
    return ActionSpec.of(ActionLayout.of(space), predicts_log_std=predicts_log_std, is_squashed=is_squashed)


def kinds(spec):
    return {column.name: column.kind for column in spec.columns}


def test_a_nested_observation_is_numbers_choices_and_images_by_name():
    spec = observations_of(NESTED)
    assert kinds(spec) == {
        "camera": "image",
        "pair/0": "choices",
        "pair/1": "numbers",
        "state/gear": "choices",
        "state/position": "numbers",
    }
    assert spec.flat_width == 4 + 3 + 5 + 2
    assert spec.normalizable_shapes == {"state/position": (2, 2)}


def test_the_flat_input_has_numbers_as_they_are_and_choices_one_hot_from_their_start():
    spec = observations_of(NESTED)
    writer = ColumnWriter(NESTED)
    columns = writer.allocate(1)
    value = {
        "camera": np.zeros((40, 36, 3), np.uint8),
        "state": {"position": np.array([[1, 2], [3, 4]]) / 10, "gear": -1},
        "pair": (np.array([6, 2]), np.array([0, 1])),
    }
    writer.write(writer.rows(columns)[0], value)
    flat = spec.flat(columns)
    assert flat.dtype == np.float32
    expected = {
        "pair/0": [0, 1, 0, 0, 1],
        "pair/1": [0, 1],
        "state/gear": [1, 0, 0],
        "state/position": [0.1, 0.2, 0.3, 0.4],
    }
    order = [column.name for column in spec.flat_columns]
    np.testing.assert_allclose(flat[0], np.concatenate([expected[name] for name in order]), rtol=1e-6)


def test_room_for_observations_keeps_bytes_and_whole_numbers_and_has_real_ones_in_float32():
    empty = observations_of(NESTED).empty(5, 2)
    assert {name: (array.shape, array.dtype) for name, array in empty.items()} == {
        "camera": ((5, 2, 40, 36, 3), np.uint8),
        "pair/0": ((5, 2, 2), np.int64),
        "pair/1": ((5, 2, 2), np.float32),
        "state/gear": ((5, 2), np.int64),
        "state/position": ((5, 2, 2, 2), np.float32),
    }


@pytest.mark.parametrize(
    ("space", "network", "kind"),
    [
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), "auto", "image"),
        (spaces.Box(0, 255, (84, 84), np.uint8), "auto", "image"),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), "mlp", "numbers"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "auto", "numbers"),  # too small for Nature CNN
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "impala_cnn", "image"),
        (spaces.Box(0.0, 1.0, (64, 64, 1), np.float32), "auto", "numbers"),
        (spaces.Box(0.0, 1.0, (64, 64, 1), np.float32), "nature_cnn", "image"),
        (spaces.Box(0, 255, (128,), np.uint8), "auto", "numbers"),
    ],
)
def test_what_is_an_image_is_a_matter_of_shape_dtype_and_network(space, network, kind):
    spec = observations_of(space, network)
    assert kinds(spec) == {"observation": kind}
    is_bytes = space.dtype == np.uint8
    assert spec.columns[0].divisor == (255.0 if is_bytes else 1.0)
    assert bool(spec.normalizable_shapes) == (kind == "numbers" and not is_bytes)


@pytest.mark.parametrize(
    ("shape", "expected"), [((84, 96, 3), (3, 84, 96)), ((4, 84, 96), (4, 84, 96)), ((84, 96), (1, 84, 96))]
)
def test_the_channels_of_an_image_are_where_its_shape_is_smallest(shape, expected):
    assert observations_of(spaces.Box(0, 255, shape, np.uint8)).images[0].image_shape == expected


@pytest.mark.parametrize("network", ["nature_cnn", "impala_cnn"])
def test_a_convolutional_net_without_images_is_refused_in_one_line(network):
    with pytest.raises(ConfigError, match=rf"network: {network} needs images.*there are observation \(3,\)") as caught:
        observations_of(spaces.Box(-1.0, 1.0, (3,)), network)
    assert "\n" not in str(caught.value)


def test_nature_cnn_says_how_large_an_image_must_be():
    with pytest.raises(ConfigError, match=r"36 pixels or more"):
        observations_of(spaces.Box(0, 255, (20, 84, 3), np.uint8), "nature_cnn")


ACTIONS = {
    "discrete": spaces.Discrete(4, start=3),
    "multi_discrete": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([[-1.0], [-np.inf]]), np.array([[0.5], [np.inf]]), dtype=np.float64),
    "mixed": spaces.Dict(
        {"a": spaces.Box(-2.0, 2.0, (2,)), "b": spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(0.0, 1.0, (1,))))}
    ),
}
DISTRIBUTIONS = {
    "discrete": Categorical((4,)),
    "multi_discrete": Categorical((2, 3, 4, 2)),
    "multi_binary": Categorical((2, 2, 2)),
    "box": DiagonalGaussian(2),
    "mixed": Product(Categorical((3,)), DiagonalGaussian(3), (False, False, True, False)),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_every_action_space_has_its_distribution_and_masks_have_its_layout(kind):
    spec = actions_of(ACTIONS[kind])
    assert spec.distribution == DISTRIBUTIONS[kind]
    layout = ActionLayout.of(ACTIONS[kind])
    assert (spec.distribution.action_size, spec.distribution.num_choices) == (layout.width, layout.num_choices)


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("squash", [False, True])
def test_what_is_sampled_is_an_action_of_the_space_once_it_is_made_the_environments(kind, squash):
    if squash and kind == "box":
        with pytest.raises(ConfigError, match="squash: tanh needs finite bounds"):
            actions_of(ACTIONS[kind], is_squashed=True)
        return
    spec, layout = actions_of(ACTIONS[kind], is_squashed=squash), ActionLayout.of(ACTIONS[kind])
    rng = np.random.default_rng(0)
    parameters = rng.normal(0.0, 3.0, (100, spec.distribution.num_parameters)).astype(np.float32)
    actions = spec.distribution.sample(parameters, draw(spec.distribution, rng, 100))
    before = actions.copy()
    sent = layout.read(spec.for_environment(actions), 100)
    assert all(ACTIONS[kind].contains(action) for action in layout.unflatten_all(sent))
    np.testing.assert_array_equal(actions, before)


def test_the_environment_gets_clipped_actions_or_squashed_ones():
    space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))
    actions = np.array([[3.0, 300.0], [-3.0, 0.5]], np.float32)
    assert actions_of(space).for_environment(actions).tolist() == [[1.0, 4.0], [-1.0, 0.5]]
    squashed = actions_of(space, is_squashed=True).for_environment(actions)
    np.testing.assert_allclose(squashed, [[np.tanh(3), 4.0], [-np.tanh(3), 2.0 + 2.0 * np.tanh(0.5)]], rtol=1e-6)


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_action_spec_survives_strict_json(kind):
    spec = actions_of(ACTIONS[kind], predicts_log_std=True)
    assert ActionSpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False))) == spec
