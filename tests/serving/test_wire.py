import contextlib
import json
import re
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from shoal.serving import wire
from shoal.serving.errors import BadRequest, PolicyFailed, ServingError
from shoal.serving.requests import ActReply, ActRequest

NUMBERS = st.sampled_from([np.dtype(name) for name in ("?", "i1", "<i8", "u2", "<f2", "<f4", ">f8")])
ARRAYS = NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))
MAYBE = st.none() | ARRAYS


def same(one, other) -> bool:
    if one is None or other is None or isinstance(one, str | int | float):
        return one == other
    if isinstance(one, np.ndarray):
        little = one.dtype.newbyteorder("<")
        return (
            other.dtype == little
            and other.shape == one.shape
            and other.tobytes() == np.ascontiguousarray(one, little).tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(part, other[name]) for name, part in one.items())
    return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))


@settings(deadline=None, max_examples=60)
@given(
    observations=st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3), action_mask=MAYBE, state=MAYBE,
    episode_start=MAYBE, sessions=st.none() | st.lists(st.text(max_size=3), max_size=3).map(tuple),
    deterministic=st.booleans(), want_value=st.booleans(), timeout_s=st.none() | st.floats(0, 10),
)  # fmt: skip
def test_requests_come_back_from_tensors_as_they_were(**values):
    request = ActRequest(**values)
    again = wire.read_tensor_request(wire.write_tensor_request(request))
    assert all(same(getattr(request, name), getattr(again, name)) for name in ActRequest.__dataclass_fields__)


ACTIONS = st.recursive(
    ARRAYS, lambda part: st.dictionaries(st.text(max_size=3), part, max_size=2) | st.tuples(part, part), max_leaves=4
)


@settings(deadline=None, max_examples=60)
@given(actions=ACTIONS, log_prob=MAYBE, value=MAYBE, state=MAYBE)
def test_answers_come_back_from_tensors_as_they_were(**values):
    reply = ActReply(policy="p", version=3, **values)
    again = wire.read_tensor_reply(wire.write_tensor_reply(reply))
    assert all(same(getattr(reply, name), getattr(again, name)) for name in ActReply.__dataclass_fields__)


def test_arrays_that_are_read_are_views_of_the_body():
    body = wire.write_tensor_request(ActRequest(observations={"x": np.arange(1000.0)}))
    array = wire.read_tensor_request(body).observations["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert array.flags.aligned


def header(values: object, buffers: bytes = bytes(64)) -> bytes:
    packed = values if isinstance(values, bytes) else msgpack.packb(values)
    return wire.MAGIC + struct.pack("<I", len(packed)) + packed + bytes(-len(packed) % 8) + buffers


def place(dtype: bytes, *numbers: int) -> msgpack.ExtType:
    return msgpack.ExtType(wire.ARRAY, dtype + struct.pack(f"<{len(numbers)}Q", *numbers))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "does not begin with SHT1"),
        (b"SHT1\0", "does not begin with SHT1"),
        (b"{}", "does not begin with SHT1"),
        (b"SHT1\xff\xff\xff\xff", "a header of 4294967295 bytes in a body of 8"),
        (b"SHT1\x09\0\0\0" + bytes(8), "a header of 9 bytes in a body of 16"),
        (header(b"\xc1"), "no msgpack"),
        (header(b"\x81"), "no msgpack"),
        (header(b"\x80\x80"), "no msgpack"),
        (header(b"\x91" * 5000 + b"\xc0"), "no msgpack"),
        (header(b"\x81\x91\x80\x01"), "no msgpack"),
        (header(b"\xa2\xff\xff"), "no msgpack"),
        (header([1]), "no map"),
        (header({1: 2}), "no msgpack"),
        (header({b"observations": 2}), "there is no such field"),
        (header({"observations": 3}), "no array"),
        (header({"observations": {b"x": 3}}), "names of columns are strings"),
        (header({"observations": msgpack.ExtType(5, b"")}), "extension 5 means nothing"),
        (header({"observations": msgpack.Timestamp(1)}), "means nothing|no array"),
        (header({"observations": place(b"|O8", 0, 1)}), "an array is told as"),
        (header({"observations": place(b"<f4")}), "an array is told as"),
        (header({"observations": msgpack.ExtType(1, b"<f4" + bytes(9))}), "an array is told as"),
        (header({"observations": place(b"<f4", 0, *[1] * 17)}), "an array is told as"),
        (header({"observations": place(b"<f4", 0, 17)}), "behind the header are 64 bytes"),
        (header({"observations": place(b"<f4", 4, 1)}), "behind the header are 64 bytes"),
        (header({"observations": place(b"<f4", 72, 0)}), "behind the header are 64 bytes"),
        (header({"observations": place(b"<f4", 0, 2**63, 2**63)}), "behind the header are 64 bytes"),
        (header({"observations": place(b"<f4", 0, 2**62, 0)}), "which has no elements"),
        (header({"observations": place(b"<f4", 0, 1), "deterministic": 1}), "neither true nor false"),
        (header({"observations": place(b"<f4", 0, 1), "sessions": [b"x"]}), "no list of names"),
    ],
)
def test_what_is_no_request_in_tensors_is_refused(body, text):
    with pytest.raises(BadRequest, match=text):
        wire.read_tensor_request(body)


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        (b"", None, "no JSON"),
        (b"\xff", None, "no JSON"),
        (b"[1", None, "no JSON"),
        (b"1" * 5000, None, "no JSON"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b"[]", None, "no object"),
        (b"null", None, "no object"),
        (b"{}", "observations", "missing"),
        (b'{"observations": [0], "obs": 1}', "obs", "no such field; there are observations, "),
        (b'{"observations": null}', "observations", "no number"),
        (b'{"observations": "abc"}', "observations", "no number"),
        (b'{"observations": ["a", 1]}', "observations", "no number"),
        (b'{"observations": [[1], "a"]}', "observations", "no number"),
        (b'{"observations": [[1], ""]}', "observations", "no number"),
        (b'{"observations": [[1], {"a": 1}]}', "observations", "no number"),
        (b'{"observations": [[1], {}]}', "observations", "no number"),
        (b'{"observations": [[1], 2]}', "observations", "no number"),
        (b'{"observations": [[1], [1, 2]]}', "observations", "equal length"),
        (b'{"observations": {"x": [null]}}', "observations.x", "no number"),
        (b'{"observations": {"x": {"y": [1]}}}', "observations.x", "no number"),
        (b'{"observations": [100000000000000000000]}', "observations", "more than 64 bits"),
        (b'{"observations": %s}' % (b"[" * 40 + b"]" * 40), "observations", "no number"),
        (b'{"observations": [0], "state": [{}]}', "state", "no number"),
        (b'{"observations": [0], "sessions": "a"}', "sessions", "no list of names"),
        (b'{"observations": [0], "sessions": [1]}', "sessions", "no list of names"),
        (b'{"observations": [0], "timeout_s": true}', "timeout_s", "no number of seconds"),
        (b'{"observations": [0], "timeout_s": "1"}', "timeout_s", "no number of seconds"),
        (b'{"observations": [0], "timeout_s": 1%s}' % (b"0" * 400), "timeout_s", "more seconds than there are"),
        (b'{"observations": [0], "deterministic": null}', "deterministic", "neither true nor false"),
        (b'{"observations": [0], "want_value": 1}', "want_value", "neither true nor false"),
    ],
)
def test_what_is_no_request_in_json_is_refused_and_the_field_named(body, field, text):
    with pytest.raises(BadRequest, match=text) as caught:
        wire.read_json_request(body)
    assert caught.value.field == field


def test_a_long_string_among_many_short_ones_takes_no_memory():
    # numpy would make 100,000 strings of 100,000 letters each of it.
    body = json.dumps({"observations": ["a" * 100_000] + ["b"] * 100_000}).encode()
    with pytest.raises(BadRequest):
        wire.read_json_request(body)


def test_json_reads_plain_and_named_columns():
    plain = wire.read_json_request(b'{"observations": [[1, 2.5]], "sessions": ["a"], "state": null, "timeout_s": 2}')
    assert plain.observations["observation"].tolist() == [[1.0, 2.5]]
    assert (plain.sessions, plain.state, plain.timeout_s, plain.deterministic) == (("a",), None, 2.0, True)
    named = wire.read_json_request(b'{"observations": {"a": [true], "b/0": [[]]}, "deterministic": false}')
    assert {name: array.shape for name, array in named.observations.items()} == {"a": (1,), "b/0": (1, 0)}
    assert not named.deterministic


def test_json_answers_one_action_per_row_in_the_spaces_structure():
    actions = {"gear": np.array([1, 2]), "wheels": (np.zeros((2, 1), np.float32), np.array([True, False]))}
    reply = ActReply(actions=actions, policy="p", version=7, value=np.array([0.5, 1.5], np.float32))
    assert json.loads(wire.write_json_reply(reply)) == {
        "actions": [{"gear": 1, "wheels": [[0.0], True]}, {"gear": 2, "wheels": [[0.0], False]}],
        "policy": "p", "version": 7, "value": [0.5, 1.5],
    }  # fmt: skip


def test_json_cannot_say_nan_and_the_policy_is_told_so():
    with pytest.raises(PolicyFailed, match="'p' answered numbers that are not finite"):
        wire.write_json_reply(ActReply(actions=np.array([np.nan]), policy="p", version=1))


def test_objects_do_not_travel():
    with pytest.raises(TypeError, match="object does not travel"):
        wire.write_tensor_request(ActRequest(observations={"x": np.array([object()])}))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64), st.integers(0, 200), st.integers(0, 200))
def test_a_damaged_request_in_tensors_is_read_or_refused(junk, begin, end):
    body = wire.write_tensor_request(ActRequest(observations={"x": np.zeros((2, 3), np.float32)}, sessions=("a", "b")))
    damaged = body[:begin] + junk + body[max(begin, end) :]
    for read in (wire.read_tensor_request, wire.read_json_request, wire.read_tensor_reply):
        with contextlib.suppress(ServingError):
            read(damaged)


@pytest.mark.parametrize(
    "text",
    ["{}", " \r\n\t[1]\n", "1 ", "1 2", "\n1\n 2\n", "", " ", "{", "[1,]", " nul", "\x0b1", "1\x0c", "\ufeff1"],
)
def test_a_body_is_read_as_json_reads_it_whatever_is_around_it(text):
    expected = fault = None
    try:
        expected = json.JSONDecoder().decode(text)
    except json.JSONDecodeError as error:
        fault = f"the body is no JSON: {error}"
    with contextlib.nullcontext() if fault is None else pytest.raises(BadRequest, match=f"^{re.escape(fault)}$"):
        assert wire.read_json(text.encode()) == expected
