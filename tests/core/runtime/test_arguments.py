"""Arguments: what is packed comes out again, top-level refs replaced by their values."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from shoal.core.ids import OBJECT_BYTES
from shoal.core.refs import ObjectRef
from shoal.core.runtime.arguments import Packed, pack, unpack
from shoal.core.serialization.values import FLAT, deserialize


def ref(number: int) -> ObjectRef:
    return ObjectRef(bytes([number]) * OBJECT_BYTES)


def unpacked(packed: Packed, *slots: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    assert packed.serialized is not None
    sent = packed.serialized.owned()
    return unpack(deserialize(sent.kind, sent.data, sent.buffers), slots)


@pytest.mark.parametrize("args", [(), (1,), (1, "two", None), ([1], (2,), {"three": 3})])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"x": 1},
        {"x": b"bytes"},
        {"x": {}},
        {"a name\0like no \ud800": 1},
        {"x": [1], "y": (2,), "a name\0like no \ud800": None},
    ],
)
def test_arguments_come_out_as_they_went_in(args, kwargs):
    packed = pack(args, kwargs)
    assert (packed.dependencies, packed.refs) == ([], [])
    if args or kwargs:
        assert unpacked(packed) == (args, kwargs)
    else:
        assert packed.serialized is None


def test_top_level_refs_become_slots_and_those_inside_stay_refs():
    packed = pack((1, ref(1), [ref(2)]), {"x": ref(3), "y": {"z": ref(4)}, "w": ref(1)})
    assert [object_id[0] for object_id, _ in packed.dependencies] == [1, 3, 1]
    assert sorted(each.binary()[0] for each in packed.refs) == [1, 1, 2, 3, 4]
    args, kwargs = unpacked(packed, "one", "three", "one again")
    assert args == (1, "one", [ref(2)])
    assert kwargs == {"x": "three", "y": {"z": ref(4)}, "w": "one again"}


@pytest.mark.parametrize(("args", "names"), [((), "x"), ((1,), "x"), ((2,), "")])
def test_a_ref_in_an_array_of_objects_is_kept(args, names):
    array = np.array([ref(1), None], dtype=object)
    kwargs = dict.fromkeys(names, array)
    packed = pack(args if kwargs else (*args, array), kwargs)
    assert [each.binary()[0] for each in packed.refs] == [1]


@pytest.mark.parametrize("only", ["positional", "by name"])
def test_a_ref_alone(only):
    packed = pack((ref(1),), {}) if only == "positional" else pack((), {"x": ref(1)})
    assert unpacked(packed, 7) == (((7,), {}) if only == "positional" else ((), {"x": 7}))


@pytest.mark.parametrize("kwargs", [{}, {"deterministic": True}, {"x": np.ones(3), "y": b"last"}])
def test_items_and_small_arrays_are_flat_also_by_name(kwargs):
    packed = pack((np.zeros(2), 1), kwargs)
    assert packed.serialized is not None
    assert packed.serialized.kind == FLAT
    args, named = unpacked(packed)
    np.testing.assert_equal((args, named), ((np.zeros(2), 1), kwargs))


def test_what_cannot_be_pickled_is_named_with_its_keyword():
    with pytest.raises(TypeError, match=r"value\[1\]\['lock'\]"):
        pack((1,), {"lock": threading.Lock()})


def test_a_class_with_an_opinion_on_what_equals_it_is_not_asked():
    class Loud(type):
        def __eq__(cls, other: object) -> bool:
            raise RuntimeError("nobody equals me")

        def __hash__(cls) -> int:
            return id(cls)

    packed = pack((1, Loud("Thing", (), {}), ref(1)), {})
    assert [object_id[0] for object_id, _ in packed.dependencies] == [1]
    Thing: Any = Loud("Thing", (), {"__reduce__": lambda self: (dict, ())})
    assert unpacked(pack((1, Thing()), {})) == ((1, {}), {})
