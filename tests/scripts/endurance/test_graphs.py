"""Random graphs are the same for the same seed, and every wrong value is found."""

import numpy as np
import pytest

from shoal.scripts.endurance import graphs
from shoal.scripts.endurance.graphs import Node

NODES = graphs.random_graph(7, size=60)


def right_values() -> list[object]:
    return [graphs.value_of(node.kind, number) for node, number in zip(NODES, graphs.results(NODES), strict=True)]


def test_a_seed_makes_one_graph_whose_nodes_stand_behind_their_parents():
    assert graphs.random_graph(7, size=60) == NODES
    assert graphs.random_graph(8, size=60) != NODES
    assert all(parent < position for position, node in enumerate(NODES) for parent in node.parents)
    assert {node.kind for node in NODES} == {"number", "array", "nested"}


def test_the_order_of_the_parents_counts():
    first = [Node("number", 2, (), 0.0), Node("number", 3, (), 0.0)]
    assert graphs.results([*first, Node("number", 5, (0, 1), 0.0)]) == [2, 3, (5 * 31 + 2) * 31 + 3]
    assert graphs.results([*first, Node("number", 5, (1, 0), 0.0)])[2] == (5 * 31 + 3) * 31 + 2


def test_a_sum_in_steps_is_the_same_sum():
    total = 5
    for value in (2, 3):
        total = graphs.combine(total, [value])
    assert total == graphs.combine(5, [2, 3])


def test_right_values_have_no_differences():
    assert graphs.differences(NODES, right_values()) == []


@pytest.mark.parametrize("spoil", [lambda n: n + 1, lambda _: None, lambda n: np.full(3, n), lambda _: 0])
def test_a_wrong_number_is_found(spoil):
    values = right_values()
    place = next(i for i, node in enumerate(NODES) if node.kind == "number")
    values[place] = spoil(values[place])
    (complaint,) = graphs.differences(NODES, values)
    assert complaint.startswith(f"node {place} (number) gave ")


def test_an_array_with_one_wrong_element_is_found():
    values = right_values()
    place = next(i for i, node in enumerate(NODES) if node.kind == "array")
    values[place][-1] += 1
    (complaint,) = graphs.differences(NODES, values)
    assert complaint.startswith(f"node {place} (array) gave an array (32768,) of ")
