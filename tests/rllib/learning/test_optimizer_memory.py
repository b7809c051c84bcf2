"""What Adam remembers, there and back."""

import numpy as np
import pytest

from shoal.rllib.learning.optimizer_memory import memory_by_name, memory_from, memory_shapes

SHAPES = {"a.weight": (2, 3), "a.bias": (2,)}


def test_what_is_remembered_comes_back_bit_for_bit():
    rng = np.random.default_rng(0)
    moments = {name: rng.standard_normal(8).astype(np.float32) for name in ("exp_avg", "exp_avg_sq")}
    named = memory_by_name(7, moments, SHAPES)
    assert {name: array.shape for name, array in named.items()} == memory_shapes(SHAPES)
    steps, back = memory_from(named, SHAPES)
    assert steps == 7
    for name, flat in moments.items():
        np.testing.assert_array_equal(back[name], flat)


def test_before_the_first_step_there_is_nothing():
    zeros = {name: np.zeros(8, np.float32) for name in ("exp_avg", "exp_avg_sq")}
    assert memory_by_name(0, zeros, SHAPES) == {}
    steps, moments = memory_from({}, SHAPES)
    assert steps == 0
    assert all((flat == 0.0).all() and flat.shape == (8,) for flat in moments.values())


def test_what_is_of_another_policy_or_of_different_steps_is_refused():
    zeros = {name: np.zeros(8, np.float32) for name in ("exp_avg", "exp_avg_sq")}
    named = memory_by_name(3, zeros, SHAPES)
    with pytest.raises(RuntimeError, match="the policy has arrays"):
        memory_from({name: array for name, array in named.items() if "bias" not in name}, SHAPES)
    named["a.bias/step"] = np.array(4, np.float32)
    with pytest.raises(RuntimeError, match=r"different numbers of steps: \[3, 4\]"):
        memory_from(named, SHAPES)
