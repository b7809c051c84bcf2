"""What ``test_modules.py`` does not see of the beginning: it needs no torch, and no number of threads."""

import math
import subprocess
import sys

import numpy as np
from gymnasium import spaces

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.threads import limit_matrix_threads, matrix_threads

SPEC = policy_spec("toy", spaces.Box(-1.0, 1.0, (300,)), spaces.Discrete(7), NetworkSettings(hidden_sizes=(200, 100)))


def test_every_array_of_the_policy_is_there():
    arrays = initial_weights(SPEC, 0)
    assert {name: array.shape for name, array in arrays.items()} == SPEC.array_shapes()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_no_direction_is_likelier_than_another():
    spec = policy_spec("toy", spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), NetworkSettings(hidden_sizes=(4,)))
    drawn = np.array([initial_weights(spec, seed)["policy.hidden.0.weight"] for seed in range(400)])
    deviation = math.sqrt(2.0 / 4)  # of a number in a column of length sqrt 2 in 4 dimensions
    assert np.abs(drawn.mean(axis=0)).max() < 4 * deviation / math.sqrt(400)


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was():
    before = matrix_threads()
    try:
        limit_matrix_threads(1)
        alone = initial_weights(SPEC, 5)
        limit_matrix_threads(2)
        together = initial_weights(SPEC, 5)
        assert set(matrix_threads()) <= {2}
    finally:
        limit_matrix_threads(max(before, default=1))
    for name, array in alone.items():
        np.testing.assert_array_equal(array, together[name])


def test_numpy_is_all_that_it_takes():
    program = """
import sys
from gymnasium import spaces
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
initial_weights(policy_spec("toy", spaces.Box(0, 255, (64, 64, 3), "uint8"), spaces.Discrete(2), NetworkSettings()), 0)
assert "torch" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
