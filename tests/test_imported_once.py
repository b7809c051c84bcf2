"""The guard in conftest.py finds a second copy of the tree under another name, and the tests run in any folder name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def module(path: Path) -> ModuleType:
    made = ModuleType("made")
    made.__file__ = str(path)
    return made


@pytest.mark.parametrize(
    ("name", "path", "is_double"),
    [
        ("core.errors", "core/errors.py", True),
        ("rllib", "rllib/__init__.py", True),
        ("main.rllib", "rllib/__init__.py", True),
        ("main", "__init__.py", True),
        ("shoal.core.errors", "core/errors.py", False),
        ("shoal", "__init__.py", False),
        ("tests.test_imported_once", "tests/test_imported_once.py", False),
        ("numpy", ".venv/lib/numpy/__init__.py", False),
        ("__main__", "scripts/train.py", False),
    ],
)
def test_a_second_copy_is_told_by_the_name_it_is_loaded_as(request, name, path, is_double):
    conftest = next(p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "doubles"))
    assert bool(conftest.doubles({name: module(ROOT / path)}, ROOT)) == is_double


def test_no_bare_core_or_rllib_is_importable_or_loaded_here():
    for name in ("core", "rllib", "envs", "algorithms", "serving", "scripts"):
        assert name not in sys.modules


def test_the_checkout_may_have_any_name_and_any_start_folder(tmp_path):
    checkout = tmp_path / "any-name.1"
    checkout.mkdir()
    for name in ("pyproject.toml", "__init__.py", "core", "envs", "rllib"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    (checkout / "tests" / "rllib").mkdir(parents=True)
    for name in ("tests/conftest.py", "tests/rllib/test_config.py"):
        shutil.copy(ROOT / name, checkout / name)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "shoal").symlink_to(checkout)
    for folder in (checkout, checkout / "tests" / "rllib", tmp_path):
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", checkout / "tests", "-k", "defaults"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "path")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "2 passed" in ran.stdout
