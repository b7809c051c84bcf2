import json
import math

import pytest

from shoal.rllib.distributions import Categorical, DiagonalGaussian
from shoal.rllib.weights import PolicySpec


@pytest.mark.parametrize(
    "distribution",
    [Categorical(3, start=-1), DiagonalGaussian((-1.0, -2.5), (1.0, 2.5)), DiagonalGaussian((-math.inf,), (math.inf,))],
)
def test_a_spec_survives_strict_json(distribution):
    spec = PolicySpec(5, distribution, (64, 32))
    assert PolicySpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False))) == spec
