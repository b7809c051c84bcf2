"""Resources: exact sums, the checks on what users write, messages that name what is short."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given, strategies as st

from shoal.core.resources import SCALE, ResourceSet

amounts = st.dictionaries(st.sampled_from(["CPU", "GPU", "memory", "custom"]), st.integers(0, 10**9))


def test_amounts_are_exact_in_ten_thousandths():
    demand = ResourceSet.of(num_cpus=0.1, num_gpus=0.5, memory=2**40, resources={"custom": 0.0001})
    assert demand.parts() == {"CPU": 1000, "GPU": 5000, "memory": 2**40 * SCALE, "custom": 1}
    assert demand.as_floats() == {"CPU": 0.1, "GPU": 0.5, "memory": 2.0**40, "custom": 0.0001}
    assert ResourceSet.of(num_cpus=0.1 + 0.2) == ResourceSet.of(num_cpus=0.3)


def test_ten_tenths_are_one():
    left = ResourceSet.of(num_cpus=1)
    for _ in range(10):
        left -= ResourceSet.of(num_cpus=0.1)
    assert not left


@given(amounts, amounts)
def test_what_is_taken_and_given_back_adds_up(first, second):
    total = ResourceSet(first) + ResourceSet(second)
    assert total - ResourceSet(first) == ResourceSet(second)
    assert ResourceSet(first).fits(total)
    assert hash(total) == hash(ResourceSet(second) + ResourceSet(first))


@given(amounts, amounts)
def test_fits_is_the_comparison_of_every_amount(demand, available):
    expected = all(available.get(name, 0) >= amount for name, amount in demand.items())
    assert ResourceSet(demand).fits(ResourceSet(available)) == expected


def test_zeros_are_not_kept():
    assert ResourceSet.of(num_cpus=0, resources={"custom": 0.0}) == ResourceSet()
    assert not ResourceSet({"CPU": 0})
    assert list(ResourceSet.of(num_cpus=1, num_gpus=0)) == ["CPU"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_cpus": -1}, ValueError, r"num_cpus=-1: an amount is finite and not negative"),
        ({"num_cpus": math.nan}, ValueError, r"num_cpus=nan: an amount is finite"),
        ({"memory": math.inf}, ValueError, r"memory=inf: an amount is finite"),
        ({"num_cpus": 0.00001}, ValueError, r"num_cpus=1e-05: amounts go in steps of 0.0001"),
        ({"num_cpus": 1.00005}, ValueError, r"steps of 0.0001"),
        ({"num_cpus": "2"}, TypeError, r"num_cpus='2': an amount is a number"),
        ({"num_cpus": True}, TypeError, r"num_cpus=True: an amount is a number"),
        ({"num_gpus": 1.5}, ValueError, r"num_gpus=1.5: more than one GPU can only be had in whole GPUs"),
        ({"resources": {"CPU": 1}}, ValueError, r"'CPU' is given by num_cpus=, not in resources"),
        ({"resources": {"GPU": 1}}, ValueError, r"'GPU' is given by num_gpus="),
        ({"resources": {"x": -0.5}}, ValueError, r"resources\['x'\]=-0.5: an amount is finite and not negative"),
        ({"resources": {3: 1}}, TypeError, r"a name is a string that is not empty, not 3"),
    ],
    ids=str,
)
def test_bad_amounts_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        ResourceSet.of(**arguments)


def test_messages_name_what_is_short_and_only_that():
    demand = ResourceSet.of(num_cpus=4, num_gpus=0.5, resources={"disk": 1})
    machine = ResourceSet.of(num_cpus=2, num_gpus=1)
    assert demand.describe() == "CPU 4, GPU 0.5, disk 1"
    assert ResourceSet().describe() == "nothing"
    assert demand.shortage(machine) == "needs CPU 4, disk 1, this machine has CPU 2, disk 0"
    with pytest.raises(ValueError, match="needs CPU 4, disk 1, this machine has CPU 2, disk 0"):
        machine - demand
    with pytest.raises(ValueError, match="resource CPU would be negative: -1"):
        ResourceSet({"CPU": -SCALE})


def test_a_blocked_task_gives_back_only_its_cpus():
    assert ResourceSet.of(num_cpus=2, num_gpus=1).only("CPU") == ResourceSet.of(num_cpus=2)


def test_sets_travel():
    demand = ResourceSet.of(num_cpus=2.5)
    assert pickle.loads(pickle.dumps(demand)) == demand
    assert ResourceSet(demand.parts()) == demand
    assert demand.amount("CPU") == 2.5
    assert demand.amount("GPU") == 0
