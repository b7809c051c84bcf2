"""The shape of a tree."""

import pytest
from hypothesis import given, strategies as st

from shoal.rllib.evolution.tree import Branch, grow


def children_of(branch):
    return branch.branches or branch.workers


@given(st.integers(1, 600), st.integers(2, 20))
def test_every_worker_is_in_one_place_and_nobody_has_more_children_than_the_fan_out(num_workers, fan_out):
    top = grow(num_workers, fan_out)
    assert len(top) <= fan_out
    leaves, level = [], list(top)
    while level:
        branch = level.pop()
        assert 1 <= len(children_of(branch)) <= fan_out
        assert len(branch.branches) != 1
        if branch.branches:
            assert branch.workers == range(branch.branches[0].workers.start, branch.branches[-1].workers.stop)
            level += branch.branches
        else:
            leaves += branch.workers
    assert sorted(leaves) == list(range(num_workers))


def test_eight_workers_by_two_make_two_levels_of_aggregators():
    def pair(first):
        return Branch(range(first, first + 4), (Branch(range(first, first + 2)), Branch(range(first + 2, first + 4))))

    assert grow(8, 2) == (pair(0), pair(4))


def test_a_fan_out_of_one_is_refused():
    with pytest.raises(ValueError, match="a tree over 4 workers with a fan-out of 1: at least 1, and 2"):
        grow(4, 1)
