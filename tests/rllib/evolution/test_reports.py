"""Reports as they travel."""

import numpy as np
import pytest

from shoal.rllib.evolution.reports import RECORD, Report, joined


def report(*pairs, block=0, width=3, **more):
    records = np.zeros(len(pairs), RECORD)
    records["pair"] = pairs
    records["fitness"] = np.arange(2 * len(pairs)).reshape(-1, 2)
    records["score"], records["length"] = records["fitness"] + 0.5, 7
    return Report(4, np.array([block], np.int32), records, np.full((1, width), float(block)), **more)


def assert_same(mine, its):
    assert (mine.generation, mine.replaced, mine.last_death) == (its.generation, its.replaced, its.last_death)
    for name in ("blocks", "records", "moments"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))


@pytest.mark.parametrize("width", [0, 3])
def test_a_report_is_the_same_after_the_journey(width):
    sent = report(8, 9, block=2, width=width, replaced=2, last_death="signal 9, naïve")
    assert_same(Report.from_bytes(sent.to_bytes()), sent)


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_a_pair_takes_at_most_64_bytes_besides_the_moments(count):
    sent = report(*range(count), width=5)
    assert len(sent.to_bytes()) - sent.moments.nbytes <= 64 * count


def test_joined_reports_keep_blocks_beside_their_moments():
    both = joined([report(8, 9, block=4), report(2, 3, block=1, replaced=1, last_death="signal 9")])
    assert both.blocks.tolist() == [4, 1]
    assert both.moments[:, 0].tolist() == [4.0, 1.0]
    assert both.records["pair"].tolist() == [8, 9, 2, 3]
    assert (both.replaced, both.last_death) == (1, "signal 9")


def test_episodes_of_the_centre_are_told_apart_from_pairs():
    both = joined([report(0, 1, block=0), report(-1, block=-1)])
    assert (both.pairs().records["pair"].tolist(), both.pairs().blocks.tolist()) == ([0, 1], [0])
    assert (both.centre().records["pair"].tolist(), both.centre().blocks.tolist()) == ([-1], [-1])
