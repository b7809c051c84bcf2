"""Weights as they travel."""

import pickle

import numpy as np
import pytest
from gymnasium import spaces

from shoal.core.serialization import flat
from shoal.core.serialization.values import deserialize, serialize
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.normalization import ObservationMoments
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights, by_name, flattened

SPEC = policy_spec(
    "toy", spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-1.0, 1.0, (2,)), NetworkSettings(hidden_sizes=(4, 5))
)


def some(arrays=None):
    moments = ObservationMoments({"observation": (3,)})
    moments.update({"observation": np.arange(12.0, dtype=np.float32).reshape(4, 3)})
    return Weights(7, SPEC, arrays or initial_weights(SPEC, 1), moments.normalizers())


def through_the_store(weights):
    sent = serialize(weights)
    return deserialize(sent.kind, sent.data, sent.buffers)


@pytest.mark.parametrize("sent", [through_the_store, lambda weights: pickle.loads(pickle.dumps(weights))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])  # only the first are those of a net
def test_weights_come_as_they_were_sent(sent, dtype):
    weights = some({name: array.astype(dtype) for name, array in initial_weights(SPEC, 1).items()})
    come = sent(weights)
    assert (come.version, come.spec) == (7, SPEC)
    assert list(come.arrays) == list(weights.arrays)
    for name, array in weights.arrays.items():
        assert come.arrays[name].dtype == dtype
        np.testing.assert_array_equal(come.arrays[name], array, err_msg=name)
    observations = np.ones((2, 3), np.float32)
    mine, its = (each.normalizers["observation"](observations) for each in (weights, come))
    np.testing.assert_array_equal(mine, its)


def test_all_arrays_of_a_net_travel_as_one(monkeypatch):
    monkeypatch.setattr(flat, "SMALL_BYTES", 0)  # this net is so small that it would travel in the stream
    plain = Weights(7, SPEC, initial_weights(SPEC, 1))
    assert len(serialize(plain).buffers) == 1


def test_whoever_gets_a_spec_again_gets_the_same_one():
    first, second = (pickle.loads(pickle.dumps(some())) for _ in range(2))
    assert first.spec is second.spec


def test_a_vector_by_name_and_back():
    shapes = SPEC.array_shapes()
    flat = np.arange(sum(int(np.prod(shape)) for shape in shapes.values()), dtype=np.float32)
    arrays = by_name(flat, shapes)
    assert {name: array.shape for name, array in arrays.items()} == shapes
    np.testing.assert_array_equal(flattened(arrays, shapes), flat)
    with pytest.raises(RuntimeError, match="the policy has arrays"):
        flattened({**arrays, "more": flat}, shapes)
