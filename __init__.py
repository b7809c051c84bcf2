"""shoal: reinforcement learning on its own distributed core.

Tasks, actors and shared memory with Ray's programming model; rollout workers, learners and policies on top.

    import shoal

    @shoal.remote
    def square(x):
        return x * x

    shoal.get([square.remote(i) for i in range(4)])   # [0, 1, 4, 9]

The core is imported when the first of its names is used: who only asks a policy server (`shoal.serving.client`) has
no need of it.
"""

from __future__ import annotations

import importlib
import typing

from .core.ray_compat import ray_names

if typing.TYPE_CHECKING:
    from .core import errors as exceptions
    from .core.api import cancel, get, get_actor, init, is_initialized, kill, put, shutdown, wait
    from .core.generators import ObjectRefGenerator
    from .core.observing.timeline import timeline
    from .core.refs import ObjectRef
    from .core.remote import method, remote
    from .core.runtime_context import get_runtime_context
    from .core.state import available_resources, cluster_resources, nodes

__version__ = "0.1.0"

__all__ = [
    "ObjectRef",
    "ObjectRefGenerator",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]

#: Where each is kept. `exceptions` is one of Ray's paths.
_HOMES = {
    "core.api": ("cancel", "get", "get_actor", "init", "is_initialized", "kill", "put", "shutdown", "wait"),
    "core.generators": ("ObjectRefGenerator",),
    "core.observing.timeline": ("timeline",),
    "core.refs": ("ObjectRef",),
    "core.remote": ("method", "remote"),
    "core.runtime_context": ("get_runtime_context",),
    "core.state": ("available_resources", "cluster_resources", "nodes"),
}

# `from shoal.util.queue import Queue`, `import shoal.exceptions`: Ray's paths.
ray_names.install(__name__)


def __getattr__(name: str) -> object:
    if name not in __all__ or name == "exceptions":
        return ray_names.root_name(name, __name__)
    for home, names in _HOMES.items():
        module = importlib.import_module(f"{__name__}.{home}")
        for each in names:
            globals()[each] = value = getattr(module, each)
            # Tracebacks, reprs and documentation name what users import, not the file that it happens to be kept in.
            value.__module__ = __name__
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
