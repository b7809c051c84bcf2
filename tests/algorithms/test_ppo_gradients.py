"""PPO's loss with its derivatives: against ``ppo_loss``, which autograd differentiates, ties and kinks included."""

import itertools

import numpy as np
import pytest
import torch

from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients

SWITCHES = [
    {**dual_clip, **value_clip, "entropy_coef": entropy_coef}
    for dual_clip, value_clip, entropy_coef in itertools.product(
        ({}, {"dual_clip": 1.5}, {"dual_clip": 1.0}), ({}, {"value_clip_range": 0.25}), (0.0, 0.02)
    )
]


class Given:
    """A policy whose evaluation is given."""

    def __init__(self, *evaluated):
        self.evaluated = [torch.tensor(rows, requires_grad=True) for rows in evaluated]

    def evaluate_actions(self, minibatch):
        return self.evaluated


def some_rows(seed, count=200):
    """log_probs, entropies, values and a minibatch."""
    rng = np.random.default_rng(seed)
    evaluated = [rng.normal(0.0, scale, count).astype(np.float32) for scale in (0.5, 1.0, 1.0)]
    names = ("log_probs", "advantages", "returns", "values")
    return evaluated, {name: rng.standard_normal(count).astype(np.float32) * 0.5 for name in names}


def rows_with_ties():
    """Ratios and values within, on and beyond their clips, with every sign of what they are multiplied by."""
    log_ratios = np.float32([-0.7, 0.0, 0.3, 0.9])  # of these only exp(0) has the same bits in torch and numpy
    advantages = np.float32([-2.0, 0.0, 2.0])
    values = np.float32([-0.5, -0.25, 0.0, 0.25, 0.5])  # before: 0
    returns = np.float32([-0.25, 0.0, 0.25, 1.0])
    table = np.array(list(itertools.product(log_ratios, advantages, values, returns)), np.float32).T
    log_ratio, advantage, value, target = np.ascontiguousarray(table)
    zeros = np.zeros_like(value)
    minibatch = {"log_probs": zeros, "advantages": advantage, "returns": target, "values": zeros}
    return [log_ratio, zeros + 0.7, value], minibatch


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("clip_range", [0.25, 0.0])  # with 0 a ratio of 1 is on both bounds
@pytest.mark.parametrize("rows", [some_rows(0), some_rows(2, count=1), rows_with_ties()], ids=["many", "one", "ties"])
def test_loss_metrics_and_derivatives_are_those_of_the_loss_in_torch(rows, clip_range, switches):
    evaluated, minibatch = rows
    settings = {"clip_range": clip_range, "value_coef": 0.7, **switches}
    policy = Given(*evaluated)
    loss, metrics = ppo_loss(policy, {name: torch.from_numpy(column) for name, column in minibatch.items()}, settings)
    loss.backward()
    mine = ppo_gradients(*evaluated, minibatch, settings)
    assert mine.loss == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert mine.metrics == pytest.approx({name: value.item() for name, value in metrics.items()}, rel=1e-5, abs=1e-6)
    by_log_probs, by_entropies, by_values = (leaf.grad.numpy() for leaf in policy.evaluated)
    np.testing.assert_allclose(mine.by_log_probs, by_log_probs, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.full_like(by_entropies, mine.by_entropies), by_entropies, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mine.by_values, by_values, rtol=1e-5, atol=1e-9)
    assert all(type(value) is float for value in mine.metrics.values())
