"""Workers are told by OMP_NUM_THREADS how many threads a library may start: as many as their work has CPUs.

Without it every worker of a machine with n CPUs starts n, and n workers with n threads each wait for one another.
"""

import os

import pytest

import shoal

not_inline = pytest.mark.not_inline("in one process there is one number of threads for all")


def threads() -> tuple[str | None, dict]:
    return os.environ.get("OMP_NUM_THREADS"), shoal.get_runtime_context().runtime_env


class Threads:
    def threads(self) -> str | None:
        return threads()[0]

    def of_a_task(self) -> str | None:
        return shoal.get(shoal.remote(threads).remote())[0]


@pytest.fixture(autouse=True)
def _not_said(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@not_inline
@pytest.mark.parametrize(("options", "expected"), [({}, "1"), ({"num_cpus": 2}, "2"), ({"num_cpus": 0.5}, "1")])
def test_work_may_start_as_many_threads_as_it_has_cpus(options, expected):
    task, actor = shoal.remote(threads), shoal.remote(Threads)
    if options:
        task, actor = task.options(**options), actor.options(**options)
    assert shoal.get(task.remote()) == (expected, {})
    assert shoal.get(actor.remote().threads.remote()) == expected


@not_inline
def test_the_number_is_not_handed_down_but_what_the_user_says_is():
    actor = shoal.remote(Threads).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "7"}}).remote()
    assert shoal.get([actor.threads.remote(), actor.of_a_task.remote()]) == ["7", "7"]
    del actor  # its CPU is wanted
    wide = shoal.remote(_task_in_a_task).options(num_cpus=2).remote()
    assert shoal.get(wide) == ("2", "1")


def _task_in_a_task() -> tuple[str | None, str | None]:
    return threads()[0], shoal.get(shoal.remote(threads).remote())[0]


def test_the_driver_is_left_alone():
    shoal.get(shoal.remote(threads).remote())
    assert "OMP_NUM_THREADS" not in os.environ
