"""``ray.experimental.internal_kv``: bytes by bytes for the whole session."""

from __future__ import annotations

import pytest

import shoal
from shoal.experimental import internal_kv as kv


def test_values_are_put_found_listed_and_removed():
    assert kv._internal_kv_initialized()
    assert kv._internal_kv_get("k1") is None
    assert not kv._internal_kv_put("k1", "one")
    assert kv._internal_kv_put("k1", b"two", overwrite=False)
    assert kv._internal_kv_get(b"k1") == b"one"
    assert kv._internal_kv_put("k1", "two")
    assert kv._internal_kv_get("k1") == b"two"
    assert not kv._internal_kv_put("k2", "three")
    kv._internal_kv_put("k1", "elsewhere", namespace="n")
    assert sorted(kv._internal_kv_list("k")) == [b"k1", b"k2"]
    assert kv._internal_kv_exists("k2")
    assert kv._internal_kv_del("k2") == 1
    assert kv._internal_kv_del("k2") == 0
    assert kv._internal_kv_del("k", del_by_prefix=True) == 1
    assert not kv._internal_kv_exists("k1")
    assert kv._internal_kv_get("k1", namespace=b"n") == b"elsewhere"


def test_tasks_see_them():
    @shoal.remote
    def put():
        kv._internal_kv_put("from a task", b"\xff")

    shoal.get(put.remote(), timeout=30)
    assert kv._internal_kv_get("from a task") == b"\xff"


def test_other_keys_are_refused():
    with pytest.raises(TypeError, match="bytes or texts"):
        kv._internal_kv_get(3)
