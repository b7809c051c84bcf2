"""What workers of a Ray cluster must have: the list is true, and what is said of a worker that has less."""

from __future__ import annotations

import configparser
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import shoal

pytestmark = pytest.mark.ray

#: Libraries that are imported with what a rollout worker needs of shoal, then with the engine that its process has.
IMPORTED = """
import json, sys
import shoal.rllib.rollouts.env_runner
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
import shoal.core.engines.ray_cluster.engine
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
#: Of the libraries that shoal is installed with, those that a worker shall not need. psutil is Ray's own there.
NOT_THERE = {"gymnasium", "matplotlib", "rich", "safetensors", "tensorboardX", "torch", "tyro", "zmq"}


@pytest.fixture(scope="module")
def libraries():
    from shoal.core.engines.ray_cluster import libraries

    return libraries


def test_what_shoal_imports_in_a_worker_is_what_is_asked_for_there(libraries):
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, timeout=60, check=True)
    of_a_rollout_worker, with_the_engine = ({*json.loads(line)} for line in ran.stdout.splitlines())
    imported = {name for name in of_a_rollout_worker if not name.startswith("_")} - {*sys.stdlib_module_names}
    assert imported - {"shoal", "cython_runtime"} == {*libraries.CORE}
    assert not NOT_THERE & with_the_engine


def test_versions_are_those_of_the_installation(libraries):
    config = configparser.ConfigParser()
    config.read(Path(shoal.__path__[0]) / "setup.cfg")
    assert {*libraries.CORE.values(), *libraries.ROLLOUT.values()} <= {
        *config["options"]["install_requires"].split("\n")
    }


def test_a_worker_that_has_everything_is_no_matter_for_words(libraries, caplog):
    libraries.judge({"missing": [], "shoal": "1"}, is_shipped=True, version="1")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("found", "is_shipped", "texts"),
    [
        (
            {"missing": ["msgpack"], "shoal": "No module named 'msgpack'"},
            True,
            ["no msgpack, which shoal needs there: install it", "runtime_env={'pip': ['msgpack>=1.0.5']}"],
        ),
        (
            {"missing": ["numpy", "gymnasium"], "shoal": "No module named 'numpy'"},
            True,
            ["no numpy, gymnasium", "install them", "'numpy>=1.26', 'gymnasium>=1.1,<2'"],
        ),
        ({"missing": [], "shoal": "0.9"}, False, ["shoal 1 is not on the workers", "(0.9)", "leave ray.init() to"]),
        ({"missing": [], "shoal": "broken"}, True, ["shoal cannot be imported on the workers", "(broken)"]),
    ],
)
def test_what_a_worker_lacks_is_told_all_at_once(libraries, found, is_shipped, texts):
    with pytest.raises(shoal.exceptions.EngineUnavailableError) as told:
        libraries.judge(found, is_shipped=is_shipped, version="1")
    for text in texts:
        assert text in str(told.value)


def test_a_worker_that_can_run_no_environment_is_worth_a_warning(libraries, caplog):
    with caplog.at_level(logging.WARNING, "shoal"):
        libraries.judge({"missing": ["gymnasium"], "shoal": "1"}, is_shipped=True, version="1")
    assert "no gymnasium, so no environment can run there" in caplog.text
