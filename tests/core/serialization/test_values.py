"""Values to bytes and back: equal, read-only where arrays, fresh where containers, refs counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.core import refs
from shoal.core.serialization import flat, values
from shoal.core.serialization.values import ARRAY, PICKLE, RAW, Serialized, deserialize, serialize


def load(sent: Serialized) -> Any:
    return deserialize(sent.kind, sent.data, sent.buffers)


def back(value: object) -> Any:
    """Through bytes, as if sent: the buffers are writable copies, as a socket may deliver them."""
    sent = serialize(value)
    return deserialize(sent.kind, sent.data, [bytearray(buffer) for buffer in sent.buffers])


Ref = refs.ObjectRef[Any]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner) | st.just({1, 2})
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    result = back(value)
    assert result == value
    assert type(result) is type(value)


ARRAYS = {
    "contiguous": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(24).reshape(4, 6)[:, ::2],
    "reversed": np.arange(5)[::-1],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 3), np.float32),
    "zero-dimensional": np.array(3.5),
    "big-endian": np.arange(4, dtype=">i4"),
    "half": np.arange(3, dtype=np.float16),
    "complex": np.array([1 + 2j]),
    "bool": np.array([True, False]),
    "dates": np.arange(4).astype("M8[s]"),
    "spans": np.arange(4).astype("m8[ms]"),
    "text": np.array(["a", "bcd"]),
    "records": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
}


class Marked:
    """Says of itself that nothing in it needs more than plain pickle."""

    __shoal_plain__ = True

    def __init__(self, part):
        self.part = part


@pytest.mark.parametrize("small_bytes", [-1, 4096], ids=["beside the stream", "in the stream"])
@pytest.mark.parametrize("nested", ["alone", "in a dict", "in a tuple", "in a plain object"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_equal_and_read_only_whatever_their_size_and_layout(name, nested, small_bytes, monkeypatch):
    monkeypatch.setattr(flat, "SMALL_BYTES", small_bytes)
    array = ARRAYS[name]
    if nested == "in a plain object":
        # It promises that there are arrays of numbers in it and no others.
        result = back(Marked({"key": array})).part["key"] if array.dtype.kind in "biufc" else back(array)
    elif nested == "in a tuple":
        one, result, text = back((1, array, "text"))
        assert (one, text) == (1, "text")
    else:
        result = back({"key": array})["key"] if nested == "in a dict" else back(array)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    np.testing.assert_array_equal(result, array)
    assert result.flags.aligned
    assert not result.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        result[...] = result


@pytest.mark.parametrize("count", [0, 1, 512, 513])
def test_only_arrays_of_more_than_4_kib_have_a_buffer(count):
    array = np.arange(float(count))
    for value in (array, (array,), {"a": [array]}, Marked(array)):
        assert len(serialize(value).buffers) == (count > 512)


def test_of_many_small_arrays_only_the_first_are_copied_into_the_stream(monkeypatch):
    monkeypatch.setattr(values, "_MOST_FOLDED_BYTES", 10_000)
    arrays = [np.full(512, number) for number in range(8)]
    sent = serialize({"a": arrays})
    assert len(sent.buffers) == 5
    assert len(sent.data) < 3 * 4096 + 1000
    for array, other in zip(arrays, load(sent)["a"], strict=True):
        np.testing.assert_array_equal(array, other)
        assert not other.flags.writeable


def test_array_memory_travels_beside_the_data_uncopied():
    array = np.arange(100_000)
    for value in (array, [array], {"a": (array,)}):
        sent = serialize(value)
        assert len(sent.data) < 200
        assert sent.nbytes == len(sent.data) + array.nbytes
        assert [np.shares_memory(np.frombuffer(buffer, np.uint8), array) for buffer in sent.buffers] == [True]
    sent = serialize(array)
    arrived = sent.buffers[0].tobytes()
    assert np.shares_memory(cast(Any, deserialize(sent.kind, sent.data, [arrived])), np.frombuffer(arrived, np.uint8))


def test_owned_values_do_not_follow_the_callers_array():
    array = np.zeros(1000)
    aliased, owned = serialize(array), serialize(array).owned()
    array[:] = 1
    assert load(aliased).sum() == 1000
    assert load(owned).sum() == 0


def test_arrays_of_objects_come_back_as_containers():
    result = back(np.array([1, None, "a"], object))
    assert result.tolist() == [1, None, "a"]
    assert result.flags.writeable


def test_containers_are_fresh_at_each_call():
    sent = serialize({"list": [1, 2]})
    first, second = (load(sent) for _ in range(2))
    first["list"].append(3)
    assert second == {"list": [1, 2]}


def test_bytes_are_raw_and_their_relatives_are_not():
    class Tagged(bytes):
        pass

    assert serialize(b"abc") == Serialized(RAW, b"abc", [], [])
    assert deserialize(RAW, memoryview(b"abc")) == b"abc"
    assert type(deserialize(RAW, memoryview(b"abc"))) is bytes
    assert serialize(Tagged(b"abc")).kind == PICKLE
    assert back(bytearray(b"abc")) == bytearray(b"abc")
    assert serialize(np.zeros(1)).kind == ARRAY


def test_subclasses_of_builtins_keep_their_type():
    class Name(str):
        __slots__ = ()

    class Pair(tuple):
        __slots__ = ()

    assert type(back(Name("x"))).__name__ == "Name"
    assert type(back(Pair((1, 2)))).__name__ == "Pair"
    assert type(back([Name("x")])[0]).__name__ == "Name"


def test_functions_and_classes_of_this_file_travel():
    offset = 3
    assert back(lambda x: x + offset)(4) == 7


class Sink:
    """What a connected process sees of its refs."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, bytes]] = []
        self.fled: list[bytes] = []
        self.dead: list[bytes] = []
        self.released: Callable[[bytes], None] = self.dead.append

    def future(self, ref: Ref) -> Any: ...

    def received(self, object_id: bytes, owner: bytes) -> None:
        self.got.append((object_id, owner))

    def received_all(self, object_ids: list[bytes], owner: bytes) -> None:
        self.got += [(object_id, owner) for object_id in object_ids]

    def escaped(self, ref: Ref) -> None:
        self.fled.append(ref.binary())


@pytest.fixture
def sink():
    connected = Sink()
    refs.connect(connected)
    yield connected
    refs.connect(None)


def test_refs_are_collected_wherever_they_are_and_do_not_count_as_escaped(sink):
    one, two, three = (Ref(bytes([i]) * 28, b"o" * 12) for i in range(3))

    class Holder:
        def __init__(self) -> None:
            self.ref = two

    sent = serialize([one, {"a": Holder()}, lambda: three])
    assert sorted(ref.binary() for ref in sent.refs) == [one.binary(), two.binary(), three.binary()]
    assert sent.refs[0] is one
    assert sink.fled == []
    result = load(sent)
    assert (result[0], result[1]["a"].ref, result[2]()) == (one, two, three)
    assert sorted(sink.got) == [(ref.binary(), b"o" * 12) for ref in (one, two, three)]


def test_a_ref_alone_is_collected_too(sink):
    ref = Ref(b"x" * 28, b"o" * 12)
    sent = serialize(ref)
    assert sent.refs == [ref]
    assert deserialize(sent.kind, sent.data) == ref


def test_many_refs_keep_their_places_their_owners_and_who_is_the_same(sink):
    ones = [Ref(bytes([i]) * 28, b"o" * 12) for i in range(100)]
    others = [Ref(bytes([i]) * 28, b"p" * 12) for i in range(100, 200)]
    mixed = [ref for pair in zip(ones, others, strict=True) for ref in pair]
    sent = serialize({"refs": mixed, "again": ones[:3], "array": np.arange(3)})
    assert sent.refs == mixed
    result = load(sent)
    assert [(ref.binary(), ref.owner) for ref in result["refs"]] == [(ref.binary(), ref.owner) for ref in mixed]
    assert result["again"][1] is result["refs"][2]
    assert result["array"].tolist() == [0, 1, 2]
    assert sorted(sink.got) == sorted((ref.binary(), ref.owner) for ref in mixed), "each is counted once"
    sink.dead.clear()
    del result
    assert sorted(sink.dead) == sorted(ref.binary() for ref in mixed)


def test_a_value_may_load_another_while_it_loads(sink):
    inner, first, last = (Ref(bytes([i]) * 28, b"o" * 12) for i in range(3))
    sent = serialize([inner])

    class Loads:
        def __reduce__(self):
            return (lambda: load(sent)), ()

    result = load(serialize([Loads(), first, Loads(), last]))
    assert result == [[inner], first, [inner], last]


class Client:
    def __init__(self) -> None:
        self.pools = [{"lock": threading.Lock()}]


def test_what_cannot_be_pickled_is_named_with_the_way_to_it():
    client = Client()
    with pytest.raises(TypeError, match=r"value\[1\]\.pools\[0\]\['lock'\] \(a _thread\.lock\)") as caught:
        serialize((1, client))
    assert "lock" in str(caught.value.__cause__)
    with pytest.raises(TypeError, match=r"function .*<lambda> -> captured variable 'client'\.pools"):
        serialize(lambda: client)
    with pytest.raises(TypeError, match=r"value \(a generator\)"):
        serialize(i for i in range(3))


def test_an_error_of_the_users_reduction_is_the_cause():
    class Broken:
        def __reduce__(self):
            raise RuntimeError("not today")

    with pytest.raises(TypeError, match=r"value\['b'\] \(a .*Broken\): not today") as caught:
        serialize({"b": Broken()})
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="99 is no kind"):
        deserialize(99, b"")
