"""`inspect_serializability` finds what is to blame, and `put` says it."""

from __future__ import annotations

import io
import threading

import pytest

import shoal
from shoal.util import inspect_serializability


class Service:
    def __init__(self):
        self.lock = threading.Lock()
        self.parts = [1, {"inner": threading.Lock()}]
        self.fine = "text"


def test_all_parts_to_blame_are_found_with_their_paths():
    out = io.StringIO()
    service = Service()
    fine, failures = inspect_serializability(service, name="service", print_file=out)
    assert not fine
    assert {failure.path for failure in failures} == {
        ("service", "lock"),
        ("service", "parts", "[1]", "['inner']"),
    }
    by_name = {failure.name: failure for failure in failures}
    assert by_name["lock"].obj is service.lock
    assert by_name["lock"].parent is service
    assert "path=service -> lock" in repr(by_name["lock"])
    told = out.getvalue().splitlines()
    assert told[0].startswith("service: a ")
    assert "    lock: a _thread.lock: cannot pickle '_thread.lock' object" in told
    assert "fine" not in out.getvalue()


def test_what_a_function_captures_is_looked_at(capsys):
    lock = threading.Lock()

    def work():
        return lock

    fine, (failure,) = inspect_serializability(work)
    assert not fine
    assert failure.obj is lock
    assert "captured variable 'lock'" in capsys.readouterr().out


def test_what_can_be_sent_prints_nothing(capsys):
    assert inspect_serializability({"a": [1]}) == (True, set())
    assert capsys.readouterr().out == ""


def test_the_depth_can_be_limited():
    _, (failure,) = inspect_serializability([[[threading.Lock()]]], depth=1, print_file=io.StringIO())
    assert failure.path == ("value", "[0]")


def test_rings_end():
    ring = [threading.Lock()]
    ring.append(ring)
    _, failures = inspect_serializability(ring, print_file=io.StringIO())
    assert [failure.path for failure in failures] == [("value", "[0]")]


def test_put_says_where_it_is():
    with shoal.init(engine="inline"), pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock'") as caught:
        shoal.put(Service())
    assert "    lock: a _thread.lock" in str(caught.value)
    assert "['inner']: a _thread.lock" in str(caught.value)
