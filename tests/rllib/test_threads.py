import subprocess
import sys


def test_numpy_is_told_how_many_threads_a_matrix_product_may_have_also_after_it_was_imported():
    program = """
import numpy as np
np.ones((300, 300)) @ np.ones((300, 300))
from shoal.rllib.threads import limit_matrix_threads, matrix_threads
before = matrix_threads()
limit_matrix_threads(1)
after = matrix_threads()
assert len(after) == len(before) and set(after) <= {1}, (before, after)
limit_matrix_threads(2)
assert set(matrix_threads()) <= {2}
print("known" if after else "unknown")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    if sys.platform == "linux":  # numpy comes from its wheels there
        assert ran.stdout == "known\n"
