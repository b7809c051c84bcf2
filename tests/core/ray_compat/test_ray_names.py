"""Ray's submodule paths: found under `shoal`, the same objects as ours, and nothing of them is imported before."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import shoal
from shoal.core import errors
from shoal.core.ray_compat import ray_names
from shoal.core.ray_compat.ray_names import MODULES, NAMESPACES, Finder


@pytest.fixture
def package(monkeypatch):
    """A root package whose paths are those of small tables of its own: (package, its modules)."""
    own = {}
    for name in ("tree", "tree.fruit", "tree.stone"):
        own[name] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, own[name])
    own["tree"].__path__ = []
    own["tree.fruit"].apple = "an apple"
    own["tree.fruit"].plum = lambda: "a plum"
    finder = Finder(
        "tree",
        {"garden.plum": "stone", "garden.deep.stone": "stone", "pip": "stone"},
        {"garden": {"apple": "fruit", "plum": "fruit"}, "garden.deep": {}},
    )
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    yield own["tree"]
    for name in [name for name in sys.modules if name.startswith("tree.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("path", MODULES)
def test_every_path_is_the_module_itself(path):
    module = importlib.import_module(f"shoal.{path}")
    assert module is importlib.import_module(f"shoal.{MODULES[path]}")
    assert module.__name__ == module.__spec__.name == f"shoal.{MODULES[path]}"


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in NAMESPACES.items() for name in names])
def test_every_name_of_a_namespace_is_our_object(path, name):
    namespace = importlib.import_module(f"shoal.{path}")
    assert getattr(namespace, name) is getattr(importlib.import_module(f"shoal.{NAMESPACES[path][name]}"), name)
    assert name in namespace.__all__


def test_the_ways_in_which_ray_programs_import():
    code = """
import shoal.util
from shoal.util import ActorPool, as_completed, map_unordered
from shoal.util.actor_pool import ActorPool as SamePool
from shoal.util.queue import Empty, Full, Queue
from shoal.util.multiprocessing import Pool, TimeoutError
from shoal.util.multiprocessing.pool import Pool as SameProcesses
from shoal.exceptions import RayTaskError
import shoal.exceptions
import shoal.util.queue as queue
assert ActorPool is SamePool and Pool is SameProcesses and queue.Queue is Queue
assert shoal.exceptions.RayTaskError is RayTaskError is shoal.exceptions.TaskError
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_namespace_needs_no_import_of_its_own():
    code = "import shoal; print(shoal.util.ActorPool.__name__, shoal.util.queue.Queue.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.split() == ["ActorPool", "Queue"]


def test_import_shoal_imports_none_of_it():
    code = "import sys, shoal; print([n for n in sys.modules if 'patterns' in n or 'multiprocessing.pool' in n])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"


def test_names_that_do_not_exist_are_told():
    with pytest.raises(AttributeError, match=r"shoal\.util.*no attribute 'nonsense'.*ActorPool"):
        _ = shoal.util.nonsense
    with pytest.raises(ModuleNotFoundError, match=r"shoal\.util\.nonsense"):
        importlib.import_module("shoal.util.nonsense")
    with pytest.raises(ImportError, match="nonsense"):
        from shoal.util import nonsense  # noqa: F401


def test_exceptions_are_the_errors_of_the_core():
    assert shoal.exceptions is errors


def test_a_name_wins_over_the_submodule_of_the_same_path(package):
    garden = importlib.import_module("tree.garden")
    stone = importlib.import_module("tree.garden.plum")
    assert stone is sys.modules["tree.stone"]
    assert garden.plum() == "a plum"
    assert garden.apple == "an apple"


def test_namespaces_nest_and_list_what_they_have(package):
    garden = importlib.import_module("tree.garden")
    assert dir(garden) == ["apple", "deep", "plum"]
    assert garden.deep.stone is sys.modules["tree.stone"]
    assert importlib.import_module("tree.pip") is package.pip is sys.modules["tree.stone"]


def test_other_packages_are_none_of_its_business():
    finder = next(finder for finder in sys.meta_path if isinstance(finder, ray_names.Finder))
    assert finder.find_spec("json") is None
    assert finder.find_spec("util.queue") is None
    assert finder.find_spec("shoal.core") is None
