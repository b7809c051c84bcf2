import numpy as np
import pytest
from gymnasium import spaces as gym_spaces

from shoal.rllib.config import ConfigError
from shoal.rllib.distributions import Categorical, DiagonalGaussian
from shoal.rllib.spaces import policy_spec
from shoal.rllib.weights import PolicySpec

FLAT = gym_spaces.Box(-1.0, 1.0, (3,), np.float32)
TWO = gym_spaces.Discrete(2)


def test_flat_boxes_and_discrete_actions_make_a_categorical_policy():
    assert policy_spec("toy", FLAT, gym_spaces.Discrete(4, start=1), (8,)) == PolicySpec(3, Categorical(4, 1), (8,))


def test_box_actions_make_a_gaussian_policy_with_their_bounds():
    actions = gym_spaces.Box(np.array([-1.0, -np.inf]), np.array([0.5, np.inf]), dtype=np.float64)
    spec = policy_spec("toy", FLAT, actions, ())
    assert spec.distribution == DiagonalGaussian((-1.0, -np.inf), (0.5, np.inf))


@pytest.mark.parametrize(
    "space",
    [
        gym_spaces.Discrete(16),
        gym_spaces.Box(0, 255, (84, 84, 3), np.uint8),
        gym_spaces.Dict({"a": FLAT}),
        gym_spaces.Tuple((FLAT, FLAT)),
    ],
)
def test_other_observations_are_refused_in_a_line_that_names_what_is_supported(space):
    with pytest.raises(ConfigError, match=r"'toy' has observations .*supported are flat Box") as caught:
        policy_spec("toy", space, TWO, ())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [gym_spaces.MultiDiscrete([2, 3]), gym_spaces.Box(0, 5, (2,), np.int64), gym_spaces.Box(-1.0, 1.0, (2, 2))],
)
def test_other_actions_are_refused_in_a_line_that_names_what_is_supported(space):
    with pytest.raises(ConfigError, match=r"'toy' has actions .*supported are Discrete, and Box"):
        policy_spec("toy", FLAT, space, ())
