"""shoal: reinforcement learning on its own distributed core.

Tasks, actors and shared memory with Ray's programming model; rollout workers, learners and policies on top.

    import shoal

    @shoal.remote
    def square(x):
        return x * x

    shoal.get([square.remote(i) for i in range(4)])   # [0, 1, 4, 9]
"""

from __future__ import annotations

from .core import errors as exceptions
from .core.api import cancel, get, get_actor, init, is_initialized, kill, put, shutdown, wait
from .core.generators import ObjectRefGenerator
from .core.observing.timeline import timeline
from .core.ray_compat import ray_names
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

# `from shoal.util.queue import Queue`, `import shoal.exceptions`: Ray's paths.
ray_names.install(__name__)


def __getattr__(name: str) -> object:
    return ray_names.root_name(name, __name__)


# Tracebacks, reprs and documentation name what users import, not the file that it happens to be kept in.
for _name in __all__:
    if _name != "exceptions":
        globals()[_name].__module__ = __name__
del _name
