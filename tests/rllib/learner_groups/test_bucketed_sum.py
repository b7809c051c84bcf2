"""A sum in buckets: what is set going when, with sums that a stand-in for torch.distributed makes."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from shoal.rllib.learner_groups.bucketed_sum import BucketedSum, SumFailedError


class Started:
    """In the place of all_reduce: another process has the same numbers; they come when they are waited for."""

    def __init__(self, fails_at=None):
        self.sizes, self.fails_at = [], fails_at

    def __call__(self, tensor, *, async_op):
        assert async_op
        self.sizes.append(len(tensor))
        if self.fails_at == ("start", len(self.sizes)):
            raise RuntimeError("the connection is closed")
        return Work(tensor, fails=self.fails_at == ("wait", len(self.sizes)))


class Work:
    def __init__(self, tensor, *, fails):
        self.tensor, self.fails = tensor, fails

    def wait(self):
        if self.fails:
            raise RuntimeError("the other is dead")
        self.tensor.mul_(2.0)


def summed(gradient, indices, bucket_length, started):
    """The sum of a gradient that becomes final from these indices on; what was not yet is not a number until then."""
    from torch import distributed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "all_reduce", started)
        total, vector = BucketedSum(0.25, bucket_length), np.full_like(gradient, np.nan)
        end = len(gradient)
        for index in indices:
            vector[index:end] = gradient[index:end]
            total.final_from(vector, index)
            end = index
        vector[:end] = gradient[:end]
        return vector, total.finish(vector, np.array([3.0, 5.0], np.float32))


@given(
    length=st.integers(1, 40),
    bucket_length=st.integers(1, 50),
    indices=st.lists(st.integers(0, 40), max_size=6),
)
def test_all_is_summed_once_in_buckets_that_follow_from_the_length_alone(length, bucket_length, indices):
    gradient = np.arange(1.0, length + 1, dtype=np.float32)
    falling = sorted({index for index in indices if index < length}, reverse=True)
    started = Started()
    vector, others = summed(gradient, falling, bucket_length, started)
    np.testing.assert_array_equal(vector, gradient * 0.5)
    np.testing.assert_array_equal(others, [1.5, 2.5])
    front = min(length, bucket_length)  # short as these are
    whole, left = divmod(length - front, bucket_length)
    assert started.sizes == [bucket_length] * whole + [left] * (left > 0) + [front + 2]


def test_a_short_front_travels_with_the_metrics_however_large_a_bucket_is():
    started, length = Started(), 100_000
    vector, _ = summed(np.ones(length, np.float32), [20_000, 10], 60_000, started)
    assert started.sizes == [60_000, 40_000 - (1 << 14), (1 << 14) + 2]
    np.testing.assert_array_equal(vector, np.full(length, 0.5, np.float32))


def test_a_bucket_is_set_going_as_soon_as_it_is_there_and_not_before():
    from torch import distributed

    started = Started()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "all_reduce", started)
        total, vector = BucketedSum(1.0, 4), np.ones(10, np.float32)
        for index, sizes in ((7, []), (6, [4]), (5, [4]), (4, [4, 2]), (0, [4, 2])):
            total.final_from(vector, index)
            assert started.sizes == sizes


@pytest.mark.parametrize("fails_at", [("start", 1), ("wait", 2), ("start", 3)])
def test_a_sum_that_fails_is_told_when_all_is_to_be_there(fails_at):
    with pytest.raises(SumFailedError, match=r"the connection is closed|the other is dead"):
        summed(np.ones(10, np.float32), [5, 1], 4, Started(fails_at))
