import numpy as np
import torch

from shoal.rllib.learning.adam import Adam


def test_steps_and_moments_are_those_of_torch_also_when_the_learning_rate_changes():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(50).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(weights))
    optimizer = torch.optim.Adam([theirs], lr=0.01, eps=1e-5)
    mine = Adam(50, learning_rate=0.01, epsilon=1e-5)
    for step in range(30):
        mine.learning_rate = optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        gradient = (rng.standard_normal(50) * 10.0 ** rng.integers(-6, 2, 50)).astype(np.float32)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        mine.step(weights, gradient)
    np.testing.assert_allclose(weights, theirs.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mine.exp_avg, optimizer.state[theirs]["exp_avg"], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mine.exp_avg_sq, optimizer.state[theirs]["exp_avg_sq"], rtol=1e-5, atol=1e-15)
    assert mine.steps == optimizer.state[theirs]["step"].item() == 30
