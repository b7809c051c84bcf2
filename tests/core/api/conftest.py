"""The same files on every engine. One session for each file and engine: a shared one shows what earlier tests leave.

A test that is about processes says so, with the reason, and runs on native alone:

    @pytest.mark.native_only("kills its process")
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import shoal

ENGINES = ("native", "inline")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "native_only(reason): what it tests needs processes; left out on other engines")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("native_only")
    assert marker is None or marker.args, f"{metafunc.definition.nodeid}: native_only needs a reason"
    metafunc.parametrize("session", ENGINES if marker is None else ENGINES[:1], indirect=True, scope="module")


@pytest.fixture(autouse=True)
def _the_test_runner_lives(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where work runs in this process, work that kills its process would end the whole run without a word."""
    if session == "native":
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
