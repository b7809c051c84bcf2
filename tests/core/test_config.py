"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import pytest

from shoal.core.config import from_environment


def test_overrides_come_before_the_environment_and_that_before_the_defaults():
    environ = {"SHOAL_CARRIER": "zmq", "SHOAL_STALL_S": "0.5"}
    config = from_environment({"stall_s": 0.25}, environ)
    assert (config.carrier, config.stall_s, config.pipeline_s) == ("zmq", 0.25, 0.005)


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ({"RAY_DEDUP_LOGS": "0"}, {"fold_output_s": 0.0}),
        ({"RAY_IGNORE_UNHANDLED_ERRORS": "1"}, {"report_unhandled_errors": 0}),
    ],
)
def test_switches_of_ray_mean_the_same_here(variable, setting):
    [(name, value)] = setting.items()
    assert getattr(from_environment({}, variable), name) == value
    assert getattr(from_environment({}, {}), name) != value


@pytest.mark.parametrize(
    ("overrides", "environ", "message"),
    [
        ({"unheard": 1}, {}, "unheard"),
        ({}, {"SHOAL_STALL_S": "soon"}, "SHOAL_STALL_S='soon'"),
        ({}, {"SHOAL_CARRIER": "pigeon"}, "'pigeon'; it can be 'unix' or 'zmq'"),
    ],
)
def test_what_is_no_setting_or_impossible_is_refused(overrides, environ, message):
    with pytest.raises(ValueError, match=message):
        from_environment(overrides, environ)


def test_without_epoll_the_unix_carrier_is_refused(monkeypatch):
    monkeypatch.delattr("select.epoll", raising=False)
    with pytest.raises(ValueError, match="epoll"):
        from_environment({"carrier": "unix"}, {})
