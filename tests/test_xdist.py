"""shoal under pytest-xdist: every test process has sessions of its own, side by side."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("xdist", reason="pip install -e '.[dev]'")

INNER = """
import os
import pytest
import shoal

@pytest.fixture(scope="module", autouse=True)
def session():
    with shoal.init(num_cpus=1, namespace="same"):
        yield

@shoal.remote(num_cpus=0)
class Named:
    def driver(self):
        return self.pid
    def __init__(self, pid):
        self.pid = pid

@pytest.mark.parametrize("number", range(3))
def test_each_process_sees_its_own_session(number):
    actor = Named.options(name=f"actor {number}").remote(os.getpid())
    assert shoal.get(shoal.get_actor(f"actor {number}").driver.remote(), timeout=30) == os.getpid()
    assert shoal.get([shoal.put(number), shoal.remote(abs).remote(-number)], timeout=30) == [number, number]

def test_it_is_a_process_of_xdist():
    assert os.environ["PYTEST_XDIST_WORKER"].startswith("gw")
"""


def test_tests_run_beside_each_other(tmp_path):
    (tmp_path / "test_inner.py").write_text(INNER)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "test_inner.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout
