"""What the tests of several learners as one have in common: a minibatch, a comparison, a learner that is killed."""

import os
import signal

import numpy as np
import pytest

from shoal.rllib.learning.numpy_learner import NumpyLearner


@pytest.fixture
def columns():
    """Makes a minibatch of three numbers in, three out, of a seed."""

    def make(seed, rows=41):
        rng = np.random.default_rng(seed)
        given = {name: rng.standard_normal(rows).astype(np.float32) for name in ("advantages", "returns")}
        given["log_probs"] = (rng.standard_normal(rows) - 4.0).astype(np.float32)
        given["observations/observation"] = rng.standard_normal((rows, 3)).astype(np.float32)
        return {**given, "actions": rng.standard_normal((rows, 3)).astype(np.float32)}

    return make


@pytest.fixture
def same():
    """Compares arrays by name, by default to the last bit."""

    def compare(mine, its, atol=0.0):
        assert mine.keys() == its.keys()
        for name, array in mine.items():
            np.testing.assert_allclose(array, its[name], rtol=0.0, atol=atol, err_msg=name)

    return compare


@pytest.fixture
def mortal():
    """Makes a class of learners of which one, at its third step, is killed where it is to do this, which it marks."""

    def make(moment, marker):
        class Mortal(NumpyLearner):
            steps = 0

            def gradients(self, minibatch, settings, **told):
                self.steps += 1
                self.strike("gradients")
                return super().gradients(minibatch, settings, **told)

            def apply(self, gradient):
                self.strike("apply")
                return super().apply(gradient)

            def means(self, steps):
                self.strike("means")
                return super().means(steps)

            def strike(self, now):
                if now == moment and self.steps == 3:
                    try:
                        marker.touch(exist_ok=False)
                    except FileExistsError:
                        return
                    os.kill(os.getpid(), signal.SIGKILL)

        return Mortal

    return make
