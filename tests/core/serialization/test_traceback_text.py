"""Texts of exceptions: Python's own, whether they are made or remembered."""

from __future__ import annotations

import builtins
import importlib
import linecache
import sys
import traceback
import types

import pytest

from shoal.core.errors import ObjectLostError
from shoal.core.serialization import traceback_text
from shoal.core.serialization.traceback_text import told


def deep(levels):
    if levels:
        deep(levels - 1)
    raise ValueError("deep")


def misspelt():
    sister = 1
    return sistre + sister  # noqa: F821


def cause():
    try:
        deep(0)
    except ValueError as error:
        raise KeyError("because") from error


def context():
    try:
        deep(0)
    except ValueError:
        raise KeyError("meanwhile")  # noqa: B904


def suppressed():
    try:
        deep(0)
    except ValueError:
        raise KeyError("alone") from None


def noted():
    error = ValueError("two\nlines")
    if sys.version_info >= (3, 11):
        error.add_note("a note")
    raise error


def either(first):
    if first:
        raise ValueError("the same")
    raise ValueError("the same")


def group(base):
    raise base("many", [ValueError("one"), KeyError("other")])


def caught(function, *args):
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("it did not raise")


def literal(error):
    """What Python makes of it."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return "".join(lines).removeprefix("Traceback (most recent call last):\n").rstrip("\n")


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (deep, (0,)),
        (deep, (3,)),
        (deep, (100,)),
        (misspelt, ()),
        (cause, ()),
        (context, ()),
        (suppressed, ()),
        (noted, ()),
        (compile, ("a b", "f", "eval")),
    ],
)
def test_the_text_is_pythons_the_first_time_and_the_second(function, args):
    for _ in range(2):
        error = caught(function, *args)
        assert told(error, ran=True) == literal(error)


def test_two_lines_of_a_function_that_raise_the_same_are_told_apart():
    texts = [told(caught(either, first), ran=True) for first in (True, False, True)]
    assert texts[0] == texts[2] != texts[1]


def test_lines_of_a_traceback_made_by_hand_are_told_apart():
    for line in range(1, 4):
        error = caught(deep, 0)
        frame = error.__traceback__.tb_next
        error.__traceback__ = types.TracebackType(None, frame.tb_frame, frame.tb_lasti, line)
        assert told(error, ran=True) == literal(error)


def test_a_group_is_told_with_what_is_in_it_also_where_python_has_none():
    groups = builtins if sys.version_info >= (3, 11) else importlib.import_module("exceptiongroup")  # pytest has it
    for _ in range(2):
        error = caught(group, groups.ExceptionGroup)
        text = told(error, ran=True)
        assert "KeyError: 'other'" in text
        assert text == literal(error)


def test_functions_that_differ_only_in_their_file_are_told_apart():
    def made(file):
        names = {}
        exec(compile("def fail():\n    raise ValueError('same')\n", file, "exec"), names)  # noqa: S102
        return names["fail"]

    for file in ("one.py", "two.py"):
        assert f'"{file}"' in told(caught(made(file)), ran=True)


def test_an_exception_that_was_never_raised_is_its_message():
    assert told(ValueError("text"), ran=True) == "ValueError: text"


def test_what_is_raised_again_and_again_is_looked_up_and_not_read_from_the_disk(monkeypatch):
    first = told(caught(deep, 2), ran=True)
    monkeypatch.setattr(linecache, "checkcache", lambda *_: pytest.fail("it looked at the file"))
    assert told(caught(deep, 2), ran=True) == first


def test_an_error_of_the_runtime_before_a_task_ran_is_that_of_an_argument_each_time():
    for _ in range(2):
        text = told(ObjectLostError("abc"), ran=False)
        assert text.startswith("At least one of the input arguments")


def test_only_so_many_texts_are_kept():
    traceback_text._kept.clear()
    for number in range(traceback_text._MOST_KEPT + 5):
        names = {}
        exec(compile("def fail():\n    raise ValueError('x')\n", f"{number}.py", "exec"), names)  # noqa: S102
        told(caught(names["fail"]), ran=True)
        assert len(traceback_text._kept) <= traceback_text._MOST_KEPT
