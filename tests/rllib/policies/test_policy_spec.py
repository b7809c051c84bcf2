"""The shape of a policy, with and without what is optional."""

import itertools
import json
import math

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.config import ConfigError
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, PolicySpec, check_fits, policy_spec

FLAT = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
BOTH = spaces.Dict({"camera": IMAGE, "state": FLAT, "gear": spaces.Discrete(2)})
CONTINUOUS = spaces.Box(-np.inf, np.inf, (2,))
MIXED = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))))


def spec_of(observations=FLAT, actions=MIXED, **network):
    return policy_spec("toy", observations, actions, NetworkSettings(**{"hidden_sizes": (8, 7), **network}))


@pytest.mark.parametrize("observations", [FLAT, IMAGE, BOTH], ids=["flat", "image", "both"])
@pytest.mark.parametrize("actions", [spaces.Discrete(2), CONTINUOUS, MIXED], ids=["discrete", "box", "mixed"])
@pytest.mark.parametrize("recurrent", ["none", "lstm", "gru"])
def test_a_spec_survives_strict_json_and_knows_the_arrays_of_its_nets(observations, actions, recurrent):
    for shared, log_std in itertools.product([None, True, False], ["state_independent", "predicted"]):
        network = {"recurrent": recurrent, "recurrent_size": 5, "shared_value_net": shared, "log_std": log_std}
        spec = spec_of(observations, actions, **network)
        assert PolicySpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False))) == spec
        state = ActorCritic(spec, 0).nets.state_dict()
        assert spec.array_shapes() == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_the_critic_shares_the_tower_where_there_are_images_unless_told_otherwise():
    assert not spec_of(FLAT).shares_tower
    assert spec_of(BOTH).shares_tower
    assert spec_of(FLAT, shared_value_net=True).shares_tower
    assert not spec_of(BOTH, shared_value_net=False).shares_tower


def test_a_recurrent_state_has_room_for_each_tower_and_for_the_cells_of_an_lstm():
    assert spec_of().state_size == 0
    assert spec_of(recurrent="gru", recurrent_size=5).state_size == 10
    assert spec_of(recurrent="lstm", recurrent_size=5).state_size == 20
    assert spec_of(recurrent="lstm", recurrent_size=5, shared_value_net=True).state_size == 10


def test_images_alone_pass_no_hidden_layers_and_with_other_columns_they_do():
    assert spec_of(IMAGE).hidden_sizes == ()
    assert spec_of(IMAGE).feature_width == 512
    assert spec_of(IMAGE, network="impala_cnn").feature_width == 256
    assert spec_of(BOTH).hidden_sizes == (8, 7)
    assert spec_of(BOTH).trunk_width == 512 + 3 + 2


def test_unsupported_spaces_are_refused_in_one_line_that_names_environment_and_space():
    for observations, actions, what in ((spaces.Text(5), MIXED, "observations"), (FLAT, spaces.Text(5), "actions")):
        with pytest.raises(ConfigError, match=rf"env: 'toy' has {what} Text.*supported are Box") as caught:
            spec_of(observations, actions)
        assert "\n" not in str(caught.value)


def test_a_policy_fits_the_environment_that_it_learnt_in_and_no_other():
    spec = spec_of(BOTH, MIXED, recurrent="lstm")
    check_fits(spec, "toy", BOTH, MIXED)
    with pytest.raises(
        ConfigError, match=r"has observations observation \(3,\).*the checkpoint's policy is for .*camera"
    ):
        check_fits(spec, "toy", FLAT, MIXED)
    with pytest.raises(
        ConfigError, match=r"choices of \(2,\); the checkpoint's policy is for .*choices of \(3,\) and real"
    ):
        check_fits(spec, "toy", BOTH, spaces.Discrete(2))


def test_a_policy_that_no_memory_holds_is_refused_before_its_weights_are_made():
    spec_of(BOTH, MIXED).check_size()
    many = spec_of(FLAT, spaces.Discrete(10**12))
    shapes = [math.prod(shape) for shape in many.array_shapes().values()]
    with pytest.raises(ConfigError, match=rf"^env: a policy for these spaces has {sum(shapes):,} weights") as caught:
        many.check_size()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^external_spaces: "):
        many.check_size("external_spaces")


@pytest.mark.parametrize(
    ("width", "network"),
    [("hidden_sizes", {"hidden_sizes": (10**9, 10**9)}), ("recurrent_size", {"recurrent_size": 10**9})],
)
def test_of_nets_that_no_memory_holds_the_width_is_named_and_not_the_spaces(width, network):
    with pytest.raises(ConfigError, match=rf"^{width}: a policy of such width has [0-9,]+ weights") as caught:
        spec_of(recurrent="lstm", **network).check_size()
    assert "\n" not in str(caught.value)
