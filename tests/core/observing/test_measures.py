"""Measures of one process, and of many as one."""

from __future__ import annotations

import random

from shoal.core.observing.measures import COUNTER, GAUGE, HISTOGRAM, Measures, merge

HITS = (COUNTER, "hits", ("route",), ())
LOSS = (GAUGE, "loss", (), ())
SIZES = (HISTOGRAM, "sizes", (), (1.0, 10.0))


def process(*records):
    measures = Measures()
    for identity in (HITS, LOSS, SIZES):
        measures.declare(identity, identity[1])
    for identity, tags, value in records:
        measures.record(identity, tags, value)
    return measures.rows()


def points(rows, name):
    (row,) = [row for row in rows if row["name"] == name]
    return {tuple(tags): numbers for tags, numbers in row["points"]}


def test_counters_of_many_processes_add_up_by_tag():
    rows = merge([*process((HITS, ("a",), 1), (HITS, ("b",), 2)), *process((HITS, ("a",), 4))])
    assert points(rows, "hits") == {("a",): [5.0], ("b",): [2.0]}


def test_of_gauges_the_latest_setting_counts():
    first = process((LOSS, (), 1.0))
    second = process((LOSS, (), 2.0))
    assert points(merge([*second, *first]), "loss")[()][0] == 2.0
    assert points(merge([*first, *second]), "loss")[()][0] == 2.0


def test_a_histogram_counts_up_to_and_with_its_boundaries():
    rows = process(*((SIZES, (), value) for value in (0.5, 1.0, 1.5, 10.0, 11.0)))
    assert points(rows, "sizes") == {(): [2.0, 2.0, 1.0, 24.0]}
    assert points(merge([*rows, *rows]), "sizes") == {(): [4.0, 4.0, 2.0, 48.0]}


def test_merging_in_any_order_and_grouping_gives_the_same():
    chance = random.Random(1)
    parts = [process(*((HITS, (chance.choice("ab"),), chance.randrange(9)) for _ in range(5))) for _ in range(6)]
    whole = merge(row for part in parts for row in part)
    chance.shuffle(parts)
    grouped = merge([*merge([*parts[0], *parts[1]]), *merge(row for part in parts[2:] for row in part)])
    assert points(grouped, "hits") == points(whole, "hits")


def test_a_change_is_told_once_until_somebody_has_looked():
    measures, told = Measures(), []
    measures.declare(LOSS, "")
    measures.on_change = lambda: told.append(1)
    measures.record(LOSS, (), 1.0)
    measures.record(LOSS, (), 2.0)
    assert len(told) == 1
    measures.rows()
    measures.record(LOSS, (), 3.0)
    assert len(told) == 2


def test_a_fork_starts_from_nothing():
    measures = Measures()
    measures.declare(HITS, "served")
    measures.record(HITS, ("a",), 1)
    measures.forget()
    measures.record(HITS, ("b",), 1)
    assert points(measures.rows(), "hits") == {("b",): [1.0]}
