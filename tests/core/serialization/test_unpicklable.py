"""The way to the part of a value that cannot be pickled. Picklable here: whatever does not contain `POISON`."""

from __future__ import annotations

import functools

import cloudpickle
import pytest

from shoal.core.serialization.unpicklable import Search, describe_culprit


class Poison:
    def __reduce__(self):
        raise RuntimeError("poison")


POISON = Poison()


def is_picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001  this is the question
        return False
    return True


class Holder:
    shared = None

    def __init__(self, **parts: object) -> None:
        vars(self).update(parts)

    def method(self) -> None: ...


def captures(poison: object):
    def inner() -> object:
        return poison

    return inner


def uses_global() -> object:
    return POISON


def with_default(item: object = POISON) -> object:
    return item


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (POISON, "value (a "),
        ([0, [POISON]], "value[1][0] (a "),
        ({"a": {"b": POISON}}, "value['a']['b'] (a "),
        (Holder(x=1, y=Holder(z=POISON)), "value.y.z (a "),
        (Holder(x=POISON).method, "value.__self__.x (a "),
        (captures(POISON), "function captures.<locals>.inner -> captured variable 'poison' (a "),
        (uses_global, "function uses_global -> global 'POISON' (a "),
        (with_default, "function with_default -> default 0 (a "),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,  # no addresses: xdist compares them
)
def test_the_way_to_the_culprit_is_said(value, expected):
    assert describe_culprit(value, is_picklable).startswith(expected)
    assert "Poison)" in describe_culprit(value, is_picklable)


def test_the_class_attribute_that_cannot_be_pickled_is_named():
    class Bad:
        shared = POISON

    assert "type" not in describe_culprit(Bad, is_picklable)
    assert ".shared (a " in describe_culprit(Bad, is_picklable)


def test_a_value_that_contains_itself_does_not_loop():
    ring: list[object] = []
    ring.append(ring)
    assert describe_culprit(ring, lambda _: False).startswith("value (a list")


def test_where_the_way_ends_the_last_part_is_named():
    value = functools.partial(print, POISON)
    assert describe_culprit(value, is_picklable) == "value (a functools.partial)"


class Refuses:
    def __init__(self) -> None:
        self.engine = Holder(x=POISON)

    def __reduce__(self):
        raise TypeError("it stays here")


def test_an_object_that_refuses_by_itself_is_to_blame_and_what_it_holds_is_not_looked_at():
    tried: list[object] = []

    def reason(value: object) -> str:
        tried.append(value)
        return "" if is_picklable(value) else "cannot"

    refusing = Refuses()
    search = Search(reason)
    search.look([refusing], ("value",))
    assert [failure.obj for failure in search.failures] == [refusing]
    assert describe_culprit([refusing], is_picklable).startswith("value[0] (a ")
    assert refusing.engine not in tried
