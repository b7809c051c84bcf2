"""A server of policies where everything runs in one process."""

import numpy as np
import pytest

import shoal
from shoal.scripts.benchmarks.serving import small_net
from shoal.serving.errors import BadObservation
from shoal.serving.policy_server import PolicyServer


def test_the_inline_engine_serves_too():
    shoal.init(engine="inline")
    try:
        server = shoal.remote(PolicyServer).remote({"policy": small_net()}, is_alone=False)
        reply = shoal.get(server.compute_actions.remote(np.zeros((2, 4), np.float32)), timeout=30)
        assert (reply.actions.shape, reply.version) == ((2,), 0)
        with pytest.raises(BadObservation):
            shoal.get(server.compute_actions.remote(np.zeros((2, 3), np.float32)), timeout=30)
    finally:
        shoal.shutdown()
