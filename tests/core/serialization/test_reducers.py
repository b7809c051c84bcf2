"""Serializers that a program registers for classes of its own."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from shoal.core.serialization.values import deserialize, serialize
from shoal.util import deregister_serializer, register_serializer


class Connection:
    """Cannot be pickled."""

    def __init__(self, address):
        self.address = address
        self.lock = threading.Lock()


@pytest.fixture
def registered():
    register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
    yield
    deregister_serializer(Connection)


def there_and_back(value):
    sent = serialize(value)
    return deserialize(sent.kind, sent.data, sent.buffers)


@pytest.mark.usefixtures("registered")
def test_instances_travel_their_own_way_alone_and_inside_others():
    one = Connection("a")
    assert there_and_back(one).address == "a"
    copies = there_and_back({"list": [one, (one,)], "other": Connection("b")})
    assert copies["list"][0] is copies["list"][1][0]
    assert copies["other"].address == "b"


def test_afterwards_it_is_as_before(registered):
    deregister_serializer(Connection)
    with pytest.raises(TypeError, match="lock"):
        serialize(Connection("a"))
    deregister_serializer(Connection)  # twice is once


@pytest.mark.usefixtures("registered")
def test_subclasses_are_other_classes():
    class Secure(Connection):
        pass

    with pytest.raises(TypeError, match="lock"):
        serialize([Secure("a")])


@pytest.mark.parametrize(
    ("cls", "error"), [(3, TypeError), (int, ValueError), (dict, ValueError), (np.ndarray, ValueError)]
)
def test_what_cannot_be_registered_is_told(cls, error):
    with pytest.raises(error):
        register_serializer(cls, serializer=str, deserializer=int)
    with pytest.raises(TypeError, match="functions"):
        register_serializer(Connection, serializer=None, deserializer=int)


def test_import_shoal_and_values_need_no_torch():
    code = """
import sys
from shoal.core.serialization.values import serialize
serialize([object])
assert "torch" not in sys.modules
import torch
assert len(serialize(torch.zeros(100000)).buffers) == 1
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
