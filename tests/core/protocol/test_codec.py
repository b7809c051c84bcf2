"""Messages survive their way over the wire, and nothing else does."""

from __future__ import annotations

import msgpack
import pytest

from shoal.core.errors import ProtocolError
from shoal.core.protocol import codec, messages as m


def example(cls: type[m.Message]) -> m.Message:
    """A message with a value of the right kind in every field."""
    values = {
        "bytes": b"\x00\xff",
        "str": "name",
        "int": -7,
        "float": 0.25,
        "bool": True,
        "Any": (1, b"x"),
        "dict[str, int]": {"CPU": 10_000},
        "dict[str, str]": {"zone": "a"},
        "dict[str, WireMethod]": {"method": (1, -1, True, "io")},
        "list[bytes]": (b"a", b"b"),
        "list[str]": ("0", "1"),
        "list[dict[str, Any]]": ({"state": "RUNNING", "pid": 7},),
        "dict[str, list[dict[str, Any]]]": {"tasks": ({"state": "RUNNING"},)},
        "list[dict[str, int]]": ({"CPU": 10_000}, {"GPU": 5_000}),
        "list[int]": (1, 2**40),
        "Location": (64, 7, 5, (3,), False),
        "list[tuple[bytes, Location]]": ((b"id", (64, 7, 5, (3,), False)),),
        "list[BlockLeft]": ((64, 2**32 - 1, True),),
        "list[Any]": [b"buffer one", b"", b"three"],
        "WireValue": (1, b"data", 1),
        "list[WireRef]": ((b"id", b"owner"),),
        "list[tuple[bytes, bytes, WireValue]]": ((b"id", b"owner", (1, (0, 5, (3,)), 0)),),
        "list[tuple[WireValue, list[WireRef]]]": (((1, b"data", 2), ((b"id", b"owner"),)),),
    }
    return cls(**{name: values[kind] for name, kind in cls.__annotations__.items()})


@pytest.mark.parametrize("cls", m.TYPES.values(), ids=lambda cls: cls.__name__)
def test_every_message_comes_back_as_it_was_sent(cls):
    message = example(cls)
    assert codec.decode([bytes(frame) for frame in codec.encode([message])]) == [message]


def test_a_batch_keeps_its_order_and_each_message_its_own_buffers():
    batch = [
        m.TaskDone(b"t1", False, (), (), 5, [b"one", b"two"]),
        m.Hello(b"token", b"peer"),
        m.TaskDone(b"t2", True, (), (), 6, [b"three"]),
    ]
    frames = codec.encode(batch)
    assert len(frames) == 4
    assert codec.decode(frames) == batch


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc1"],
        [msgpack.packb(5)],
        [msgpack.packb([5])],
        [msgpack.packb([[9999, 1]])],
        [msgpack.packb([[1]])],
        [msgpack.packb([[1, b"token", b"peer", b"one too many"]])],
        [b"\x93" * 2000],
    ],
)
def test_bytes_that_are_no_batch_are_a_protocol_error(frames):
    with pytest.raises(ProtocolError):
        codec.decode(frames)


def test_tags_are_unique_and_every_message_is_documented():
    for tag, cls in m.TYPES.items():
        assert tag == cls.TAG
        assert cls.__doc__
        assert not cls.__doc__.startswith(cls.__name__ + "("), (
            f"{cls.__name__} has only the docstring that dataclass makes"
        )
        assert "->" in cls.PATH
