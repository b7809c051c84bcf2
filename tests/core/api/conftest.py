"""The same files on every engine. One session for each file and engine: a shared one shows what earlier tests leave.

A test that cannot hold on all of them says so, with the reason:

    @pytest.mark.not_inline("kills its process")       needs processes: left out where there are none
    @pytest.mark.not_on_ray("...")                     holds on shoal's own engines and not on a Ray cluster
    @pytest.mark.native_only("...")                    both
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import shoal

ENGINES = ("native", "inline", pytest.param("ray", marks=pytest.mark.ray))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "native_only(reason): holds on the engine of shoal's own processes alone")
    config.addinivalue_line("markers", "not_inline(reason): needs processes; left out on the inline engine")
    config.addinivalue_line("markers", "not_on_ray(reason): holds on shoal's own engines and cannot on a Ray cluster")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    left_out: set[int] = set()
    for name, numbers in (("not_inline", {1}), ("not_on_ray", {2}), ("native_only", {1, 2})):
        marker = metafunc.definition.get_closest_marker(name)
        assert marker is None or marker.args, f"{metafunc.definition.nodeid}: {name} needs a reason"
        left_out |= numbers if marker is not None else set()
    engines = [engine for number, engine in enumerate(ENGINES) if number not in left_out]
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
    shoal.init(num_cpus=2, object_store_memory=512 * 1024 * 1024, engine=request.param, address="local")
    yield request.param
    shoal.shutdown()
