"""What goes to a Ray cluster: the package's own files, and environments in Ray's words. No Ray is needed."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest

import shoal
from shoal.core.engines.ray_cluster import shipping
from shoal.core.environments.runtime_env import WantedEnvironment, wanted

ROOT = Path(shoal.__path__[0]).resolve()
GIVEN = {"env_vars": {"A": "1"}, "pip": ["x"], "working_dir": "s3://bucket/x.zip"}


def asked(**given: object) -> WantedEnvironment:
    found = wanted(given)
    assert found is not None
    return found


def test_the_files_that_are_shipped_are_those_of_the_packages_that_are_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = config["options"]["packages"].split()
    folders = {str(Path(path).parent) for path in shipping.package_files(ROOT)}
    assert folders == {name.replace("shoal.", "").replace(".", "/") if name != "shoal" else "." for name in packages}


def test_nothing_is_shipped_but_the_package(tmp_path):
    files = """
        __init__.py py.typed README.md .secret setup.cfg core/__init__.py core/table.bin core/.hidden
        core/__pycache__/a.pyc core/inner/__init__.py core/plain/data.py tests/test_a.py .venv/x/__init__.py
        build/lib/a.py
    """
    for name in files.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert shipping.package_files(tmp_path) == [
        "__init__.py",
        "core/__init__.py",
        "core/inner/__init__.py",
        "core/table.bin",
        "py.typed",
    ]


def test_the_folder_is_called_as_the_package_is_and_goes_when_it_was_read():
    with shipping.staged_package() as folder:
        assert os.path.basename(folder) == "shoal"
        assert Path(folder, "core", "api.py").read_bytes() == (ROOT / "core" / "api.py").read_bytes()
        assert sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) < 10_000_000
    assert not os.path.exists(os.path.dirname(folder))


def test_the_connection_gets_shoal_first_and_what_was_asked_for():
    with shipping.staged_package() as folder:
        assert shipping.job_environment(None, folder) == {"py_modules": [folder]}
        environment = shipping.job_environment(
            asked(**GIVEN, py_modules=["https://host/y.zip"], excludes=["*.bin"]), folder
        )
    assert environment == {**GIVEN, "py_modules": [folder, "https://host/y.zip"], "excludes": ["*.bin"]}


@pytest.mark.parametrize("pattern", ["*.py", "core", "engines/", "api.py"])
def test_excludes_that_would_take_a_part_of_shoal_are_refused(pattern):
    with shipping.staged_package() as folder, pytest.raises(ValueError, match=r"excludes.*would leave shoal/"):
        shipping.job_environment(asked(excludes=[pattern], working_dir="/"), folder)


def test_what_a_task_asks_for_is_said_in_rays_words_and_keeps_shoal():
    assert shipping.work_environment(asked(**GIVEN), {}) == GIVEN
    inherited = {"py_modules": ["gcs://shoal.zip", "gcs://other.zip"]}
    modules = shipping.work_environment(asked(py_modules=["s3://b/z.zip"]), inherited)
    assert modules == {"py_modules": ["gcs://shoal.zip", "s3://b/z.zip"]}


def test_a_folder_for_a_single_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'working_dir'.*at the connection only.*init\(runtime_env"):
        shipping.work_environment(asked(working_dir=str(tmp_path)), {})
    with pytest.raises(ValueError, match=r"'py_modules'.*at the connection only"):
        shipping.work_environment(asked(py_modules=[str(tmp_path)]), {})
