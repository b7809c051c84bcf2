"""The same files on every engine. One session for each file and engine: a shared one shows what earlier tests leave.

A test that is about processes says so, with the reason, and runs on native alone:

    @pytest.mark.native_only("kills its process")
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import shoal

ENGINES = ("native", "inline", pytest.param("ray", marks=pytest.mark.ray))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "native_only(reason): what it tests needs processes; left out on other engines")
    config.addinivalue_line("markers", "not_on_ray(reason): holds on shoal's own engines and cannot on a Ray cluster")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    engines = ENGINES
    for name, count in (("not_on_ray", 2), ("native_only", 1)):
        marker = metafunc.definition.get_closest_marker(name)
        assert marker is None or marker.args, f"{metafunc.definition.nodeid}: {name} needs a reason"
        engines = engines if marker is None else engines[:count]
    metafunc.parametrize("session", engines, indirect=True, scope="module")


@pytest.fixture(autouse=True)
def _the_test_runner_lives(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where work runs in this process, work that kills its process would end the whole run without a word."""
    if session != "inline":
        return
    kill = os.kill

    def checked(pid: int, number: int) -> None:
        assert pid != os.getpid(), "this would kill the test runner: mark the test native_only"
        kill(pid, number)

    monkeypatch.setattr(os, "kill", checked)


@pytest.fixture(scope="module", autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session on the engine whose name is the parameter."""
    shoal.init(num_cpus=2, object_store_memory=512 * 1024 * 1024, engine=request.param)
    yield request.param
    shoal.shutdown()
