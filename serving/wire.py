"""Requests and answers as bytes and back, in two forms. Pure; no pickle, and nothing is run that came from outside.

JSON, ``application/json``: the fields of ``ActRequest`` and ``ActReply`` by name, arrays as nested lists. A space that
is not nested needs no column name: ``{"observations": [[0.1, 0.2]]}``. Actions come one per row, each in the action
space's own structure. What is not asked for, or not there, is left away.

Tensors, ``application/vnd.shoal.tensors``: the same fields in msgpack, with arrays behind it as they lie in memory.

    "SHT1" | length of header, 4 bytes | header, msgpack, padded to 8 | arrays, each padded to 8

An array stands in the header as msgpack's extension type 1: its dtype as numpy writes it ("<f4", "|u1"), then eight
bytes each for where it begins behind the header, a multiple of 8, and for its sizes. All numbers are little-endian.
Sizes are compared before anything is made of them, and arrays that are read are views of the body, which cannot be
written to: reading takes no memory worth naming, whatever the header says.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import msgpack
import numpy as np

from .errors import BadRequest, PolicyFailed
from .requests import Actions, ActReply, ActRequest, Columns
from .spaces import ONLY

JSON_FORM = "application/json"
TENSOR_FORM = "application/vnd.shoal.tensors"
MAGIC = b"SHT1"
#: Longest header of the tensor form. One with 64 columns and 64 sessions has 12 KB; its arrays stand behind it.
MAX_HEADER_BYTES = 1 << 18
#: Dimensions of an array.
MAX_DIMENSIONS = 16
#: What travels, by what it is called in a header; all else is refused, objects above all.
DTYPES = {
    dtype.str.encode(): dtype
    for dtype in (
        np.dtype(name).newbyteorder("<")
        for name in ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
                     "float16", "float32", "float64")
    )
}  # fmt: skip
_CODES = {dtype: code for code, dtype in DTYPES.items()}
ARRAY = 1  #: msgpack's extension type of an array

_LENGTH = struct.Struct("<I")
_DEFAULTS = {field.name: field.default for field in fields(ActRequest)}
#: Keyword arguments of `json.dumps` make an encoder each time, for 3 us.
_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_DECODE = json.JSONDecoder().raw_decode
_JSON_SPACE = " \t\n\r"


def read_json_request(body: bytes) -> ActRequest:
    """A request in JSON.

    Raises:
      BadRequest: it is no JSON, or not that of a request; names the field.
    """
    return _request(read_json(body), array_of_lists)


def read_json(body: bytes) -> Any:
    """What a body in JSON says.

    Raises:
      BadRequest: it is no JSON.
    """
    try:
        text = body.decode()
        # As `decode` does, but for the regular expressions with which it looks for white space on both sides.
        value, end = _DECODE(text, len(text) - len(text.lstrip(_JSON_SPACE)))
        rest = text[end:].lstrip(_JSON_SPACE)
        if rest:
            raise json.JSONDecodeError("Extra data", text, len(text) - len(rest))
        return value
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:  # no UTF-8, no JSON, a number with thousands of digits
        raise BadRequest(f"the body is no JSON: {error}") from error


def read_tensor_request(body: bytes) -> ActRequest:
    """A request in the tensor form.

    Raises:
      BadRequest: it is no such thing, or not that of a request; names the field.
    """
    return _request(read_tensors(body), array_as_it_is)


def write_tensor_request(request: ActRequest) -> bytes:
    """The inverse of ``read_tensor_request``.

    Raises:
      TypeError: an array is of something else than numbers.
    """
    values = {name: getattr(request, name) for name in _DEFAULTS}
    return write_tensors(
        {name: value for name, value in values.items() if value is not None and value is not _DEFAULTS[name]}
    )


def write_json_reply(reply: ActReply) -> bytes:
    """An answer in JSON.

    Raises:
      PolicyFailed: its numbers are not finite, which JSON cannot say.
    """
    values: dict[str, Any] = {"actions": rows_from(reply.actions), "policy": reply.policy, "version": reply.version}
    for name in ("log_prob", "value", "drawn", "state"):
        array = getattr(reply, name)
        if array is not None:
            values[name] = array.tolist()
    try:
        return _ENCODE(values).encode()
    except ValueError as error:
        raise PolicyFailed(f"policy {reply.policy!r} answered numbers that are not finite") from error


def write_tensor_reply(reply: ActReply) -> bytes:
    """An answer in the tensor form."""
    values = {"actions": reply.actions, "policy": reply.policy, "version": reply.version}
    for name in ("log_prob", "value", "drawn", "state"):
        array = getattr(reply, name)
        if array is not None:
            values[name] = array
    return write_tensors(values)


def read_tensor_reply(body: bytes) -> ActReply:
    """The inverse of ``write_tensor_reply``.

    Raises:
      BadRequest: it is no answer.
    """
    values = read_tensors(body)
    try:
        return ActReply(**values)
    except TypeError as error:
        raise BadRequest(f"this is no answer of a policy: {error}") from error


# --- the fields of a request -----------------------------------------------------------------------------------------


def _request(values: Any, read_array: Callable[[Any, str], np.ndarray]) -> ActRequest:
    if not isinstance(values, dict):
        raise BadRequest("the body is no object with the fields of a request")
    for name in values:
        if name not in _DEFAULTS:
            raise BadRequest(f"there is no such field; there are {', '.join(_DEFAULTS)}", field=shown_name(name))
    if "observations" not in values:
        raise BadRequest("missing", field="observations")
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name == "observations":
            read[name] = columns_from(value, name, read_array)
        elif value is None and _DEFAULTS[name] is None:
            continue
        elif name in ("action_mask", "state", "episode_start"):
            read[name] = read_array(value, name)
        elif name == "sessions":
            read[name] = _sessions(value)
        elif name == "timeout_s":
            read[name] = seconds_from(value)
        elif isinstance(value, bool):
            read[name] = value
        else:
            raise BadRequest("neither true nor false", field=name)
    return ActRequest(**read)


def columns_from(value: Any, field: str, read_array: Callable[[Any, str], np.ndarray]) -> Columns:
    """Columns by name; of an array alone, the only one.

    Raises:
      BadRequest: they are none; names the field, or its part.
    """
    if not isinstance(value, dict):
        return {ONLY: read_array(value, field)}
    columns = {}
    for name, array in value.items():
        if not isinstance(name, str):
            raise BadRequest("names of columns are strings", field=field)
        columns[name] = read_array(array, f"{field}.{shown_name(name)}")
    return columns


def _sessions(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise BadRequest("no list of names", field="sessions")
    return tuple(value)


def seconds_from(value: Any) -> float:
    """A number of seconds.

    Raises:
      BadRequest: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("no number of seconds", field="timeout_s")
    try:
        return float(value)
    except OverflowError as error:
        raise BadRequest("more seconds than there are", field="timeout_s") from error


def shown_name(name: object) -> str:
    """The name of a field or column that a stranger made up, as a message may hold it."""
    text = str(name)
    return text if len(text) <= 64 else f"{text[:61]}..."


# --- arrays in JSON --------------------------------------------------------------------------------------------------


def array_of_lists(value: Any, name: str) -> np.ndarray:
    """Nested lists as an array.

    Raises:
      BadRequest: they are none of numbers; names the field.
    """
    # numpy must not see strings: it would make all elements as long as the longest, gigabytes of a body of kilobytes.
    # What is hidden among lists and no list comes out as its letters or keys, and is found all the same.
    level = [value]
    depth = 0
    try:
        while level and type(level[0]) is list and depth <= MAX_DIMENSIONS:
            level = list(itertools.chain.from_iterable(level))
            depth += 1
        kinds = set(map(type, level))
        if not kinds <= _NUMBERS:
            raise TypeError
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(
            "no number or nested lists of numbers or booleans, of equal length and depth everywhere", field=name
        ) from error
    if array.dtype.kind not in "biuf":
        raise BadRequest("whole numbers of more than 64 bits", field=name)
    return array


_NUMBERS = {int, float, bool}


def rows_from(actions: Actions) -> list[Any]:
    """One action per row, each nested as the space is."""
    if isinstance(actions, np.ndarray):
        rows: list[Any] = actions.tolist()
        return rows
    if isinstance(actions, dict):
        parts = [rows_from(part) for part in actions.values()]
        return [dict(zip(actions, row, strict=True)) for row in zip(*parts, strict=True)]
    return [list(row) for row in zip(*map(rows_from, actions), strict=True)]


# --- arrays in the tensor form ---------------------------------------------------------------------------------------


def array_as_it_is(value: Any, name: str) -> np.ndarray:
    """An array of the tensor form.

    Raises:
      BadRequest: it is something else; names the field.
    """
    if not isinstance(value, np.ndarray):
        raise BadRequest("no array", field=name)
    return value


def read_tensors(body: bytes) -> dict[str, Any]:
    """The fields of the tensor form by name.

    Raises:
      BadRequest: it is no such thing.
    """
    if body[:4] != MAGIC or len(body) < 8:
        raise BadRequest(f"the body does not begin with {MAGIC.decode()}: this is not {TENSOR_FORM}")
    (length,) = _LENGTH.unpack_from(body, 4)
    end = 8 + length
    if length > MAX_HEADER_BYTES or end > len(body):
        raise BadRequest(
            f"a header of {length} bytes in a body of {len(body)}; it may have {MAX_HEADER_BYTES}, and ends before it"
        )
    view = memoryview(body)
    buffers = view[end + -end % 8 :]
    try:
        values = msgpack.unpackb(view[8:end], ext_hook=functools.partial(_array_at, buffers), use_list=False)
    except BadRequest:
        raise
    except (ValueError, msgpack.UnpackException, TypeError, RecursionError) as error:
        # TypeError: a key of a map that cannot be hashed.
        raise BadRequest(f"the header is no msgpack of a request: {type(error).__name__} {error}".rstrip()) from error
    if not isinstance(values, dict):
        raise BadRequest("the header is no map of fields")
    return values


def _array_at(buffers: memoryview, code: int, data: bytes) -> np.ndarray:
    """The array that an extension of the header stands for, as a view."""
    if code != ARRAY:
        raise BadRequest(f"msgpack's extension {code} means nothing here")
    dtype = DTYPES.get(data[:3])
    dimensions, rest = divmod(len(data) - 11, 8)
    if dtype is None or rest or not 0 <= dimensions <= MAX_DIMENSIONS:
        raise BadRequest(f"an array is told as dtype, begin and up to {MAX_DIMENSIONS} sizes, not as {data[:32]!r}")
    begin, *shape = struct.unpack_from(f"<{1 + dimensions}Q", data, 3)
    size = math.prod(shape)
    if begin % 8 or begin + size * dtype.itemsize > len(buffers):
        raise BadRequest(f"an array of {shape} {dtype} at {begin}; behind the header are {len(buffers)} bytes")
    if size == 0:
        if math.prod(length or 1 for length in shape) > 1 << 40:  # numpy counts no further than 2**63
            raise BadRequest(f"an array of {shape}, which has no elements")
        return np.zeros(shape, dtype)
    array: np.ndarray = np.ndarray(shape, dtype, buffers, begin)
    return array


def write_tensors(values: Mapping[str, Any]) -> bytes:
    """The inverse of ``read_tensors``.

    Raises:
      TypeError: an array is of something else than numbers.
    """
    buffers: list[Any] = []
    begin = 0

    def placed(array: Any) -> msgpack.ExtType:
        nonlocal begin
        if not (isinstance(array, np.ndarray) and array.dtype in _CODES):
            array = _little_endian(array)
        told = _CODES[array.dtype] + struct.pack(f"<{1 + array.ndim}Q", begin, *array.shape)
        padding = -array.nbytes % 8
        buffers.extend((np.ascontiguousarray(array), bytes(padding)))
        begin += array.nbytes + padding
        return msgpack.ExtType(ARRAY, told)

    header = msgpack.packb(values, default=placed)
    return b"".join((MAGIC, _LENGTH.pack(len(header)), header, bytes(-len(header) % 8), *buffers))


def _little_endian(array: Any) -> np.ndarray:
    """An array as it travels, of one that lies otherwise in memory; raises TypeError if it cannot."""
    dtype = array.dtype.newbyteorder("<") if isinstance(array, np.ndarray) else None
    if dtype not in _CODES:
        raise TypeError(f"{type(array).__name__} {getattr(array, 'dtype', '')} does not travel: numbers do")
    turned: np.ndarray = array.astype(dtype)
    return turned


assert MISSING is _DEFAULTS["observations"], "the one field that a request must have"
