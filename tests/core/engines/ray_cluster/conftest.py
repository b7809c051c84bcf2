"""Ray nodes to connect to. Each is this test run's own and ended by its process, for others may run Ray here, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shoal
from shoal.core.engines.ray_cluster import addresses

#: Drivers are told nothing of a token, and Ray's own words are few.
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
START_S = 60.0

Driver = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_python(place: Path) -> Path:
    """An interpreter that has every library of this one, and not shoal, however that is installed here."""
    venv.create(place, with_pip=False, symlinks=True)
    target = next(place.glob("lib/python*/site-packages"))
    for folder in map(Path, sys.path):
        if folder.name not in ("site-packages", "dist-packages") or not folder.is_dir():
            continue
        for entry in folder.iterdir():
            link = target / entry.name
            is_ours = "shoal" in entry.name
            if not is_ours and entry.suffix != ".pth" and entry.name != "__pycache__" and not link.exists():
                link.symlink_to(entry)
    return place / "bin" / "python"


@pytest.fixture(scope="session")
def clean_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clean_python` in a folder of the test run."""
    python = clean_python(tmp_path_factory.mktemp("clean"))
    tried = subprocess.run(
        [python, "-c", "import ray, numpy, msgpack, cloudpickle, gymnasium, shoal"],
        capture_output=True, text=True, timeout=60, check=False, env=without_path(),
    )  # fmt: skip
    assert "No module named 'shoal'" in tried.stderr
    return python


def without_path() -> dict[str, str]:
    """The environment, without what lets Python find shoal."""
    return {name: value for name, value in {**os.environ, **QUIET}.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="session")
def clean_node(clean_interpreter: Path) -> Iterator[str]:
    """The address of a Ray node whose machine, so to say, has no shoal."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # short: sockets lie in it
        command = [
            str(clean_interpreter), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0",
            f"--temp-dir={folder}", "--num-cpus=2", "--object-store-memory=200000000", "--include-dashboard=false",
        ]  # fmt: skip
        with tempfile.TemporaryFile("w+") as said:
            node = subprocess.Popen(command, cwd=folder, env=without_path(), stdout=said, stderr=said, text=True)
            try:
                deadline_s = time.monotonic() + START_S
                while (address := addresses.recorded(folder)) is None:
                    said.seek(0)
                    assert node.poll() is None, f"ray start ended with {node.returncode}: {said.read()}"
                    assert time.monotonic() < deadline_s, f"ray start took over {START_S:g} s: {said.read()}"
                    time.sleep(0.1)
                yield address
            finally:
                node.send_signal(signal.SIGTERM)
                try:
                    node.wait(30)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """Run a program as a driver of its own: `driver(program, *arguments, **variables)`."""
    place = tmp_path / "path"
    place.mkdir()
    (place / "shoal").symlink_to(Path(shoal.__path__[0]).resolve())

    def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
            env={**os.environ, **QUIET, "PYTHONPATH": str(place), **variables},
        )  # fmt: skip

    return run


@pytest.fixture
def short_folder() -> Iterator[str]:
    """A folder whose path leaves room for the names of sockets."""
    folder = tempfile.mkdtemp(prefix="ray-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
