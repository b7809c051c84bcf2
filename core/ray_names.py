"""Ray's submodule paths: what ``import shoal.util.queue`` and ``from shoal.exceptions import ...`` find.

Ray programs import from many paths. Each stands here as one row that says which module of ours it is; nothing is
imported before somebody asks, so `import shoal` stays light. A path is either another name for one of our modules (the
very same object, so that no class exists twice) or a namespace: a package without a file whose names are taken from
our modules when they are first used.

To add a path, add a row. Names of a namespace win over its submodules, as `ray.util.placement_group` does, which is a
function although a module has the same path.

Not here: making ``import ray`` itself find shoal.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Ray's path below the root package -> our module.
MODULES = {
    "exceptions": "core.errors",
    "util.actor_pool": "core.patterns.actor_pool",
    "util.multiprocessing.pool": "core.patterns.process_pool",
    "util.queue": "core.patterns.queue",
}
#: Ray's packages -> their names -> the module of ours that has the name.
NAMESPACES = {
    "util": {
        "ActorPool": "core.patterns.actor_pool",
        "as_completed": "core.patterns.iterators",
        "map_unordered": "core.patterns.iterators",
    },
    "util.multiprocessing": {
        "AsyncResult": "core.patterns.process_pool",
        "Pool": "core.patterns.process_pool",
        "TimeoutError": "core.patterns.process_pool",
    },
}


class Namespace(ModuleType):
    """A package whose names are looked up when they are first used."""

    def __init__(self, name: str, root: str, path: str, names: Mapping[str, str], modules: Sequence[str]) -> None:
        """
        Args:
          name: full name of the package.
          root: full name of the root package.
          path: `name` below `root`.
          names: its names -> the module below `root` that has each.
          modules: its submodules.
        """
        super().__init__(name, f"Names of Ray's ``{path}``; see {__name__}.")
        self.__path__: list[str] = []  # makes it a package; `Finder` knows what is in it
        self.__all__ = sorted(names)
        self._root = root
        self._names = names
        self._modules = modules

    def __getattr__(self, name: str) -> object:
        if name in self._names:
            value = getattr(importlib.import_module(f"{self._root}.{self._names[name]}"), name)
            self.__dict__[name] = value
            return value
        if name in self._modules:
            return importlib.import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; it has {', '.join(dir(self))}")

    def __setattr__(self, name: str, value: object) -> None:
        # The import system sets a submodule as attribute of its package when it has loaded it.
        if not (isinstance(value, ModuleType) and name in self.__dict__.get("_names", ())):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self._names, *self._modules})


class Finder(MetaPathFinder, Loader):
    """Finds the paths of the tables below one root package. An entry of ``sys.meta_path``."""

    def __init__(
        self, root: str, modules: Mapping[str, str] = MODULES, namespaces: Mapping[str, Mapping[str, str]] = NAMESPACES
    ) -> None:
        self._root = root
        self._modules = modules
        self._namespaces = namespaces

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        below = fullname.removeprefix(f"{self._root}.")
        if below == fullname or not (below in self._modules or below in self._namespaces):
            return None
        return ModuleSpec(fullname, self, is_package=below in self._namespaces)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        below = spec.name.removeprefix(f"{self._root}.")
        if below not in self._namespaces:
            return None  # a placeholder, which `exec_module` replaces
        paths = [path.rpartition(".") for path in (*self._modules, *self._namespaces)]
        children = [child for parent, _, child in paths if parent == below]
        return Namespace(spec.name, self._root, below, self._namespaces[below], children)

    def exec_module(self, module: ModuleType) -> None:
        below = module.__name__.removeprefix(f"{self._root}.")
        if below in self._modules:
            # The import system takes what stands in sys.modules when the loader is done. Giving it our module any
            # earlier would let it overwrite that module's own __spec__.
            sys.modules[module.__name__] = importlib.import_module(f"{self._root}.{self._modules[below]}")


def install(root: str) -> None:
    """Let Ray's paths be found below the package `root`, and make its namespaces attributes of it. Once."""
    # At the end: a module with a file of its own comes first, and no other import is slowed down.
    sys.meta_path.append(Finder(root))
    for path in NAMESPACES:
        importlib.import_module(f"{root}.{path}")  # empty until used
