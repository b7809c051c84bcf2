"""Functions by content: one export for each function, one load for each key."""

from __future__ import annotations

import functools
import gc
import threading
from typing import Any

import numpy as np
import pytest

from shoal.core import refs
from shoal.core.serialization import functions
from shoal.core.serialization.functions import FunctionExporter, FunctionTable


def adder(amount: object):
    def add(x):
        return x + amount

    return add


def test_a_function_is_exported_once_and_runs_where_it_is_loaded():
    exporter, add = FunctionExporter(), adder(3)
    exported = exporter.export(add)
    assert exporter.export(add) is exported
    assert (exported.name, len(exported.key)) == ("add", 16)
    assert FunctionTable().load(exported.key, exported.blob)(4) == 7


def test_the_same_content_has_the_same_key_and_other_content_another():
    one = FunctionExporter().export(adder(3))
    same = FunctionExporter().export(adder(3))
    other = FunctionExporter().export(adder(4))
    assert one.key == same.key
    assert one.key != other.key


def test_what_a_function_captures_is_frozen_at_its_first_export():
    exporter, box = FunctionExporter(), [1]

    def first() -> object:
        return box[0]

    exporter.export(first)
    box[0] = 2
    exported = exporter.export(first)
    assert FunctionTable().load(exported.key, exported.blob)() == 1


def test_the_exporter_does_not_keep_functions_alive():
    exporter, add = FunctionExporter(), adder(3)
    exporter.export(add)
    assert len(exporter._exported) == 1
    del add
    gc.collect()
    assert len(exporter._exported) == 0


def test_classes_are_exported_even_if_their_metaclass_compares_oddly():
    class Odd(type):
        __hash__ = type.__hash__

        def __eq__(cls, other: object) -> bool:
            return True

    class One(metaclass=Odd):
        pass

    class Two(metaclass=Odd):
        pass

    exporter = FunctionExporter()
    assert exporter.export(One).name == "One"
    assert exporter.export(Two).name == "Two"


def test_callables_without_a_name_are_exported():
    exported = FunctionExporter().export(functools.partial(max, 3))
    assert exported.name == "partial"
    assert FunctionTable().load(exported.key, exported.blob)(4) == 4


def test_captured_refs_live_as_long_as_the_export():
    ref = refs.ObjectRef[Any](b"x" * 28, b"o" * 12)
    exported = FunctionExporter().export(adder(ref))
    assert exported.refs == (ref,)


def test_a_captured_array_may_be_written_to_as_a_global_may():
    array = np.zeros(3)

    def bump() -> Any:
        array[0] += 1
        return array[0]

    exported = FunctionExporter().export(bump)
    assert FunctionTable().load(exported.key, exported.blob)() == 1.0


def test_the_table_gives_the_same_object_every_time_to_every_thread():
    class Counted:
        pass

    exported = FunctionExporter().export(Counted)
    table, loaded, start = FunctionTable(), [], threading.Barrier(4)
    assert table.get(exported.key) is None

    def load() -> None:
        start.wait(timeout=10)
        loaded.append(table.load(exported.key, exported.blob))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(loaded) == 4
    assert all(function is table.get(exported.key) for function in loaded)


def test_an_unpicklable_capture_is_named():
    with pytest.raises(
        TypeError, match=r"function adder.<locals>.add -> captured variable 'amount' \(a _thread.lock\)"
    ):
        FunctionExporter().export(adder(threading.Lock()))


def test_large_captures_warn_and_larger_ones_are_refused(monkeypatch):
    monkeypatch.setattr(functions, "WARN_BYTES", 10_000)
    monkeypatch.setattr(functions, "MAX_BYTES", 20_000)
    with pytest.warns(UserWarning, match=r"add is .* MB as bytes; put\(\) the large values"):
        FunctionExporter().export(adder(b"x" * 15_000))
    with pytest.raises(ValueError, match=r"add is .* over the limit"):
        FunctionExporter().export(adder(b"x" * 25_000))
