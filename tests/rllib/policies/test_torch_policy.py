"""Acting in torch, all rows at once: the numbers of ``Policy`` but for last digits. On a CPU here."""

import gymnasium
import numpy as np
import pytest

from shoal.envs.columns import ONLY
from shoal.rllib.config import ConfigError
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.normalization import ObservationMoments
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.torch_policy import TorchPolicies
from shoal.rllib.policies.weights import Weights

NUMBERS, REALS = gymnasium.spaces.Box(-9, 9, (3,)), gymnasium.spaces.Box(-1, 1, (2,))
IMAGES = gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8)
CHOICES = gymnasium.spaces.Discrete(4)


def weights(observations=NUMBERS, actions=CHOICES, version=0, **network):
    settings = NetworkSettings(**{"hidden_sizes": (16,), **network})
    spec = policy_spec("toy", observations, actions, settings)
    return Weights(version, spec, initial_weights(spec, seed=version))


@pytest.mark.parametrize(
    "held",
    [weights(), weights(shared_value_net=True), weights(actions=REALS), weights(IMAGES)],
    ids=["choices", "shared", "reals", "images"],
)
def test_it_says_what_the_policy_in_numpy_says(one_torch_thread, held):
    stream = np.random.default_rng(0)
    rows = {ONLY: stream.integers(0, 255, (11, *held.spec.observations.columns[0].shape)).astype(np.uint8)}
    if not held.spec.observations.images:
        rows[ONLY] = rows[ONLY].astype(np.float32) / 100
    rows[ONLY].flags.writeable = False  # as what comes through the store
    ours, theirs = Policy(held), TorchPolicies("cpu")(held)
    acted = theirs.step(rows, np.zeros((11, 0), np.float32))
    expected = ours.step(rows, np.zeros((11, 0), np.float32))
    np.testing.assert_allclose(acted.parameters, expected.parameters, atol=2e-6)
    np.testing.assert_allclose(acted.values, ours.values(rows), atol=2e-6)
    np.testing.assert_allclose(theirs.values(rows), ours.values(rows), atol=2e-6)
    assert acted.parameters.dtype == acted.values.dtype == np.float32


def test_observations_are_normalised_as_the_weights_say():
    plain = weights()
    moments = ObservationMoments(plain.spec.observations.normalizable_shapes)
    stream = np.random.default_rng(0)
    moments.update({ONLY: stream.normal(3.0, 5.0, (20, 4, 3)).astype(np.float32)})
    held = Weights(0, plain.spec, plain.arrays, moments.normalizers())
    rows = {ONLY: stream.normal(3.0, 5.0, (6, 3)).astype(np.float32)}
    np.testing.assert_allclose(TorchPolicies("cpu")(held).values(rows), Policy(held).values(rows), atol=2e-6)


def test_policies_of_one_shape_have_weights_of_their_own():
    made, rows = TorchPolicies("cpu"), {ONLY: np.ones((2, 3), np.float32)}
    held = [weights(version=version) for version in range(2)]
    both = [made(each) for each in held]
    for mine, each in zip(both, held, strict=True):
        assert mine.version == each.version
        np.testing.assert_allclose(mine.values(rows), Policy(each).values(rows), atol=2e-6)


def test_what_cannot_be_done_there_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^inference_device must be cpu for recurrent policies, not cpu$"):
        TorchPolicies("cpu")(weights(recurrent="gru"))
    with pytest.raises(ConfigError, match=r"^inference_device: device 'nowhere' cannot be used"):
        TorchPolicies("nowhere")
