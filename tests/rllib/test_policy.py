"""Acting in numpy: the same numbers as the network that learned, and the same bits in any batch."""

import numpy as np
import pytest
import torch

from shoal.rllib.distributions import Categorical, DiagonalGaussian
from shoal.rllib.modules import ActorCritic
from shoal.rllib.normalization import ObservationNormalizer, RunningMoments
from shoal.rllib.policy import Policy
from shoal.rllib.weights import PolicySpec, Weights

SPECS = [
    PolicySpec(4, Categorical(2), (64, 64)),
    PolicySpec(17, DiagonalGaussian((-1.0,) * 6, (1.0,) * 6), (64, 64)),
    PolicySpec(3, DiagonalGaussian((-2.0,), (2.0,)), (32,)),
    PolicySpec(8, Categorical(4), (100, 256, 7)),
]


def learned(spec, seed=0):
    """A network whose head is not nearly zero, as after some learning, and its numpy twin."""
    network = ActorCritic(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.nets.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    arrays = {name: tensor.detach().numpy() for name, tensor in network.nets.state_dict().items()}
    return network, Policy(Weights(0, spec, arrays))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("count", [1, 7, 8, 50])
def test_numpy_and_torch_agree_to_a_millionth(spec, count):
    network, policy = learned(spec)
    observations = np.random.default_rng(1).standard_normal((count, spec.observation_size)).astype(np.float32)
    parameters = policy.parameters(observations)
    noise = np.stack([spec.distribution.draw(np.random.default_rng(i), 1)[0] for i in range(count)])
    actions = spec.distribution.sample(parameters, noise)
    with torch.no_grad():
        log_probs, _, values = network.evaluate_actions(torch.from_numpy(observations), torch.from_numpy(actions))
    np.testing.assert_allclose(policy.values(observations), values.numpy(), rtol=1e-6, atol=1e-6)
    # A log-density is a sum over up to six dimensions of magnitude 1 to 10: float32 ends near 1e-6 of it.
    np.testing.assert_allclose(spec.distribution.log_prob(parameters, actions), log_probs.numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_a_row_has_the_same_bits_whatever_batch_it_is_in(spec):
    _, policy = learned(spec)
    rng = np.random.default_rng(2)
    observations = rng.standard_normal((100, spec.observation_size)).astype(np.float32)
    parameters, values = policy.parameters(observations), policy.values(observations)
    noise = np.stack([spec.distribution.draw(np.random.default_rng(i), 1)[0] for i in range(100)])
    actions = spec.distribution.sample(parameters, noise)
    log_probs = spec.distribution.log_prob(parameters, actions)
    for _ in range(50):
        rows = rng.permutation(100)[: rng.integers(1, 40)]
        there = policy.parameters(observations[rows])
        np.testing.assert_array_equal(there, parameters[rows])
        np.testing.assert_array_equal(policy.values(observations[rows]), values[rows])
        np.testing.assert_array_equal(spec.distribution.sample(there, noise[rows]), actions[rows])
        np.testing.assert_array_equal(spec.distribution.log_prob(there, actions[rows]), log_probs[rows])


def test_observations_pass_the_normaliser_before_both_nets():
    _, policy = learned(SPECS[0])
    moments = RunningMoments((4,))
    moments.update(np.random.default_rng(0).normal(3.0, 5.0, (100, 4)))
    normalizer = ObservationNormalizer.of(moments)
    network, _ = learned(SPECS[0])
    arrays = {name: tensor.detach().numpy() for name, tensor in network.nets.state_dict().items()}
    normalizing = Policy(Weights(0, SPECS[0], arrays, normalizer))
    observations = np.random.default_rng(1).normal(3.0, 5.0, (9, 4)).astype(np.float32)
    normalized = normalizer(observations)
    np.testing.assert_array_equal(normalizing.parameters(observations), policy.parameters(normalized))
    np.testing.assert_array_equal(normalizing.values(observations), policy.values(normalized))


def test_deterministic_actions_are_the_likeliest_and_need_no_stream():
    _, policy = learned(SPECS[0])
    observations = np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32)
    likeliest = policy.parameters(observations).argmax(axis=1)[:, None].tolist()
    assert policy.act(observations, deterministic=True).tolist() == likeliest
    with pytest.raises(ValueError, match="needs rng"):
        policy.act(observations, deterministic=False)


def test_sampled_actions_of_a_continuous_policy_stay_within_the_bounds():
    _, policy = learned(SPECS[1])
    observations = np.random.default_rng(4).standard_normal((30, 17)).astype(np.float32)
    actions = policy.act(observations, deterministic=False, rng=np.random.default_rng(5))
    assert actions.shape == (30, 6)
    assert np.abs(actions).max() == 1.0
