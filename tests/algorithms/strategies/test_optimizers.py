import numpy as np
import pytest

from shoal.algorithms.strategies.clipup import ClipUp
from shoal.algorithms.strategies.optimizers import OPTIMIZERS, Momentum, optimizer, prefixed, unprefixed


def test_momentum_is_a_heavy_ball():
    rng = np.random.default_rng(0)
    weights = np.ones(20, np.float32)
    mine = Momentum(20, learning_rate=0.1, momentum=0.8)
    point, velocity = np.ones(20), np.zeros(20)
    for _ in range(10):
        gradient = rng.standard_normal(20)
        mine.step(weights, gradient.astype(np.float32))
        velocity = 0.8 * velocity + gradient
        point = point - 0.1 * velocity
    np.testing.assert_allclose(weights, point, rtol=1e-4, atol=1e-6)


def test_clipup_is_algorithm_1_of_its_paper():
    rng = np.random.default_rng(1)
    mine = ClipUp(6, learning_rate=0.3, max_speed=0.7, momentum=0.9)
    weights = np.zeros(6, np.float32)
    point, velocity = np.zeros(6), np.zeros(6)
    clipped = 0
    for _ in range(20):
        gradient = rng.standard_normal(6) + 1.0
        mine.step(weights, gradient.astype(np.float32))
        velocity = 0.9 * velocity + 0.3 * -gradient / np.linalg.norm(gradient)
        if np.linalg.norm(velocity) > 0.7:
            velocity = 0.7 * velocity / np.linalg.norm(velocity)
            clipped += 1
        point = point + velocity
        np.testing.assert_allclose(weights, point, rtol=1e-5, atol=1e-6)
    assert 0 < clipped < 20


def test_without_a_gradient_clipup_only_slows_down():
    mine = ClipUp(2, learning_rate=1.0, momentum=0.5)
    weights = np.zeros(2, np.float32)
    mine.step(weights, np.array([0.0, -4.0], np.float32))
    mine.step(weights, np.zeros(2, np.float32))
    np.testing.assert_allclose(weights, [0.0, 1.5])
    assert mine.max_speed == 2.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_to_the_bit(name):
    rng = np.random.default_rng(2)
    gradients = rng.standard_normal((9, 8)).astype(np.float32)
    whole = optimizer(name, 8, learning_rate=0.1, momentum=0.9)
    weights = np.ones(8, np.float32)
    for gradient in gradients[:5]:
        whole.step(weights, gradient.copy())
    resumed = optimizer(name, 8, learning_rate=0.1, momentum=0.9)
    resumed.restore(unprefixed(prefixed(whole.state()) | {"centre": weights}))
    others = weights.copy()
    for gradient in gradients[5:]:
        whole.step(weights, gradient.copy())
        resumed.step(others, gradient.copy())
    np.testing.assert_array_equal(weights, others)
    with pytest.raises(ValueError, match="the saved state has nothing"):
        resumed.restore({})


def test_unknown_names_and_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="unknown optimizer 'adamw': choose from adam, momentum, clipup"):
        optimizer("adamw", 3, learning_rate=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"learning_rate 0.0 and momentum 0.9: the first must be above 0"):
        optimizer("adam", 3, learning_rate=0.0, momentum=0.9)
    with pytest.raises(ValueError, match=r"momentum 1.0: the first"):
        optimizer("clipup", 3, learning_rate=0.1, momentum=1.0)
