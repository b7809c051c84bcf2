"""What Python runs at its start where `shoal run-as-ray` has put this folder on its path: `import ray` finds shoal.

Nothing of shoal is imported before the program asks for ray, so that an interpreter which never does starts as fast as
ever. An environment's own sitecustomize, which this one hides, is run too; and the folder leaves ``sys.path``, so that
the program sees the path that it would see without us. Its child processes inherit the environment, and so all this.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import Any


class OnDemand:
    """Stands first in ``sys.meta_path`` until somebody looks for ray; then shoal's own finder takes its place."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != "ray":
            return None
        spec: ModuleSpec | None = self._successor().find_spec(fullname)
        return spec

    def find_distributions(self, context: Any) -> Iterable[Any]:
        found: Iterable[Any] = self._successor().find_distributions(context) if context.name == "ray" else ()
        return found

    def _successor(self) -> Any:
        finder = importlib.import_module("shoal.as_ray").RayFinder()
        if self in sys.meta_path:
            sys.meta_path[sys.meta_path.index(self)] = finder
        return finder


def _run_the_hidden_one() -> None:
    """Run the sitecustomize that Python would have found without this folder, and let it have the name."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        sys.modules["sitecustomize"] = types.ModuleType("sitecustomize")  # ours is not to be found under that name
        return
    sys.modules["sitecustomize"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "sitecustomize":  # not where somebody only imports every module of shoal
    _here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _here]
    sys.meta_path.insert(0, OnDemand())  # a finder by its methods; the base class would cost an import
    _run_the_hidden_one()
