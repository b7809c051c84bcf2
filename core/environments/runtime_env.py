"""``runtime_env``: what a task, an actor or a whole session wants its workers to be started with.

    {"env_vars": {"NAME": "value"},          environment variables; "${NAME}" stands for what the worker had
     "working_dir": "folder",                where it runs, and first on ``sys.path``: a copy of the folder
     "excludes": ["*.bin"],                  what the copy leaves out, as in ``.gitignore``
     "py_modules": ["folder", "file.py"]}    packages and modules that can be imported

Ray's other keys (pip, conda, uv, containers, ...) and places elsewhere (URIs) are for the engine of a Ray cluster. On
shoal's own machine they are refused where work is submitted, by `refuse_foreign`: shoal installs nothing; let the
driver run in an environment that has what the workers need. Here is only what is asked for, and whether it may be; what
becomes of it is in resolved.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_KEYS = ("env_vars", "excludes", "py_modules", "working_dir")
#: Ray's keys that a Ray cluster alone can follow.
_FOREIGN = frozenset(
    {
        "_nsight", "_rocprof_sys", "conda", "config", "container", "docker", "image_uri", "java_jars", "mpi", "nsight",
        "pip", "py_executable", "rocprof_sys", "uv", "worker_process_setup_hook",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WantedEnvironment:
    """A ``runtime_env`` that has been checked. None: not said, so that it is inherited. Paths are absolute, or URIs.

    foreign: the keys that only Ray has, in JSON; empty: none.
    """

    env_vars: tuple[tuple[str, str], ...] = ()
    working_dir: str | None = None
    excludes: tuple[str, ...] = ()
    py_modules: tuple[str, ...] | None = None
    foreign: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """Every folder, file and URI that it names."""
        return (*([] if self.working_dir is None else [self.working_dir]), *(self.py_modules or ()))


class RuntimeEnv(dict[str, Any]):
    """A ``runtime_env`` as an object, checked when it is made; a dict of the keys that were given.

    Example:
      >>> shoal.runtime_env.RuntimeEnv(env_vars={"MODE": "test"})
      {'env_vars': {'MODE': 'test'}}

    Raises: as `wanted`.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        py_modules: Sequence[Any] | None = None,
        excludes: Sequence[str] | None = None,
        **others: Any,
    ) -> None:
        given = {"env_vars": env_vars, "working_dir": working_dir, "py_modules": py_modules, "excludes": excludes}
        super().__init__({name: value for name, value in {**given, **others}.items() if value is not None})
        wanted(self)

    @classmethod
    def of_process(cls, told: Mapping[str, Any]) -> RuntimeEnv:
        """What a process was started with, by its engine's words. A cluster's may have keys and places of their own."""
        made = cls()
        made.update(told)
        return made

    def env_vars(self) -> dict[str, str]:
        """The variables; empty if there are none."""
        return dict(self.get("env_vars", {}))

    def working_dir(self) -> str | None:
        """The folder, if there is one."""
        return self.get("working_dir")

    def has_working_dir(self) -> bool:
        """Whether there is a folder."""
        return "working_dir" in self

    def py_modules(self) -> list[Any]:
        """Packages and modules; empty if there are none."""
        return list(self.get("py_modules", []))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return dict(self)

    def serialize(self) -> str:
        """As JSON."""
        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, serialized: str) -> RuntimeEnv:
        """Out of JSON."""
        return cls(**json.loads(serialized))


def wanted(given: Mapping[str, Any] | None) -> WantedEnvironment | None:
    """Check a ``runtime_env``; None when nothing is asked for.

    Raises:
      TypeError: it, or one of its values, is of the wrong type.
      ValueError: a key that neither shoal nor Ray has, or a folder that is not there.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env must be a dict or a RuntimeEnv, not {type(given).__name__} {given!r}")
    for name in given:
        if name not in _KEYS and name not in _FOREIGN:
            raise ValueError(f"unknown key {name!r} in runtime_env; it takes {', '.join(_KEYS)}")
    excludes = _strings("excludes", given.get("excludes"))
    working_dir, py_modules = given.get("working_dir"), given.get("py_modules")
    found = WantedEnvironment(
        env_vars=_variables(given.get("env_vars")),
        working_dir=None if working_dir is None else _path("working_dir", working_dir),
        excludes=excludes,
        py_modules=None if py_modules is None else tuple(_module(entry) for entry in _list("py_modules", py_modules)),
        foreign=_foreign({name: given[name] for name in sorted(_FOREIGN & {*given})}),
    )
    return None if found == WantedEnvironment(excludes=excludes) else found


def refuse_foreign(wanted: WantedEnvironment) -> None:
    """Refuse what only a Ray cluster can follow: the engines of this machine ask for it.

    Raises:
      ValueError: a key that only Ray has, or a place elsewhere.
    """
    if wanted.foreign:
        name = min(json.loads(wanted.foreign))
        raise ValueError(
            f"runtime_env[{name!r}] is not supported: shoal installs and starts nothing for a worker; run the driver "
            f"where the workers' packages are, or use engine='ray'. This engine takes {', '.join(_KEYS)}"
        )
    for place in wanted.places:
        if is_uri(place):
            key = "working_dir" if place == wanted.working_dir else "py_modules"
            raise ValueError(
                f"runtime_env[{key!r}]: {place!r} is no folder on this machine: places elsewhere (URLs) are not "
                "supported but on engine='ray'"
            )


def is_uri(place: str) -> bool:
    """Whether it is a place elsewhere, such as ``s3://bucket/x.zip``."""
    return "://" in place


def _foreign(given: Mapping[str, Any]) -> str:
    if not given:
        return ""
    try:
        return json.dumps(given, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"runtime_env: {', '.join(given)} must be made of texts, numbers, lists and dicts ({error})"
        ) from None


def _variables(given: Any) -> tuple[tuple[str, str], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of strings, not {type(given).__name__} {given!r}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env['env_vars'] must map strings to strings, not {name!r} to {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"no environment variable can be {name!r} with the value {value!r}")
    return tuple(sorted(given.items()))


def _list(key: str, given: Any) -> Sequence[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"runtime_env[{key!r}] must be a list, not {type(given).__name__} {given!r}")
    return given


def _strings(key: str, given: Any) -> tuple[str, ...]:
    entries = () if given is None else _list(key, given)
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"runtime_env[{key!r}] must be a list of strings, not of {type(entry).__name__} {entry!r}")
    return tuple(entries)


def _module(entry: Any) -> str:
    if isinstance(entry, ModuleType):
        if getattr(entry, "__file__", None) is None:
            raise ValueError(f"runtime_env['py_modules']: module {entry.__name__!r} has no file to copy")
        assert entry.__file__ is not None
        return os.path.abspath(os.path.dirname(entry.__file__) if hasattr(entry, "__path__") else entry.__file__)
    path = _path("py_modules", entry)
    if not is_uri(path) and os.path.isfile(path) and not path.endswith(".py"):
        raise ValueError(f"runtime_env['py_modules']: {entry!r} is neither a folder nor a .py file")
    return path


def _path(key: str, given: Any) -> str:
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"runtime_env[{key!r}] must be the path of a folder, not {type(given).__name__} {given!r}")
    if is_uri(str(given)):
        return str(given)
    path = os.path.abspath(os.path.expanduser(os.fsdecode(given)))
    if not os.path.exists(path):
        raise ValueError(f"runtime_env[{key!r}]: {str(given)!r} is no folder on this machine: it does not exist")
    if key == "working_dir" and not os.path.isdir(path):
        raise ValueError(f"runtime_env['working_dir']: {str(given)!r} is a file; it must be a folder")
    return path
