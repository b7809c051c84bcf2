"""The policy gradient's loss with its derivatives: against ``policy_gradient_loss``, which autograd differentiates."""

import numpy as np
import pytest
import torch

from shoal.algorithms.appo import policy_gradient_loss
from shoal.algorithms.appo_gradients import policy_gradients
from shoal.algorithms.ppo import ppo_loss


class Given:
    """A policy whose evaluation is given."""

    def __init__(self, *evaluated):
        self.evaluated = [torch.tensor(rows, requires_grad=True) for rows in evaluated]

    def evaluate_actions(self, minibatch):
        return self.evaluated


def some_rows(seed, count):
    """log_probs, entropies, values and a minibatch."""
    rng = np.random.default_rng(seed)
    evaluated = [rng.normal(0.0, scale, count).astype(np.float32) for scale in (0.5, 1.0, 1.0)]
    names = ("log_probs", "advantages", "returns")
    return evaluated, {name: rng.standard_normal(count).astype(np.float32) * 0.5 for name in names}


def differentiated(loss, evaluated, minibatch, settings):
    """The loss of torch, its metrics, and the derivatives by what was evaluated."""
    policy = Given(*evaluated)
    found, metrics = loss(policy, {name: torch.from_numpy(column) for name, column in minibatch.items()}, settings)
    found.backward()
    return found.item(), {name: value.item() for name, value in metrics.items()}, [x.grad for x in policy.evaluated]


@pytest.mark.parametrize("entropy_coef", [0.0, 0.02])
@pytest.mark.parametrize("count", [1, 200])
def test_loss_metrics_and_derivatives_are_those_of_the_loss_in_torch(count, entropy_coef):
    evaluated, minibatch = some_rows(count, count)
    settings = {"value_coef": 0.7, "entropy_coef": entropy_coef}
    loss, metrics, (by_log_probs, by_entropies, by_values) = differentiated(
        policy_gradient_loss, evaluated, minibatch, settings
    )
    mine = policy_gradients(*evaluated, minibatch, settings)
    assert mine.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert mine.metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(mine.by_log_probs, by_log_probs, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.full(count, mine.by_entropies), by_entropies, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mine.by_values, by_values, rtol=1e-5, atol=1e-9)
    assert mine.by_log_probs.dtype == mine.by_values.dtype == np.float32
    assert all(type(value) is float for value in mine.metrics.values())


def test_the_loss_is_the_literal_sum_of_its_three_terms():
    (log_probs, entropies, values), minibatch = some_rows(3, 50)
    expected = 0.0
    for row in range(50):
        expected -= log_probs[row] * minibatch["advantages"][row]
        expected += 0.7 * (values[row] - minibatch["returns"][row]) ** 2
        expected -= 0.02 * entropies[row]
    settings = {"value_coef": 0.7, "entropy_coef": 0.02}
    loss, metrics, _ = differentiated(policy_gradient_loss, (log_probs, entropies, values), minibatch, settings)
    assert loss == pytest.approx(expected / 50, rel=1e-5)
    log_ratios = log_probs - minibatch["log_probs"]
    assert metrics["approx_kl"] == pytest.approx(np.mean(np.exp(log_ratios) - 1 - log_ratios), rel=1e-4)
    assert metrics["approx_kl_k1"] == pytest.approx(-np.mean(log_ratios), rel=1e-4)


def test_around_the_policy_before_the_passes_the_clipped_surrogate_has_the_same_gradient():
    (log_probs, entropies, values), minibatch = some_rows(5, 100)
    minibatch["log_probs"] = log_probs.copy()
    settings = {"value_coef": 0.5, "entropy_coef": 0.01, "clip_range": 0.2}
    evaluated = (log_probs, entropies, values)
    *_, plain = differentiated(policy_gradient_loss, evaluated, minibatch, settings)
    *_, clipped = differentiated(ppo_loss, evaluated, minibatch, settings)
    for mine, expected in zip(plain, clipped, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)
