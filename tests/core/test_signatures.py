"""What a call of a function or method is held against."""

from __future__ import annotations

import pytest

from shoal.core.signatures import parameters_of


def plain(a, *, b=1): ...


def wrapper(*args, **kwargs): ...


@pytest.mark.parametrize(
    ("function", "bound", "names"),
    [
        (plain, False, ["a", "b"]),
        (plain, True, ["b"]),
        (wrapper, False, ["args", "kwargs"]),
        (wrapper, True, ["args", "kwargs"]),
        (lambda: None, True, []),
    ],
)
def test_a_method_is_given_its_object_in_a_parameter_of_its_own_or_among_args(function, bound, names):
    assert [parameter.name for parameter in parameters_of(function, bound=bound)] == names


def test_some_builtins_tell_nothing():
    with pytest.raises(ValueError, match="no signature"):
        parameters_of(dict.update, bound=True)
