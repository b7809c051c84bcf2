import pytest

from shoal.rllib.learning.schedules import (
    LEAST_LEARNING_RATE,
    MOST_LEARNING_RATE,
    adapted_to_divergence,
    linear,
    scheduled,
)


@pytest.mark.parametrize(("progress", "value"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0), (1.2, 1.0), (-0.1, 3.0)])
def test_linear_runs_from_start_to_end_and_stays_there(progress, value):
    assert linear(3.0, 1.0, progress) == pytest.approx(value)


def test_a_schedule_is_constant_or_falls_to_zero():
    assert scheduled(3.0, "constant", 0.7) == 3.0
    assert scheduled(3.0, "linear", 0.75) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("divergence", "expected"), [(0.021, 2e-3), (0.019, 3e-3), (0.006, 3e-3), (0.004, 4.5e-3), (0.0, 4.5e-3)]
)
def test_a_learning_rate_follows_the_divergence(divergence, expected):
    assert adapted_to_divergence(3e-3, divergence, 0.01) == pytest.approx(expected)


def test_a_learning_rate_that_follows_the_divergence_stays_within_its_bounds():
    assert adapted_to_divergence(LEAST_LEARNING_RATE, 1.0, 0.01) == LEAST_LEARNING_RATE
    assert adapted_to_divergence(MOST_LEARNING_RATE, 0.0, 0.01) == MOST_LEARNING_RATE
