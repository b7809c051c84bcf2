"""Exceptions as parts: read and put together again without running any code of their class.

Pickle makes an exception by calling its class with ``args``, which fails for every class whose constructor wants
something else. Here ``args``, C-level members, slots and ``__dict__`` are read one by one and set one by one.

Used where a failure is sent (`serialization.failures`) and where it becomes an instance of its cause (`errors`).
"""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

#: What `take_apart` gives and `put_together` takes: ``args``, values of C-level members and slots, ``__dict__``.
Parts = tuple[tuple[object, ...], dict[str, object], dict[str, object]]

MISSING = object()
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes made by a class statement, not for those written in C


def take_apart(error: BaseException) -> Parts:
    """The state of an exception, read without any method of its class."""
    members: dict[str, object] = {}
    for cls in type(error).__mro__:
        if cls is BaseException:
            break  # what is left belongs to the raising: __traceback__, __context__
        for name, descriptor in vars(cls).items():
            if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                value = _read(descriptor, error)
                if value is not MISSING:
                    members.setdefault(name, value)
    return error.args, members, dict(vars(error))


def put_together(
    cls: type[BaseException], args: tuple[object, ...], members: dict[str, object], attributes: dict[str, object]
) -> BaseException:
    """An exception of class `cls` in the state that `take_apart` read, made without ``cls.__init__``, ``__new__`` or
    ``__setstate__``.

    Constructors with required keywords, or which put something else than their arguments into ``args``, are the
    common reason why exceptions do not survive pickle.

    Raises:
      TypeError: the C base of `cls` cannot be made from `args`.
    """
    native: Any = next(
        base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE and issubclass(base, BaseException)
    )
    error: BaseException = native.__new__(cls, *args)
    error.args = args
    for base in cls.__mro__:
        for name, descriptor in vars(base).items():
            if name in members and isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)):
                _write(descriptor, error, members[name])
    vars(error).update(attributes)
    return error


def _read(descriptor: MemberDescriptorType | GetSetDescriptorType, error: BaseException) -> object:
    try:
        return descriptor.__get__(error)
    except AttributeError:  # a slot that was never filled
        return MISSING


def _write(descriptor: MemberDescriptorType | GetSetDescriptorType, error: BaseException, value: object) -> None:
    try:
        descriptor.__set__(error, value)
    except (AttributeError, TypeError):  # read-only, as the exceptions of a group: __new__ has set it from the args
        if descriptor.__get__(error) != value:
            raise
