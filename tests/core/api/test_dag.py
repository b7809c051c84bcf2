"""Classic DAGs: bound now, executed later, each call once and after what it depends on."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

import shoal
from shoal.dag import ClassNode, DAGInputData, FunctionNode, InputNode, MultiOutputNode

DEADLINE_S = 30


@shoal.remote
def add(*terms):
    return sum(terms)


@shoal.remote
def collect(values):
    inner = values.values() if isinstance(values, dict) else values
    return type(values).__name__, sorted(shoal.get(list(inner), timeout=DEADLINE_S))


@shoal.remote(num_cpus=0)
class Counter:
    def __init__(self, start=0):
        self.value = start

    def increase(self, by=1):
        self.value += by
        return self.value

    def get(self):
        return self.value

    @shoal.method(num_returns=2)
    def both(self):
        return self.value, -self.value


def got(result):
    return shoal.get(result, timeout=DEADLINE_S)


def test_functions_are_called_when_the_dag_is_executed():
    inner = add.bind(1, 2)
    dag = add.bind(inner, add.bind(inner, 10))
    assert isinstance(dag, FunctionNode)
    assert got(dag.execute()) == 3 + 13
    assert got(dag.execute()) == 16


def test_each_call_is_made_once_however_many_use_it():
    counter = Counter.remote()
    step = counter.increase.bind()
    assert got(add.bind(step, step, add.bind(step)).execute()) == 3
    assert got(counter.get.remote()) == 1


def test_options_are_those_of_the_call():
    dag = MultiOutputNode([add.options(name="sum", num_cpus=1).bind(1), Counter.options(num_cpus=0).bind(5).get.bind()])
    assert got(dag.execute()) == [1, 5]


def test_an_input_is_what_execute_is_given():
    with InputNode() as given:
        dag = add.bind(given, 1)
    assert got(dag.execute(2)) == 3
    assert got(dag.execute(shoal.put(4))) == 5


def test_parts_of_the_input_by_position_name_item_and_attribute():
    with InputNode() as given:
        dag = add.bind(given[0], given.x, given["y"])
    assert got(dag.execute(1, x=20, y=300)) == 321

    with InputNode() as given:
        items, attributes = add.bind(given["a"], given["b"]), add.bind(given.a, given.b)
    assert got(items.execute({"a": 1, "b": 2})) == 3
    assert got(attributes.execute(SimpleNamespace(a=3, b=4))) == 7
    with InputNode() as given:
        assert got(add.bind(given[0], given[1]).execute([5, 6])) == 11


def test_several_values_whole_arrive_as_one_object():
    @shoal.remote
    def look(data):
        assert isinstance(data, DAGInputData)
        return data[0], data["x"]

    with InputNode() as given:
        assert got(look.bind(given).execute(1, x=2)) == (1, 2)


def test_a_bound_class_is_an_actor_of_its_own_in_every_execution():
    counter = Counter.bind(10)
    assert isinstance(counter, ClassNode)
    dag = counter.increase.bind(1)
    assert [got(dag.execute()), got(dag.execute())] == [11, 11]
    assert got(counter.execute().get.remote()) == 10


def test_calls_of_a_bound_class_run_in_the_order_in_which_they_were_bound():
    counter = Counter.bind(add.bind(5, 5))
    counter.increase.bind(1)
    counter.increase.bind(by=add.bind(100, 100))
    assert got(counter.get.bind().execute()) == 211


def test_methods_of_live_handles_can_be_bound():
    counter = Counter.remote(1)
    with InputNode() as given:
        dag = add.bind(counter.increase.bind(given), 1000)
    assert got(dag.execute(2)) == 1003
    assert got(dag.execute(3)) == 1006
    first, second = counter.both.bind()
    assert got(MultiOutputNode([second, first]).execute()) == [-6, 6]


@pytest.mark.parametrize("wrap", [lambda a, b: [a, b], lambda a, b: (a, b), lambda a, b: {"k": a, "l": b}])
def test_nodes_inside_containers_arrive_as_refs(wrap):
    name = type(wrap(1, 2)).__name__
    assert got(collect.bind(wrap(add.bind(1), add.bind(2))).execute()) == (name, [1, 2])


def test_deep_containers_and_several_results():
    @shoal.remote
    def deep(value):
        return got(value["a"][0][1])

    with InputNode() as given:
        dag = MultiOutputNode([deep.bind({"a": [(0, add.bind(given, 1))]}), add.bind(given), given])
    first, second, third = dag.execute(4)
    assert (got(first), got(second), third) == (5, 4, 4)


def test_long_chains_need_no_recursion():
    node = add.bind(0)
    for _ in range(1500):
        node = add.bind(node, 1)
    assert got(node.execute()) == 1500


def test_mistakes_are_told():
    with pytest.raises(NotImplementedError, match="compiled graphs are not in shoal"):
        add.bind(1).experimental_compile()
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(add.bind(1))
    with pytest.raises(AttributeError, match="no method 'missing'"):
        _ = Counter.bind().missing
    with pytest.raises(AttributeError, match=r"use \.get\.bind"):
        Counter.bind().get.remote()
    with pytest.raises(ValueError, match="should not take any args"):
        InputNode(1)
    with pytest.raises(ValueError, match="takes a list"):
        MultiOutputNode(add.bind(1))
    with pytest.raises(AssertionError, match="context manager"):
        add.bind(InputNode()).execute(1)
    with InputNode() as one, InputNode() as other:
        with pytest.raises(ValueError, match="only have one unique InputNode"):
            add.bind(one, other).execute(1)
        with pytest.raises(ValueError, match="constructor cannot have it"):
            Counter.bind(one)
        with pytest.raises(AssertionError, match="int index or str"):
            _ = one[1.5]


def test_nodes_show_what_they_are():
    with InputNode() as given:
        nodes = [add.bind(1), Counter.bind(), Counter.bind().get.bind(), given, given.x, given[0]]
    assert [repr(node) for node in nodes] == [
        "FunctionNode(add)",
        "ClassNode(Counter)",
        "ClassMethodNode(get)",
        "InputNode()",
        "InputAttributeNode('x')",
        "InputAttributeNode(0)",
    ]
    assert nodes[0].get_args() == (1,)
    assert Counter.bind(start=2).get_kwargs() == {"start": 2}
