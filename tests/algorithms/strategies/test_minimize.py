import math

import numpy as np
import pytest

from shoal.algorithms.strategies.minimize import METHODS, minimize
from shoal.algorithms.strategies.strategy import ObjectiveError

SCALES = 10.0 ** np.linspace(0, 3, 10)


def sphere(x):
    return float(((x - 1.0) ** 2).sum())


def ellipsoid(x):
    return float((SCALES * (x - 1.0) ** 2).sum())


def rosenbrock(x):
    return float(100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2)


@pytest.mark.parametrize(
    ("method", "objective", "reached", "settings"),
    [
        ("ars", sphere, 1e-6, {}),
        ("cmaes", sphere, 1e-6, {}),
        ("cmaes", ellipsoid, 1e-6, {}),
        ("cmaes", rosenbrock, 1e-6, {}),
        ("es", sphere, 1e-3, {"weight_decay": 0.0}),
        ("es", ellipsoid, 1.0, {"weight_decay": 0.0}),
        ("pgpe", sphere, 1e-1, {}),
        ("snes", sphere, 1e-6, {"spread": 0.5}),
        ("snes", ellipsoid, 1e-6, {"spread": 0.5}),
        ("snes", rosenbrock, 1e-1, {"spread": 0.5}),
    ],
)
def test_minima_of_closed_forms_are_found(method, objective, reached, settings):
    start = np.array([-1.2, 1.0]) if objective is rosenbrock else np.zeros(10)
    for seed in (0, 1):
        result = minimize(objective, start, method=method, max_evaluations=6000, seed=seed, target=reached, **settings)
        assert result.value <= reached, result
        assert result.value == objective(result.x)


def test_the_same_seed_gives_the_same_search_and_evaluations_are_counted():
    calls = []

    def counted(x):
        calls.append(x)
        return sphere(x)

    one = minimize(counted, np.zeros(3), max_evaluations=101, population=10, seed=4)
    assert one.evaluations == len(calls) <= 101
    assert (one.generations, one.reason) == (10, "evaluations")
    other = minimize(sphere, np.zeros(3), max_evaluations=101, population=10, seed=4)
    np.testing.assert_array_equal(one.x, other.x)
    assert minimize(sphere, np.zeros(3), max_evaluations=101, population=10, seed=5).value != one.value


def test_a_search_ends_when_its_spread_has_gone():
    result = minimize(sphere, np.zeros(3), method="snes", spread=0.5, max_evaluations=10**6)
    assert result.reason == "spread"
    assert result.evaluations < 10_000
    np.testing.assert_allclose(result.x, 1.0, atol=1e-6)


def test_a_search_ends_when_its_target_is_met():
    result = minimize(sphere, np.zeros(3), method="snes", spread=0.5, target=0.1)
    assert result.reason == "target"
    assert result.evaluations < 500


def test_one_evaluation_is_that_of_the_start():
    result = minimize(sphere, np.zeros(3), max_evaluations=1)
    assert (result.evaluations, result.generations, result.value) == (1, 0, 3.0)


@pytest.mark.parametrize("method", METHODS)
def test_an_objective_without_a_number_is_told_with_pair_and_seed(method):
    calls = []

    def failing(x):
        calls.append(1)
        if len(calls) == 24:
            raise ZeroDivisionError("by zero")
        return sphere(x)

    with pytest.raises(
        ObjectiveError, match=r"raised ZeroDivisionError for pair 1, sign -, of generation 1, seed 8: by"
    ):
        minimize(failing, np.zeros(3), method=method, population=20, seed=8)
    with pytest.raises(ObjectiveError, match=r"returned nan for pair 0, sign \+, of generation 0, seed 8, and 19 more"):
        minimize(lambda x: float("nan"), np.zeros(3), method=method, population=20, seed=8)


@pytest.mark.parametrize("method", METHODS)
def test_the_candidate_that_failed_is_at_hand(method):
    def peak(x):
        return float("nan") if x[0] > 0.1 else sphere(x)

    def wall(x):
        return sphere(x) if x[0] <= 0.1 else math.sqrt(-1.0)

    for f in (peak, wall):
        with pytest.raises(ObjectiveError) as caught:
            minimize(f, np.zeros(3), method=method, spread=0.2)
        assert caught.value.x[0] > 0.1
    with pytest.raises(ObjectiveError, match=r"the objective gave None for pair 0, sign \+.*: that is no number"):
        minimize(lambda x: None, np.zeros(3), method=method)
    with pytest.raises(ObjectiveError, match="raised ValueError for the centre after 0 generations, seed 0"):
        minimize(lambda x: math.sqrt(-1.0), np.zeros(3), method=method, max_evaluations=1)
    with pytest.raises(ObjectiveError, match="returned -inf for the centre after 0 generations, seed 0") as caught:
        minimize(lambda x: -math.inf, np.zeros(3), method=method, max_evaluations=1)
    assert caught.value.x.tolist() == [0.0] * 3
    with pytest.raises(ObjectiveError, match=r"the objective gave 1000.* for pair 0, sign \+.*: that is no number"):
        minimize(lambda x: 10**400, np.zeros(3), method=method)


def test_what_cannot_be_is_refused_in_a_line():
    for settings, complaint in (
        ({"method": "sa"}, "unknown method 'sa': choose from ars, cmaes, es, pgpe, snes"),
        ({"population": 8.0}, "population 8.0: every direction is tried with both signs"),
        ({"method": "cmaes", "seed": -1}, "seed -1: noise needs one from 0"),
        ({"population": 15}, "population 15: every direction is tried with both signs"),
        ({"top": 3}, "unknown setting 'top' of snes: choose from spread, learning_rate, spread_learning_rate"),
        ({"method": "es", "optimizer": "sgd"}, "unknown optimizer 'sgd'"),
    ):
        with pytest.raises(ValueError, match=complaint):
            minimize(sphere, np.zeros(3), **settings)
    with pytest.raises(ValueError, match=r"x0 of shape \(2, 2\)"):
        minimize(sphere, np.zeros((2, 2)))
