"""Where code runs on a Ray cluster: what each call, thread and process is told of itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

import shoal

pytestmark = pytest.mark.ray
SOON_S = 60


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """A Ray of this file's own."""
    small = 80 * 1024 * 1024
    shoal.init(engine="ray", address="local", num_cpus=2, resources={"custom": 2}, object_store_memory=small)
    yield
    shoal.shutdown()


@shoal.remote(max_concurrency=2, resources={"custom": 1})
class Both:
    """Two calls of it run at once."""

    def __init__(self) -> None:
        self.meet = threading.Barrier(2)

    def look(self) -> tuple[str | None, dict[str, float]]:
        self.meet.wait(SOON_S)
        context = shoal.get_runtime_context()
        return context.get_task_id(), context.get_assigned_resources()


def test_calls_that_run_at_once_are_told_apart():
    actor = Both.remote()
    refs = [actor.look.remote() for _ in range(2)]
    found = shoal.get(refs, timeout=SOON_S)
    assert {task_id for task_id, _ in found} == {ref.task_id().hex() for ref in refs}
    assert all(held["custom"] == 1 for _, held in found)


def test_each_task_of_a_process_holds_its_own():
    @shoal.remote
    def held() -> dict[str, float]:
        return shoal.get_runtime_context().get_assigned_resources()

    for amounts in ({"CPU": 1.0}, {"CPU": 0.5}, {"CPU": 1.0}):
        assert shoal.get(held.options(num_cpus=amounts["CPU"]).remote(), timeout=SOON_S) == amounts


def test_the_session_has_a_directory_that_workers_know():
    @shoal.remote
    def directory() -> str:
        context = shoal.get_runtime_context()
        return os.path.join(context.get_temp_dir(), context.get_session_name())

    here = shoal.get_runtime_context()
    assert shoal.get(directory.remote(), timeout=SOON_S) == os.path.join(here.get_temp_dir(), here.get_session_name())
    assert os.path.isdir(shoal.get(directory.remote(), timeout=SOON_S))
