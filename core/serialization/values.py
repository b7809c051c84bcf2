"""How values become bytes and come back.

A value becomes `Serialized`: a short byte string, and beside it the large buffers (array memory) as views that nobody
has copied yet. Whoever stores or sends it copies them once, to where they shall be. Pickle protocol 5, by cloudpickle
where plain pickle would not do.

    RAW      exactly ``bytes``; they are the data
    PICKLE   anything else
    ARRAY    a plain numeric ndarray: data is its header, the one buffer its memory (in the header, if it is small)
    FLAT     a tuple, a list or a plain object, of simple items and small arrays (flat.py)
    REFS     anything else with refs inside: data is the pickled value, in which they are numbers, and behind it the
             table of the refs; all of them are made at once, before the value is loaded
    FAILURE  a pickled exception (failures.py); `deserialize` returns it and the caller raises it

Invariants: `deserialize` gives fresh containers every time and read-only arrays, whatever their size, so that a value
behaves the same whether it came in a message or lies in shared memory. (Arrays of Python objects and subclasses of
ndarray are containers in this sense.) The buffers of `Serialized` alias the caller's value: use or copy them before
the caller can go on.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import attrgetter, getitem
from typing import Any, ClassVar, Literal, cast

import cloudpickle
import numpy as np

from .. import refs as references
from ..refs import ObjectRef
from .flat import NUMERIC, flatten, folded, has_only_attributes, is_named, is_small, unflatten
from .reducers import learn_tensors, reducers
from .tensors import StorageBytes
from .unpicklable import Search, describe_culprit, describe_root

RAW = 0
PICKLE = 1
FAILURE = 2
ARRAY = 3
REFS = 4
FLAT = 5

Buffer = bytes | bytearray | memoryview
_Array = np.ndarray[Any, Any]

PROTOCOL = 5
#: Exact types which C pickle alone writes as cloudpickle would.
_LEAVES = frozenset({type(None), bool, int, float, complex, str})
_ITEMS = _LEAVES | {bytes}
_ITEMS_AND_ARRAYS = _ITEMS | {np.ndarray}
#: Attribute of a class, true where its instances hold nothing but such items, arrays of numbers, and containers of
#: these: no refs, and nothing that plain pickle would write by name and cloudpickle by value.
PLAIN_MARK = "__shoal_plain__"
#: Above this, looking at each item costs more than the 1.5 us of a cloudpickle pickler.
_MAX_SCANNED = 64
_DATES = frozenset("mM")
#: So much memory of small arrays goes into the stream of one value, where it is there three times for a while: in its
#: array, in the pickler's hand and in the stream. The small arrays behind it have buffers, as large ones.
_MOST_FOLDED_BYTES = 16 << 20

#: Bytes at the end of REFS that say how long its table is.
_LENGTH_BYTES = 4

_dumps = pickle.dumps
_loads = pickle.loads


@dataclass(slots=True)
class Serialized:
    """A value as bytes."""

    kind: int  #: RAW, PICKLE, FAILURE, ARRAY, REFS or FLAT
    data: bytes
    buffers: list[memoryview]  #: one-dimensional, contiguous, format "B"; alias the value
    refs: list[ObjectRef[Any]]  #: the refs inside the value, kept alive
    seen: bool = False  #: of a failure: somebody has got it

    @property
    def nbytes(self) -> int:
        if not self.buffers:
            return len(self.data)  # nearly always, and for each result of each task
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)

    def owned(self) -> Serialized:
        """The same with buffers of its own, for who keeps it after the caller goes on and may change the value."""
        if not self.buffers:
            return self
        return Serialized(self.kind, self.data, [memoryview(bytes(buffer)) for buffer in self.buffers], self.refs)


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not annotated
    """cloudpickle's pickler which takes refs out and writes the memory of all but small arrays out of band.

    Args:
      buffer_callback: receives each ``pickle.PickleBuffer``; None writes them into the stream.
      table: what stands for the table of refs, which `deserialize` then needs; None writes the refs into the stream.
    """

    def __init__(
        self,
        file: BytesIO,
        buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
        *,
        table: TableInHand | None = None,
    ) -> None:
        super().__init__(file, PROTOCOL, buffer_callback)
        self._room = 0 if buffer_callback is None else _MOST_FOLDED_BYTES  # for small arrays, in the stream
        self._table = table
        self.refs: list[ObjectRef[Any]] = []
        self._storages: dict[int, StorageBytes] = {}
        learn_tensors()

    def reducer_override(self, obj: Any) -> object:
        kind = type(obj)
        if kind is ObjectRef:
            self.refs.append(obj)
            if self._table is None:
                return references.rebuild, (obj.binary(), obj.owner)
            return getitem, (self._table, len(self.refs) - 1)
        if kind is np.ndarray:
            if self._room > 0 and is_small(obj):
                self._room -= obj.nbytes
                return _reduce_small_array(obj)
            return _reduce_whole_array(obj)
        reducer = reducers.get(kind)
        if reducer is not None:
            reduced = reducer(obj, self._storages)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced
        return super().reducer_override(obj)


def serialize(value: Any) -> Serialized:  # not object: its exact type says what can be done with it
    """The value as bytes.

    Raises:
      TypeError: something in the value cannot be pickled; the message says where it is and the pickler's error is the
        cause.
    """
    kind = type(value)
    if kind in _LEAVES:
        return Serialized(PICKLE, _dumps(value, PROTOCOL), [], [])
    if kind is bytes:
        return Serialized(RAW, value, [], [])
    if kind is np.ndarray:
        if value.dtype.char in NUMERIC:
            return _serialize_array(value)
    elif kind is tuple or kind is list:
        sequence = _serialize_sequence(value)
        if sequence is not None:
            return sequence
    elif kind is dict and (
        len(value) <= _MAX_SCANNED
        and _ITEMS.issuperset(map(type, value.values()))
        and _ITEMS.issuperset(map(type, value))
    ):
        return Serialized(PICKLE, _dumps(value, PROTOCOL), [], [])
    elif getattr(kind, PLAIN_MARK, False):
        return _serialize_marked(value)
    buffers: list[pickle.PickleBuffer] = []
    data, refs = dump(value, buffers.append, table=TableInHand())
    raw = [buffer.raw() for buffer in buffers]
    if not refs:
        return Serialized(PICKLE, data, raw, refs)
    table = _dumps([(owner, [*references.object_ids(run)]) for owner, run in groupby(refs, _owner_of)], PROTOCOL)
    return Serialized(REFS, b"".join((data, table, len(table).to_bytes(_LENGTH_BYTES, "little"))), raw, refs)


def are_simple(parts: Sequence[object]) -> bool:
    """Whether a tuple or a list of these is taken apart by C code alone: a few items, and arrays."""
    return len(parts) < _MAX_SCANNED and _ITEMS_AND_ARRAYS.issuperset(map(type, parts))


def deserialize(kind: int, data: Buffer, buffers: Sequence[Buffer] = ()) -> object:
    """The value that `serialize` made bytes of; arrays are read-only, and lie in `buffers`, uncopied, unless small.

    Raises:
      ValueError: `kind` is none of ours.
      Exception: whatever the value's classes raise while they load, for instance ModuleNotFoundError.
    """
    if kind in (PICKLE, FAILURE):
        return _loads(data, buffers=[memoryview(buffer).toreadonly() for buffer in buffers])
    if kind == FLAT:
        return unflatten(data)
    if kind == ARRAY:
        dtype, shape, order, memory = _loads(data)
        if memory is None:
            memory = memoryview(buffers[0]).toreadonly()
        return np.ndarray(shape, dtype, memory, 0, None, order)
    if kind == RAW:
        return data if type(data) is bytes else bytes(data)
    if kind == REFS:
        return _load_with_refs(memoryview(data), [memoryview(buffer).toreadonly() for buffer in buffers])
    raise ValueError(f"{kind} is no kind of serialized value: it is none of RAW, PICKLE, FAILURE, ARRAY, REFS, FLAT")


class TableInHand:
    """Stands in a pickled value for the table of the refs that `deserialize` has in hand while it loads the value."""

    def __reduce__(self) -> tuple[Callable[[], list[ObjectRef[Any]]], tuple[()]]:
        return _table_in_hand, ()


class _Loading(threading.local):
    """What a thread is loading."""

    refs: list[ObjectRef[Any]] = []  # noqa: RUF012  replaced, never changed


_loading = _Loading()
_owner_of = attrgetter("owner")


def _table_in_hand() -> list[ObjectRef[Any]]:
    return _loading.refs


def _load_with_refs(data: memoryview, buffers: list[memoryview]) -> object:
    at = len(data) - _LENGTH_BYTES
    at -= int.from_bytes(data[at:], "little")
    refs: list[ObjectRef[Any]] = []
    for owner, object_ids in _loads(data[at:-_LENGTH_BYTES]):
        refs += references.rebuild_all(object_ids, owner)
    around, _loading.refs = _loading.refs, refs  # code of the value's classes may load other values meanwhile
    try:
        return _loads(data, buffers=buffers)  # ends before the table
    finally:
        _loading.refs = around


def dump(
    value: object,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
    *,
    table: TableInHand | None = None,
) -> tuple[bytes, list[ObjectRef[Any]]]:
    """Pickle `value` with `ValuePickler`.

    Returns:
      The stream and the refs in it.

    Raises:
      TypeError: as `serialize`.
    """
    file = BytesIO()
    pickler = ValuePickler(file, buffer_callback, table=table)
    try:
        pickler.dump(value)
    except MemoryError:
        raise
    except Exception as error:  # __reduce__ and __getstate__ are the user's code and may raise anything
        search = Search(why_not, most=3)
        search.look(value, (describe_root(value),))
        trace = "\n".join(search.lines)
        raise TypeError(f"Could not serialize {describe_culprit(value, _is_picklable)}: {error}\n{trace}") from error
    return file.getvalue(), pickler.refs


def _is_picklable(value: object) -> bool:
    return not why_not(value)


def why_not(value: object) -> str:
    """Why `value` cannot be pickled; empty if it can."""
    try:
        ValuePickler(BytesIO(), _discard).dump(value)
    except Exception as error:  # noqa: BLE001  this is the question
        return str(error) or type(error).__name__
    return ""


def _discard(_buffer: pickle.PickleBuffer) -> None:
    """Out of band, and not kept."""


def _is_plain(item: object) -> bool:
    """Whether one of ``_ITEMS_AND_ARRAYS`` is an item, or an array of numbers."""
    return type(item) is not np.ndarray or item.dtype.char in NUMERIC


def _serialize_sequence(value: Any) -> Serialized | None:
    """A tuple or a list of few items and arrays; None: of others."""
    if len(value) > _MAX_SCANNED:
        return None
    if _ITEMS.issuperset(map(type, value)):
        return Serialized(PICKLE, _dumps(value, PROTOCOL), [], [])
    if not _ITEMS_AND_ARRAYS.issuperset(map(type, value)):
        return None
    stream = flatten(value, value)
    if stream is not None:
        return Serialized(FLAT, stream, [], [])
    return _serialize_plainly(value) if all(map(_is_plain, value)) else None


def _serialize_marked(value: Any) -> Serialized:
    """An object that is plain by its own word."""
    kind: Any = type(value)
    parts = value.__dict__.values() if has_only_attributes(kind) and is_named(kind) else ()
    if 0 < len(parts) <= _MAX_SCANNED and _ITEMS_AND_ARRAYS.issuperset(map(type, parts)):
        stream = flatten(value, tuple(parts))
        if stream is not None:
            return Serialized(FLAT, stream, [], [])
    return _serialize_plainly(value)


def _serialize_plainly(value: object) -> Serialized:
    """Without cloudpickle, which asks Python code about every object: a third of the time."""
    file = BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _PlainPickler(file, PROTOCOL, buffer_callback=buffers.append).dump(value)
    return Serialized(PICKLE, file.getvalue(), [buffer.raw() for buffer in buffers], [])


def _serialize_array(array: _Array) -> Serialized:
    # numpy's own way through pickle costs 4.0 us here and 2.4 us to load; this one 1.4 us and 1.1 us.
    if is_small(array):
        return Serialized(ARRAY, _dumps(folded(array), PROTOCOL), [], [])
    array, order = _contiguous(array)
    header = _dumps((array.dtype.str, array.shape, order, None), PROTOCOL)
    return Serialized(ARRAY, header, [_buffer(array).raw()], [])


def _reduce_array(array: _Array) -> object:
    return _reduce_small_array(array) if is_small(array) else _reduce_whole_array(array)


def _reduce_small_array(array: _Array) -> object:
    dtype, shape, order, memory = folded(array)
    return np.ndarray, (shape, dtype, memory, 0, None, order)


def _reduce_whole_array(array: _Array) -> object:
    if array.dtype.char in NUMERIC:
        array, order = _contiguous(array)
        return np.ndarray, (array.shape, array.dtype.str, _buffer(array), 0, None, order)
    if array.dtype.hasobject:
        return NotImplemented
    array, _ = _contiguous(array)
    if array.dtype.kind in _DATES:  # numpy exports no buffer of dates and would write them, writeable, into the stream
        return _view_as, (array.view(np.int64), array.dtype)
    return array.__reduce_ex__(PROTOCOL)


class _PlainPickler(pickle.Pickler):
    """Asks nobody but C code about anything but arrays."""

    dispatch_table: ClassVar[dict[type, Callable[[_Array], object]]] = {np.ndarray: _reduce_array}  # type: ignore[assignment,misc]


def _buffer(array: _Array) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(
        cast("memoryview", array)
    )  # an ndarray is a buffer, which types can say from Python 3.12


def _view_as(array: _Array, dtype: np.dtype[Any]) -> _Array:
    return array.view(dtype)


def _contiguous(array: _Array) -> tuple[_Array, Literal["C", "F"]]:
    flags = array.flags
    if flags.c_contiguous:
        return array, "C"
    if flags.f_contiguous:
        return array, "F"
    return np.ascontiguousarray(array), "C"
