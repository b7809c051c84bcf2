"""Policies, and servers of them on an event loop of the test's own, for the tests of `PolicyServer`."""

import asyncio
import threading

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.serving.models import FunctionModel
from shoal.serving.policy_server import PolicyServer
from shoal.serving.serving_settings import ServingSettings
from shoal.serving.spaces import space_form

#: No test waits longer than this for anything.
DEADLINE_S = 30.0
OBSERVATION, CHOICE = spaces.Box(-10, 10, (4,), np.float32), spaces.Discrete(3)


def zeros(columns):
    return np.zeros((len(columns["observation"]), 1), np.int64)


class Gated:
    """A slow model that acts when it is let, and remembers how many rows it saw."""

    def __init__(self):
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.seen = []

    def __call__(self, columns):
        self.seen.append(len(columns["observation"]))
        self.begun.set()
        assert self.gate.wait(DEADLINE_S)
        return zeros(columns)


@pytest.fixture
def weights():
    """Makes the weights of a version."""

    def make(version=0, *, actions=CHOICE, observations=OBSERVATION, **network):
        spec = policy_spec("a test's", observations, actions, NetworkSettings(hidden_sizes=(8,), **network))
        arrays = initial_weights(spec, version)
        # Heads begin nearly without weights; a test wants actions that differ.
        return Weights(
            version, spec, {name: array * (50 if "policy.head" in name else 1) for name, array in arrays.items()}
        )

    return make


@pytest.fixture
def rows():
    """Draws so many observations."""
    return lambda count, seed=0: np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


@pytest.fixture
def function():
    """Makes a policy of a function, by default of one that always acts 0."""

    def make(act=zeros, *, is_quick=True):
        return FunctionModel(act, space_form(OBSERVATION), space_form(CHOICE), is_quick=is_quick)

    return make


@pytest.fixture
def gated():
    """See ``Gated``."""
    return Gated()


@pytest.fixture
def run_served():
    """Runs a test with a server of these policies: "walker" first."""

    def run_with(test, *policies, **settings):
        async def run():
            names = dict(zip(("walker", "runner"), policies, strict=False))
            server = PolicyServer(names, settings=ServingSettings(**settings), is_alone=False)
            await test(server)
            assert await server.drain(1.0)

        asyncio.run(asyncio.wait_for(run(), DEADLINE_S))

    return run_with
