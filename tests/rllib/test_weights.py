import json
import math

import pytest

from shoal.rllib.distributions import Categorical, DiagonalGaussian
from shoal.rllib.modules import ActorCritic
from shoal.rllib.weights import PolicySpec


@pytest.mark.parametrize(
    "distribution",
    [Categorical(3, start=-1), DiagonalGaussian((-1.0, -2.5), (1.0, 2.5)), DiagonalGaussian((-math.inf,), (math.inf,))],
)
def test_a_spec_survives_strict_json(distribution):
    spec = PolicySpec(5, distribution, (64, 32))
    assert PolicySpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False))) == spec


@pytest.mark.parametrize("distribution", [Categorical(3), DiagonalGaussian((-1.0, -2.5), (1.0, 2.5))])
@pytest.mark.parametrize("hidden_sizes", [(16,), (64, 32, 8)])
def test_a_spec_knows_the_names_and_shapes_of_the_arrays_of_its_network(distribution, hidden_sizes):
    spec = PolicySpec(5, distribution, hidden_sizes)
    state = ActorCritic(spec, 0).nets.state_dict()
    assert spec.array_shapes() == {name: tuple(tensor.shape) for name, tensor in state.items()}
