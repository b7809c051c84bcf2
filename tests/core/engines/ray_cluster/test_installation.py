"""Ray as it is installed here, or not: one line that says what to do. No Ray is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from shoal.core.engines import current
from shoal.core.engines.ray_cluster import installation
from shoal.core.errors import EngineUnavailableError, SessionError


def test_a_missing_ray_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineUnavailableError, match=r"Ray, which is not installed here: pip install 'shoal\[ray\]'$"):
        shoal.init(engine="ray", address="local")
    assert issubclass(EngineUnavailableError, SessionError)
    assert current.running() is None


def test_a_folder_that_is_called_ray_is_no_ray(monkeypatch, tmp_path):
    """Python takes it for a package without code; /tmp has one wherever Ray has run."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "ray", None)  # so that what is here, or is found now, is as before afterwards
    monkeypatch.delitem(sys.modules, "ray")
    with pytest.raises(EngineUnavailableError, match="not installed here"):
        installation.load()


@pytest.mark.parametrize("version", ["2.56.0", "2.60.0", "2.99.1", "2.61.0.dev0"])
def test_versions_in_the_range_are_taken(version):
    installation.check_version(version)


def test_the_range_is_that_of_the_installation():
    assert f"\n    {installation.RANGE}\n" in (Path(shoal.__path__[0]) / "setup.cfg").read_text()


@pytest.mark.parametrize("version", ["2.55.1", "1.13.0", "3.0.0", "3.0.0.dev0"])
def test_other_versions_are_told_with_the_range(version):
    with pytest.raises(EngineUnavailableError, match=rf"Ray {version} is installed.*pip install 'ray>=2\.56,<3'"):
        installation.check_version(version)


def test_where_shoal_stands_for_ray_there_is_no_ray_engine():
    program = """
import shoal.as_ray, shoal
shoal.as_ray.install()
try:
    shoal.init(engine="ray")
except shoal.exceptions.EngineUnavailableError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "`import ray` finds shoal" in ran.stdout
    assert ran.stdout.count("\n") == 1


def test_a_variable_is_set_for_a_block_unless_the_user_has(monkeypatch):
    monkeypatch.delenv("SHOAL_TEST_A", raising=False)
    monkeypatch.setenv("SHOAL_TEST_B", "theirs")
    with installation.set_for_a_while("SHOAL_TEST_A", "1"), installation.set_for_a_while("SHOAL_TEST_B", "1"):
        assert (os.environ["SHOAL_TEST_A"], os.environ["SHOAL_TEST_B"]) == ("1", "theirs")
    with installation.set_for_a_while("SHOAL_TEST_B", "1", instead=True):
        assert os.environ["SHOAL_TEST_B"] == "1"
    assert "SHOAL_TEST_A" not in os.environ
    assert os.environ["SHOAL_TEST_B"] == "theirs"
