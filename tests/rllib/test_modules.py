import math

import numpy as np
import pytest
import torch

from shoal.rllib.distributions import Categorical, DiagonalGaussian
from shoal.rllib.modules import ActorCritic
from shoal.rllib.weights import PolicySpec

DISCRETE = PolicySpec(4, Categorical(3), (64, 32))
CONTINUOUS = PolicySpec(3, DiagonalGaussian((-1.0, -1.0), (1.0, 1.0)), (16,))


def test_initial_weights_are_orthogonal_with_the_gains_of_the_paper_and_biases_zero():
    state = ActorCritic(DISCRETE, 0).nets.state_dict()
    for net, head_gain in (("policy", 0.01), ("value", 1.0)):
        for layer, gain in ((0, math.sqrt(2.0)), (2, math.sqrt(2.0)), (4, head_gain)):
            weight = state[f"{net}.{layer}.weight"]
            rows, columns = weight.shape
            product = weight @ weight.T if rows <= columns else weight.T @ weight
            torch.testing.assert_close(product, gain**2 * torch.eye(min(rows, columns)), atol=1e-5, rtol=0)
            assert not state[f"{net}.{layer}.bias"].any()


def test_initial_weights_are_a_function_of_the_seed_and_leave_torchs_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (ActorCritic(CONTINUOUS, seed).nets.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["policy.0.weight"], other["policy.0.weight"])


def test_continuous_policies_start_with_deviation_one():
    assert ActorCritic(CONTINUOUS, 0).nets.state_dict()["log_stds"].tolist() == [0.0, 0.0]


def test_categorical_log_probs_and_entropy_are_the_literal_ones():
    network = ActorCritic(DISCRETE, 3)
    observations = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    actions = torch.tensor([0, 1, 2, 0, 1, 2])
    log_probs, entropies, values = network.evaluate_actions(observations, actions)
    probabilities = np.exp(network.nets["policy"](observations).detach().double().numpy())
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert values.shape == (6,)
    for row in range(6):
        assert log_probs[row].item() == pytest.approx(math.log(probabilities[row, actions[row]]), abs=1e-6)
        assert entropies[row].item() == pytest.approx(-sum(p * math.log(p) for p in probabilities[row]), abs=1e-6)


def test_gaussian_entropy_is_the_sum_over_dimensions_of_half_log_two_pi_e_variance():
    network = ActorCritic(CONTINUOUS, 3)
    with torch.no_grad():
        network.nets.get_parameter("log_stds").copy_(torch.tensor([0.5, -1.0]))
    entropies = network.evaluate_actions(torch.zeros(2, 3), torch.zeros(2, 2))[1]
    expected = sum(0.5 * math.log(2 * math.pi * math.e * math.exp(log_std) ** 2) for log_std in (0.5, -1.0))
    assert entropies.tolist() == pytest.approx([expected, expected], abs=1e-6)


def test_initial_weights_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    spec = PolicySpec(4, Categorical(2), (64, 64))
    try:
        torch.set_num_threads(1)
        alone = ActorCritic(spec, seed=5).nets.state_dict()
        torch.set_num_threads(2)
        together = ActorCritic(spec, seed=5).nets.state_dict()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for name, weights in alone.items():
        assert torch.equal(weights, together[name]), name
