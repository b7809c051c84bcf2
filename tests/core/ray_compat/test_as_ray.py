"""`import ray` finds shoal: the same objects, in the driver and in its workers, before an installed Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shoal.core.ray_compat import ray_names


def run(code: str, *, cwd=None) -> str:
    """What a fresh interpreter prints that runs `code` after ``shoal.as_ray.install()``."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import shoal\nshoal.as_ray.install()\n{code}"],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_ray_is_shoal_under_the_name_and_version_of_ray():
    run("""
import ray, ray.exceptions, ray.util.queue
from ray.util.actor_pool import ActorPool
from ray.util import ActorPool as same
import importlib.metadata
assert ray.__version__ == "2.60.0" == importlib.metadata.version("ray") != shoal.__version__
assert ray.__name__ == "ray" and ray.remote is shoal.remote and ray.ObjectRef is shoal.ObjectRef
assert ray.exceptions is shoal.exceptions and ray.util is shoal.util
assert ActorPool is same is shoal.util.ActorPool
""")


def test_every_path_below_ray_is_our_module():
    paths = [*ray_names.MODULES, *ray_names.NAMESPACES]
    run(f"""
import importlib
for path in {paths!r}:
    assert importlib.import_module("ray." + path) is importlib.import_module("shoal." + path), path
""")


def test_workers_find_it_and_know_the_same_classes(tmp_path):
    (tmp_path / "uses_ray.py").write_text(
        "import ray\nfrom ray.util.queue import Full\n\n\ndef version():\n    return ray.__version__, Full\n"
    )
    run(
        """
import sys; sys.path.insert(0, "")
import ray, uses_ray
from ray.exceptions import RayTaskError
ray.init(num_cpus=1)

@ray.remote
def look(full):
    import ray.exceptions
    assert uses_ray.version() == (ray.__version__, full)
    return RayTaskError, ray.exceptions.RayTaskError

@ray.remote
class Actor:
    def fail(self):
        raise ray.exceptions.RayTaskError("by hand")

assert ray.get(look.remote(uses_ray.Full)) == (RayTaskError, RayTaskError)
try:
    ray.get(Actor.remote().fail.remote())
except RayTaskError as error:
    assert isinstance(error, RayTaskError)
    assert "ray::Actor.fail() (pid=" in str(error)
ray.shutdown()
""",
        cwd=tmp_path,
    )


def test_an_installed_ray_is_not_found(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise RuntimeError('the real one')")
    (tmp_path / "ray" / "tune.py").write_text("raise RuntimeError('the real one')")
    run(
        """
import sys; sys.path.insert(0, "")
import ray
assert ray.get is shoal.get
try:
    import ray.tune
except ImportError as error:
    assert "ray.tune is not in shoal" in str(error)
else:
    raise AssertionError
""",
        cwd=tmp_path,
    )


def test_after_ray_itself_was_imported_it_is_too_late(tmp_path):
    (tmp_path / "ray.py").touch()
    code = "import sys; sys.path.insert(0, '')\nimport ray, shoal\nshoal.as_ray.install()"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 1
    assert "call shoal.as_ray.install() before that" in ran.stderr


@pytest.mark.parametrize("statement", ["import ray.tune", "from ray import data", "import ray.rllib.algorithms.ppo"])
def test_what_shoal_leaves_out_is_an_import_error_that_says_so(statement):
    told = run(f"import ray\ntry:\n    {statement}\nexcept ImportError as error:\n    print(error)")
    assert "is not in shoal, which has Ray's core and not " in told


def test_attributes_that_shoal_leaves_out_say_so_and_hasattr_works():
    told = run("""
import ray, shoal.rllib
assert not hasattr(ray, "rllib") and not hasattr(ray, "nonsense") and hasattr(ray, "ActorID")
for name in ("serve", "rllib", "nonsense"):
    try:
        getattr(ray, name)
    except AttributeError as error:
        print(error)
""").splitlines()
    assert told == [
        "ray.serve is not in shoal, which has Ray's core and not Ray Serve",
        "ray.rllib is not in shoal, which has Ray's core and not RLlib; shoal.rllib is a library of its own",
        "module 'shoal' has no attribute 'nonsense'",
    ]


def test_installing_twice_is_installing_once():
    assert run("shoal.as_ray.install(); import sys; print(sum('as_ray' in repr(f) for f in sys.meta_path))") == "1\n"


def test_a_running_session_has_workers_that_would_not_know():
    code = "import shoal\nshoal.init(engine='inline')\nshoal.as_ray.install()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "call shoal.as_ray.install() first" in ran.stderr
