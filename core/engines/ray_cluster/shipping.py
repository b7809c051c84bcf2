"""What work on a Ray cluster is given to stand on: shoal itself, and a ``runtime_env`` in Ray's words.

    the package's files --staged_package--> <scratch>/shoal --job_environment--> py_modules of the job --> every worker

The driver's own shoal is always shipped, whatever the cluster has installed, so driver and workers never differ. Asking
first would cost what it saves. Measured on two CPUs, Ray 2.60, a cluster that runs already: the first task of a driver
takes 0.8 s with the package and 0.3 s without (Ray has idle workers for jobs without an environment and starts a fresh
one for this), an actor 0.1 s more; later tasks take the same. A task that looks what a worker has installed takes those
0.3 s, too, and knows one machine only. To stage the 1.5 MB takes 20 ms, and Ray, which names a package by its content,
uploads it once for each cluster and unpacks it once on each machine.

Ray takes folders at the connection only, so what is named for a single task or actor must be a URI. Libraries are not
shipped: `libraries.py` says which are missing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...environments.ignore_rules import Rules, is_ignored
from ...environments.runtime_env import WantedEnvironment, is_uri

#: The folder that is the package, whatever it is called.
_PACKAGE = Path(__file__).resolve().parents[3]
#: The name that the package is imported by.
_NAME = __name__.split(".", maxsplit=1)[0]


def package_files(root: Path) -> list[str]:
    """Paths below `root` of the files that make the package: those beside an ``__init__.py``, and no others.

    At the top of a checkout lie files and folders that are no part of it: there only Python's own files count.
    """
    found = [entry.name for entry in root.iterdir() if entry.suffix == ".py" or entry.name == "py.typed"]
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        inner[:] = [name for name in inner if (here / name / "__init__.py").is_file()]
        if here != root:
            found += [str((here / name).relative_to(root)) for name in names if not name.startswith(".")]
    return sorted(found)


@contextmanager
def staged_package() -> Iterator[str]:
    """A folder that is called as the package is and holds nothing else, for as long as Ray reads it."""
    with tempfile.TemporaryDirectory(prefix="shoal-ship-") as scratch:
        folder = Path(scratch, _NAME)
        for path in package_files(_PACKAGE):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_PACKAGE / path, folder / path)
        yield str(folder)


def job_environment(wanted: WantedEnvironment | None, package: str) -> dict[str, Any]:
    """The ``runtime_env`` of the connection: what is asked for, and shoal.

    Args:
      package: the folder of `staged_package`.

    Raises:
      ValueError: `excludes` would leave out a part of shoal.
    """
    wanted = wanted or WantedEnvironment()
    _check_excludes(wanted.excludes, package_files(Path(package)))
    said = _said(wanted)
    if wanted.excludes:
        said["excludes"] = list(wanted.excludes)
    return {**said, "py_modules": [package, *(wanted.py_modules or ())]}


def work_environment(wanted: WantedEnvironment, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """The ``runtime_env`` of a single task or actor. Ray adds what it does not say from that of its parent.

    Args:
      inherited: that of the calling process, as Ray tells it; shoal is the first of its py_modules.

    Raises:
      ValueError: it names a folder, or leaves files out.
    """
    for place in wanted.places:
        if not is_uri(place):
            key = "working_dir" if place == wanted.working_dir else "py_modules"
            raise ValueError(
                f"runtime_env[{key!r}]: Ray sends folders to its machines at the connection only: give {place!r} to "
                "init(runtime_env=...), or a URI here"
            )
    said = _said(wanted)
    if wanted.py_modules is not None:  # they take the place of the parent's
        shipped = [place for place in inherited.get("py_modules", ())[:1] if place not in wanted.py_modules]
        said["py_modules"] = [*shipped, *wanted.py_modules]
    return said


def without_shoal(told: Mapping[str, Any], *, ships: bool) -> dict[str, Any]:
    """A ``runtime_env`` as Ray tells it, as users have asked for it.

    Args:
      ships: the caller is the driver that has shipped shoal. A worker finds the name of the package in its own path.
    """
    modules = list(told.get("py_modules") or ())
    if modules and (ships or Path(modules[0]).stem in _PACKAGE.parts):
        modules = modules[1:]
    others = {name: value for name, value in told.items() if name != "py_modules"}
    return {**others, "py_modules": modules} if modules else others


def _said(wanted: WantedEnvironment) -> dict[str, Any]:
    """What both have in common, in Ray's words."""
    said: dict[str, Any] = json.loads(wanted.foreign) if wanted.foreign else {}
    if wanted.env_vars:
        said["env_vars"] = dict(wanted.env_vars)
    if wanted.working_dir is not None:
        said["working_dir"] = wanted.working_dir
    return said


def _check_excludes(excludes: Sequence[str], files: Sequence[str]) -> None:
    """Ray leaves out what `excludes` say from everything that it ships, so from shoal as well."""
    rules = [Rules.of(excludes)]
    for path in files:
        parents = [str(parent) for parent in Path(path).parents if parent.name]
        if any(is_ignored(parent, rules, is_folder=True) for parent in parents) or is_ignored(
            path, rules, is_folder=False
        ):
            raise ValueError(
                f"runtime_env['excludes'] would leave {_NAME}/{path} out, which the workers need: Ray has them "
                "hold for all that it ships; name the folders of your own that they mean"
            )
