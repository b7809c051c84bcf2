"""Which pairs make up a batch."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from shoal.rllib.evolution.pair_book import PairBook
from shoal.rllib.evolution.reports import RECORD, Report


def report(generation, block, size=2):
    records = np.zeros(size, RECORD)
    records["pair"] = np.arange(size) + size * block
    return Report(generation, np.array([block]), records, np.array([[generation, block]], np.float64))


@given(st.permutations(range(5)))
def test_a_batch_is_in_the_order_of_its_pairs_whatever_order_they_come_in(order):
    book = PairBook(10, "wait")
    book.begin(3)
    for number, block in enumerate(order):
        assert book.is_full == (number == 5)
        book.add(report(3, block))
    batch = book.take()
    assert batch.records["pair"].tolist() == list(range(10))
    assert [moments[1] for moments in batch.moments] == list(range(5))


def full(rule):
    """A book whose second batch is to be; of generation 0 two pairs were taken, and two came when that was full."""
    book = PairBook(2, rule)
    book.begin(0)
    book.add(report(0, 0))
    assert book.is_full
    book.add(report(0, 1))
    assert len(book.take().records) == 2
    book.begin(1)
    return book


def test_stragglers_that_are_discarded_are_counted():
    book = full("discard")
    assert not book.is_full
    assert (book.used_late, book.discarded) == (0, 2)
    book.add(report(0, 2))
    assert not book.is_full
    assert (book.used_late, book.discarded) == (0, 4)


def test_stragglers_are_used_in_the_next_generation_with_their_own_noise():
    book = full("next")
    assert book.is_full
    batch = book.take()
    assert batch.generations.tolist() == [0, 0]
    assert (book.used_late, book.discarded) == (2, 0)


def test_stragglers_that_come_while_the_next_generation_is_played_are_used_too():
    book = PairBook(4, "next")
    book.begin(1)
    book.add(report(1, 0))
    book.add(report(0, 7))
    batch = book.take()
    assert batch.generations.tolist() == [0, 0, 1, 1]
    assert batch.records["pair"].tolist() == [14, 15, 0, 1]
    assert book.used_late == 2


def test_stragglers_of_two_generations_before_are_never_used():
    book = PairBook(4, "next")
    book.begin(2)
    book.add(report(0, 0))
    assert not book.is_full
    assert (book.used_late, book.discarded) == (0, 2)


@pytest.mark.parametrize("rule", ["wait", "next", "discard"])
def test_a_report_without_pairs_changes_nothing(rule):
    book = PairBook(2, rule)
    book.begin(0)
    book.add(report(0, 0, size=0))
    assert not book.is_full
    assert book.discarded == 0
