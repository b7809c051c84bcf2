"""``import ray`` finds shoal: programs and libraries that were written for Ray run unchanged.

`install` puts a finder before all others. From then on ``import ray``, ``from ray.util.queue import Queue`` and
``import ray.exceptions`` give shoal's modules in this process and, when a session is started afterwards, in every
worker of it. An installed Ray is not touched and not found.

    ray               a `Facade`: every attribute is shoal's, but ``__version__`` is the Ray version it stands for
    ray.<path>        the very module that ``shoal.<path>`` is (`ray_names`), so no class exists twice
    anything else     `NotInShoal`, an ImportError

Distribution metadata of "ray" is there too, for libraries that look up its version before they import it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from . import ray_names

_SHOAL = __name__.split(".", maxsplit=1)[0]


class NotInShoal(ModuleNotFoundError):  # noqa: N818  reads as what it says
    """A module of Ray's that shoal does not have."""


class Facade(ModuleType):
    """The module ``ray``: shoal, under Ray's name and version."""

    def __init__(self, shoal: ModuleType) -> None:
        super().__init__("ray", shoal.__doc__)
        self.__path__: list[str] = []  # makes it a package; the finder knows what is in it
        self.__file__ = shoal.__file__
        self.__version__ = ray_names.RAY_VERSION
        self.__commit__ = f"shoal {shoal.__version__}"
        self.__all__ = sorted({*shoal.__all__, *ray_names.ROOT})
        self._shoal = shoal

    def __getattr__(self, name: str) -> object:
        if name in ray_names.ABSENT:  # `ray.rllib` must not be shoal's
            raise AttributeError(ray_names.missing(name, "ray"))
        value: object = getattr(self._shoal, name)
        self.__dict__[name] = value  # the next look-up costs what it costs on any module
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self.__all__, *ray_names.MODULES, *ray_names.NAMESPACES})

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # A function of a script that uses it travels with it; cloudpickle knows plain modules only.
        return importlib.import_module, (self.__name__,)


class RayFinder(MetaPathFinder, Loader):
    """Finds ``ray`` and all below it. An entry of ``sys.meta_path``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "ray":
            return ModuleSpec(fullname, self, is_package=True)
        below = fullname.removeprefix("ray.")
        if below == fullname:
            return None
        if not ray_names.has(below):
            # Raised here and not left to the import system, whose words would say nothing of shoal.
            raise NotInShoal(ray_names.missing(below, "ray"))
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        # Below ray: a placeholder, which `exec_module` replaces.
        return Facade(importlib.import_module(_SHOAL)) if spec.name == "ray" else None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != "ray":
            below = module.__name__.removeprefix("ray.")
            sys.modules[module.__name__] = importlib.import_module(f"{_SHOAL}.{below}")

    def find_distributions(self, context: importlib.metadata.DistributionFinder.Context) -> Iterator[RayDistribution]:
        """What ``importlib.metadata.version("ray")`` asks for."""
        if context.name == "ray":
            yield RayDistribution()


class RayDistribution(importlib.metadata.Distribution):
    """The installed distribution "ray", as far as a library may want to know of it."""

    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: ray\nVersion: {ray_names.RAY_VERSION}\n"

    def locate_file(self, path: object) -> Path:
        return Path(__file__).parent / str(path)


def install() -> None:
    """Let ``import ray`` find shoal, here and in the workers of sessions that start from now on. Twice is once.

    Raises:
      RuntimeError: Ray itself has been imported already, or a session is running, whose workers would not know.
    """
    if ray_names.stands_for_ray():
        return
    if importlib.import_module(_SHOAL).is_initialized():
        raise RuntimeError("a session is running, whose workers would not find ray: call shoal.as_ray.install() first")
    real = sys.modules.get("ray")
    if real is not None:
        place = getattr(real, "__file__", None) or "this process"
        raise RuntimeError(f"Ray itself has been imported ({place}): call shoal.as_ray.install() before that")
    sys.meta_path.insert(0, RayFinder())
