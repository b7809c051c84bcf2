"""Selectors, conditions and rules over the labels of nodes."""

import pytest
from hypothesis import given, strategies as st

from shoal.core.scheduling.labels import NODE_ID, Condition, NodeRule, check_labels, parse_fallbacks, parse_selector

LABELS = {"zone": "a", "ray.io/node-id": "abcd"}


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({"zone": "a"}, True),
        ({"zone": "b"}, False),
        ({"zone": "in(a,b)"}, True),
        ({"zone": "in(b, c)"}, False),
        ({"zone": "!b"}, True),
        ({"zone": "!a"}, False),
        ({"zone": "!in(b, c)"}, True),
        ({"zone": ""}, False),
        ({"none": "x"}, False),
        ({"none": "!x"}, True),
        ({"none": ""}, False),
        ({NODE_ID: "abcd"}, True),
        ({"zone": "a", "none": "x"}, False),
        ({}, True),
    ],
)
def test_a_selector_means_what_it_means_in_ray(selector, holds):
    """Each of these was tried on Ray 2.60: those that do not hold stay pending there."""
    assert all(condition.holds(LABELS) for condition in parse_selector(selector)) == holds


@pytest.mark.parametrize("value", ["-a", "a-", "in()", "in(a,", "!!a", "in(a,b!c)", "a b", "x" * 64])
def test_a_selector_in_the_wrong_syntax_is_refused_with_the_key(value):
    with pytest.raises(ValueError, match=r"label_selector\['zone'\]"):
        parse_selector({"zone": value})


@pytest.mark.parametrize("key", ["", "-a", "a/b/c/", "a b", "x" * 64, "y" * 254 + "/a"])
def test_a_key_in_the_wrong_syntax_is_refused(key):
    with pytest.raises(ValueError, match="key of a label"):
        parse_selector({key: "a"})


@pytest.mark.parametrize("selector", [["zone"], {"zone": 1}, {1: "a"}, {"zone": None}])
def test_a_selector_of_the_wrong_type_is_refused(selector):
    with pytest.raises(TypeError):
        parse_selector(selector)


def test_labels_of_a_node_are_checked():
    assert check_labels({"zone": "a", "example.com/kind": ""}) == {"zone": "a", "example.com/kind": ""}
    with pytest.raises(TypeError, match="dict"):
        check_labels(["zone"])
    with pytest.raises(TypeError, match="value of label 'zone'"):
        check_labels({"zone": 1})
    with pytest.raises(ValueError, match="value of label 'zone'"):
        check_labels({"zone": "-"})
    with pytest.raises(ValueError, match="set by the runtime"):
        check_labels({NODE_ID: "a"})


def test_fallbacks_are_a_list_of_selectors():
    assert parse_fallbacks([{"label_selector": {"zone": "a"}}]) == [(Condition("zone", ("a",)),)]
    with pytest.raises(TypeError, match="list"):
        parse_fallbacks({"label_selector": {}})
    with pytest.raises(ValueError, match="not empty"):
        parse_fallbacks([{}])
    with pytest.raises(ValueError, match="'memory'"):
        parse_fallbacks([{"memory": 1}])


def test_a_mismatch_says_what_is_wanted_and_what_there_is():
    rule = NodeRule(((Condition("zone", ("b",)), Condition("gpu", None)), (Condition("zone", None, negated=True),)))
    assert rule.mismatch({"zone": "a"}) == (
        "it needs a node with label zone in (b), gpu or no zone; the only node has zone=a"
    )
    assert rule.mismatch({}) == ""


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")), st.sampled_from("abc"))
def test_a_negated_condition_is_the_opposite(labels, key):
    for values in (None, ("x",), ("x", "y")):
        assert Condition(key, values).holds(labels) != Condition(key, values, negated=True).holds(labels)
