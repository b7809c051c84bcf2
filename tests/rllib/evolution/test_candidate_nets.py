"""Candidates' nets side by side: what ``Policy`` makes of the same weights, and bits that are a lane's own."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.config import ConfigError
from shoal.rllib.evolution.candidate_nets import CandidateNets, check_dense
from shoal.rllib.evolution.parameter_vector import ParameterVector
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights


def spec_of(hidden_sizes=(64, 64), activation="tanh", inputs=17, outputs=6):
    network = NetworkSettings(hidden_sizes=hidden_sizes, activation=activation, shared_value_net=True)
    return policy_spec("toy", spaces.Box(-9.0, 9.0, (inputs,)), spaces.Box(-1.0, 1.0, (outputs,)), network)


def nets_with(spec, flats, rows):
    nets = CandidateNets(spec, len(flats))
    for lane, flat in enumerate(flats):
        nets.load(lane, flat)
    nets.inputs[...] = rows
    return nets().copy()


def drawn(spec, lanes, seed=0):
    rng = np.random.default_rng(seed)
    flats = 0.1 * rng.standard_normal((lanes, ParameterVector(spec).size)).astype(np.float32)
    return flats, rng.standard_normal((lanes, spec.trunk_width)).astype(np.float32)


@pytest.mark.parametrize(("hidden_sizes", "activation"), [((), "tanh"), ((8,), "relu"), ((64, 64), "tanh")])
def test_each_lane_acts_as_a_policy_with_its_weights_does(hidden_sizes, activation):
    spec = spec_of(hidden_sizes, activation)
    flats, rows = drawn(spec, 3)
    outputs = nets_with(spec, flats, rows)
    for lane, flat in enumerate(flats):
        policy = Policy(Weights(0, spec, ParameterVector(spec).arrays(flat)))
        means = policy.step({"observation": rows[lane : lane + 1]}, policy.initial_states(1)).parameters[0, :6]
        np.testing.assert_allclose(outputs[lane], means, atol=1e-6)


@pytest.mark.parametrize(("hidden_sizes", "inputs", "outputs"), [((), 4, 2), ((64, 64), 17, 6), ((32,), 376, 17)])
def test_a_lane_has_the_same_bits_wherever_it_is_and_whoever_is_beside_it(hidden_sizes, inputs, outputs):
    spec = spec_of(hidden_sizes, inputs=inputs, outputs=outputs)
    flats, rows = drawn(spec, 16)
    together = nets_with(spec, flats, rows)
    turned = nets_with(spec, np.roll(flats, 5, axis=0), np.roll(rows, 5, axis=0))
    np.testing.assert_array_equal(np.roll(turned, -5, axis=0), together)
    for lane in (0, 7, 15):
        np.testing.assert_array_equal(nets_with(spec, flats[lane, None], rows[lane, None])[0], together[lane])


def test_vectors_and_arrays_turn_into_each_other():
    spec = spec_of()
    vector, arrays = ParameterVector(spec), initial_weights(spec, 3)
    flat = vector.flat(arrays)
    assert flat.shape == (17 * 64 + 64 + 64 * 64 + 64 + 64 * 6 + 6,)
    again = vector.arrays(flat)
    assert again.keys() == spec.array_shapes().keys()
    for name, array in again.items():
        expected = arrays[name] if name.startswith("policy.") else np.zeros_like(arrays[name])
        np.testing.assert_array_equal(array, expected, err_msg=name)


def test_nets_that_see_or_remember_are_refused_in_one_line():
    image = policy_spec("toy", spaces.Box(0, 255, (84, 84, 3), np.uint8), spaces.Discrete(2), NetworkSettings())
    with pytest.raises(ConfigError, match=r"^env: observation is an image; evolution strategies take nets of dense"):
        check_dense(image)
    recurrent = policy_spec("toy", spaces.Box(-1, 1, (3,)), spaces.Discrete(2), NetworkSettings(recurrent="gru"))
    with pytest.raises(ConfigError, match=r"^recurrent: evolution strategies take nets of dense layers"):
        check_dense(recurrent)
