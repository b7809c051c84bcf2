"""Flat values: what is one, and that it comes back as pickle would have brought it."""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor, TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.core.serialization import values
from shoal.core.serialization.flat import has_only_attributes, unflatten
from shoal.core.serialization.values import FLAT, PICKLE, deserialize, serialize


def back(value: Any) -> Any:
    sent = serialize(value).owned()
    return deserialize(sent.kind, sent.data, sent.buffers)


@dataclass
class Reply:
    __shoal_plain__ = True

    actions: Any
    policy: str = "p"
    value: Any = None


class Undeclared:
    __shoal_plain__ = True

    def __init__(self, array):
        self.array = array
        self.number = 7


@dataclass
class Frozen(Reply):
    more: int = field(default=3)


class WithState(Undeclared):
    def __setstate__(self, state):
        self.__dict__.update(state, number=8)


class Reduced(Undeclared):
    def __reduce__(self):
        return Undeclared, (self.array,)


@dataclass
class Slotted:
    __shoal_plain__ = True
    __slots__ = ("actions",)

    actions: Any


arrays = st.sampled_from([np.int8, np.int64, np.float32, np.float64, np.bool_, ">i4", np.complex64]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(
        lambda shape: np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    )
)
items = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    return type(one) is type(other) and one == other


@settings(max_examples=200, deadline=None)
@given(st.lists(items | arrays, min_size=1, max_size=6), st.sampled_from([tuple, list]))
def test_what_is_in_it_comes_back_in_order_and_of_the_same_types(parts, kind):
    value = kind(parts)
    sent = serialize(value)
    assert sent.kind == (FLAT if any(isinstance(part, np.ndarray) for part in parts) else PICKLE)
    assert not sent.buffers
    result = back(value)
    assert type(result) is kind
    assert len(result) == len(parts)
    assert all(same(one, other) for one, other in zip(parts, result, strict=True))
    assert not any(part.flags.writeable for part in result if isinstance(part, np.ndarray))


@pytest.mark.parametrize(
    "value", [Reply(np.arange(3)), Frozen(np.zeros(2), value=np.ones((1, 2))), Undeclared(np.arange(2))]
)
def test_plain_objects_come_back_with_all_their_attributes(value):
    for attributes in ({}, {"extra": "said later"}):
        vars(value).update(attributes)
        assert serialize(value).kind == FLAT
        result = back(value)
        assert type(result) is type(value)
        assert list(vars(result)) == list(vars(value))
        assert all(same(one, other) for one, other in zip(vars(value).values(), vars(result).values(), strict=True))


def test_a_class_that_has_a_say_in_how_it_is_pickled_has_it():
    assert back(WithState(np.arange(2))).number == 8
    assert type(back(Reduced(np.arange(2)))) is Undeclared
    assert back(Slotted(np.arange(2))).actions.tolist() == [0, 1]
    assert not any(map(has_only_attributes, (WithState, Reduced, Slotted)))


def test_a_class_that_cannot_be_found_by_its_name_is_refused_where_it_is_sent():
    @dataclass
    class Local:
        __shoal_plain__ = True
        actions: Any

    with pytest.raises(Exception, match="Local"):
        serialize(Local(np.arange(2)))


def test_an_object_in_it_or_an_array_that_is_not_small_makes_it_another_kind(monkeypatch):
    class Anything:
        pass

    many = np.zeros(513)
    for value in ((1, many), [np.zeros(1), many], Reply(many), (np.array([None]),), (np.zeros(1), {"a": 1})):
        assert serialize(value).kind == PICKLE
    assert serialize((np.zeros(1), Anything())).kind == PICKLE
    monkeypatch.setattr(values, "_MAX_SCANNED", 2)
    assert serialize((np.zeros(1), 1, 2)).kind == PICKLE


def test_what_was_sent_does_not_follow_the_callers_array():
    array = np.zeros(3)
    sent = serialize((array, 1))
    array[:] = 1
    result: Any = deserialize(sent.kind, sent.data)
    assert result[0].sum() == 0


@pytest.mark.parametrize("size", [3, 5000], ids=["small", "large"])
def test_an_array_that_is_in_it_twice_is_one_array_at_the_other_end(size):
    array, other = np.arange(size), np.arange(size)
    for value in ((array, other, array), [array, other, array]):
        one, two, three = back(value)
        assert one is three
        assert one is not two
    result = back(Reply(array, value=array))
    assert result.actions is result.value


def test_an_object_whose_class_has_been_loaded_anew_is_refused(monkeypatch):
    reply = Reply(np.arange(2))
    assert serialize(reply).kind == FLAT
    monkeypatch.setitem(globals(), "Reply", type("Reply", (), {}))
    with pytest.raises(Exception, match="not the same object"):
        serialize(reply)


@pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn", "bfloat16", "int4"])
def test_arrays_of_dtypes_of_other_packages_come_back(name):
    array = np.array([0, 1, 2]).astype(getattr(ml_dtypes, name))
    for result in (back(array), back((array, 1))[0], back({"a": array})["a"]):
        assert result.dtype == array.dtype
        assert result.tobytes() == array.tobytes()


def test_a_class_whose_module_another_thread_is_importing_is_waited_for(tmp_path, monkeypatch):
    name = "imported_by_two_threads"
    (tmp_path / f"{name}.py").write_text(
        "import threading\nbegun, may_end = threading.Event(), threading.Event()\nbegun.set()\n"
        "assert may_end.wait(30)\nclass Reply:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stream = pickle.dumps(((name, "Reply", ("number",)), [7], []))
    with ThreadPoolExecutor(2) as threads:
        importing = threads.submit(importlib.import_module, name)
        deadline = time.monotonic() + 30
        while not (name in sys.modules and hasattr(sys.modules[name], "may_end") and sys.modules[name].begun.is_set()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        loading = threads.submit(unflatten, stream)
        with pytest.raises(NotYet):
            loading.result(timeout=0.1)
        sys.modules[name].may_end.set()
        importing.result(timeout=30)
        assert vars(loading.result(timeout=30)) == {"number": 7}
    del sys.modules[name]
