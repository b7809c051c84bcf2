"""Ray's names: what ``import shoal.util.queue``, ``from shoal.exceptions import ...`` and ``shoal.ActorID`` find.

Ray programs import from many paths. Each stands here as one row that says which module of ours it is; nothing is
imported before somebody asks, so `import shoal` stays light. A path is either another name for one of our modules (the
very same object, so that no class exists twice) or a namespace: a package without a file whose names are taken from
our modules when they are first used.

To add a path, add a row. Names of a namespace win over its submodules, as `ray.util.placement_group` does, which is a
function although a module has the same path. What Ray has and shoal has not stands here too, so that the error can say
that it is no misspelling.

Not here: making ``import ray`` itself find shoal (`as_ray`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: The Ray whose interface is met.
RAY_VERSION = "2.60.0"

#: Names of the root package that few programs use -> the module of ours that has the name. Looked up when used.
ROOT = {
    "ActorClassID": "core.ray_compat.ray_ids",
    "ActorID": "core.ray_compat.ray_ids",
    "DynamicObjectRefGenerator": "core.generators",
    "FunctionID": "core.ray_compat.ray_ids",
    "JobID": "core.ray_compat.ray_ids",
    "Language": "core.ray_compat.job_config",
    "LoggingConfig": "core.ray_compat.job_config",
    "NodeID": "core.ray_compat.ray_ids",
    "ObjectID": "core.refs",
    "PlacementGroupID": "core.ray_compat.ray_ids",
    "SCRIPT_MODE": "core.ray_compat.library_names",
    "TaskID": "core.ray_compat.ray_ids",
    "UniqueID": "core.ray_compat.ray_ids",
    "WORKER_MODE": "core.ray_compat.library_names",
    "WorkerID": "core.ray_compat.ray_ids",
    "get_gpu_ids": "core.runtime_context",
}
#: Ray's path below the root package -> our module.
MODULES = {
    "as_ray": "core.ray_compat.as_ray",  # ours alone
    "cloudpickle": "core.ray_compat.ray_cloudpickle",
    "dag.class_node": "core.dag",
    "dag.dag_node": "core.dag",
    "dag.function_node": "core.dag",
    "dag.input_node": "core.dag",
    "dag.output_node": "core.dag",
    "exceptions": "core.errors",
    "experimental.internal_kv": "core.patterns.internal_kv",
    "job_config": "core.ray_compat.job_config",
    "runtime_context": "core.runtime_context",
    "runtime_env": "core.environments.runtime_env",
    "util.actor_pool": "core.patterns.actor_pool",
    "util.annotations": "core.ray_compat.library_names",
    "util.check_serialize": "core.serialization.inspection",
    "util.debug": "core.ray_compat.library_names",
    "util.metrics": "core.observing.metrics",
    "util.multiprocessing.pool": "core.patterns.process_pool",
    "util.placement_group": "core.placement",
    "util.queue": "core.patterns.queue",
    "util.serialization": "core.serialization.reducers",
    "util.scheduling_strategies": "core.scheduling.scheduling_strategies",
    "util.state.api": "core.observing.listings",
    "util.state.common": "core.observing.rows",
    "util.state.exception": "core.errors",
}
#: Ray's packages -> their names -> the module of ours that has the name.
NAMESPACES = {
    "_raylet": {
        "ActorID": "core.ray_compat.ray_ids",
        "DynamicObjectRefGenerator": "core.generators",
        "JobID": "core.ray_compat.ray_ids",
        "NodeID": "core.ray_compat.ray_ids",
        "ObjectRef": "core.refs",
        "ObjectRefGenerator": "core.generators",
        "PlacementGroupID": "core.ray_compat.ray_ids",
        "TaskID": "core.ray_compat.ray_ids",
        "WorkerID": "core.ray_compat.ray_ids",
    },
    "actor": {
        "ActorClass": "core.remote",
        "ActorClassInheritanceException": "core.remote",
        "ActorHandle": "core.remote",
        "ActorMethod": "core.remote",
        "exit_actor": "core.api",
        "method": "core.remote",
    },
    "dag": {
        "ClassMethodNode": "core.dag",
        "ClassNode": "core.dag",
        "DAGInputData": "core.dag",
        "DAGNode": "core.dag",
        "FunctionNode": "core.dag",
        "InputAttributeNode": "core.dag",
        "InputNode": "core.dag",
        "MultiOutputNode": "core.dag",
    },
    "experimental": {},
    "remote_function": {"RemoteFunction": "core.remote"},
    "types": {"ObjectRef": "core.refs"},
    "util": {
        "ActorPool": "core.patterns.actor_pool",
        "as_completed": "core.patterns.iterators",
        "deregister_serializer": "core.serialization.reducers",
        "get_current_placement_group": "core.placement",
        "inspect_serializability": "core.serialization.inspection",
        "get_node_ip_address": "core.ray_compat.library_names",
        "get_placement_group": "core.placement",
        "list_named_actors": "core.ray_compat.library_names",
        "log_once": "core.ray_compat.library_names",
        "map_unordered": "core.patterns.iterators",
        "placement_group": "core.placement",
        "register_serializer": "core.serialization.reducers",
        "placement_group_table": "core.placement",
        "remove_placement_group": "core.placement",
    },
    "util.multiprocessing": {
        "AsyncResult": "core.patterns.process_pool",
        "Pool": "core.patterns.process_pool",
        "TimeoutError": "core.patterns.process_pool",
    },
    "util.state": {
        "explain": "core.observing.listings",  # ours alone
        "get_actor": "core.observing.listings",
        "get_job": "core.observing.listings",
        "get_node": "core.observing.listings",
        "get_objects": "core.observing.listings",
        "get_placement_group": "core.observing.listings",
        "get_task": "core.observing.listings",
        "get_worker": "core.observing.listings",
        "list_actors": "core.observing.listings",
        "list_jobs": "core.observing.listings",
        "list_nodes": "core.observing.listings",
        "list_objects": "core.observing.listings",
        "list_placement_groups": "core.observing.listings",
        "list_tasks": "core.observing.listings",
        "list_workers": "core.observing.listings",
        "summarize_actors": "core.observing.listings",
        "summarize_objects": "core.observing.listings",
        "summarize_tasks": "core.observing.listings",
    },
}
#: What Ray has and shoal has not, by its path -> what it is.
ABSENT = {
    "ClientBuilder": "the builder of Ray Client connections",
    "_config": "Ray's internals",
    "_private": "Ray's internals",
    "air": "Ray AIR",
    "autoscaler": "Ray's autoscaler",
    "client": "Ray Client",
    "cluster_utils": "clusters of several nodes",
    "core": "Ray's internals",
    "cpp_function": "calls from and to C++",
    "cross_language": "calls from and to Java and C++",
    "dag.CollectiveOutputNode": "compiled graphs",
    "dag.DAGContext": "compiled graphs",
    "dag.DAGOperationFuture": "compiled graphs",
    "dag.GPUFuture": "compiled graphs",
    "dashboard": "Ray's dashboard",
    "data": "Ray Data",
    "internal": "Ray's internals",
    "java_actor_class": "calls from and to Java",
    "java_function": "calls from and to Java",
    "job_submission": "Ray's job server",
    "llm": "Ray's LLM library",
    "rllib": "RLlib; shoal.rllib is a library of its own",
    "serve": "Ray Serve",
    "train": "Ray Train",
    "tune": "Ray Tune",
    "util.accelerators": "its lists of accelerators",
    "util.client": "Ray Client",
    "util.collective": "Ray's collective communication",
    "util.connect": "Ray Client",
    "util.dask": "Dask on Ray",
    "util.disconnect": "Ray Client",
    "util.get_node_instance_id": "machines of a cloud",
    "util.iter": "its parallel iterators",
    "util.joblib": "joblib on Ray",
    "util.multiprocessing.JoinableQueue": "its joinable queue",
    "util.pdb": "its remote debugger",
    "util.ray_debugpy": "its remote debugger",
    "util.rpdb": "its remote debugger",
    "util.spark": "Spark on Ray",
    "util.state.StateApiClient": "its state server",
    "util.state.get_log": "its log server",
    "util.state.list_cluster_events": "its event log",
    "util.state.list_logs": "its log server",
    "util.state.list_runtime_envs": "its table of runtime environments",
    "widgets": "Ray's notebook widgets",
    "workflow": "Ray Workflows",
}


def missing(path: str, root: str) -> str:
    """Why nothing is at a path below the package `root`: Ray's name of it, if it is one that shoal leaves out."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        what = ABSENT.get(".".join(parts[:length]))
        if what is not None:
            return f"{root}.{path} is not in shoal, which has Ray's core and not {what}"
    return f"{root}.{path} is not in shoal"


def has(path: str) -> bool:
    """Whether a module is at Ray's path below the root."""
    return path in MODULES or path in NAMESPACES


def stands_for_ray() -> bool:
    """Whether ``import ray`` finds shoal in this process (`as_ray`, which is not imported just to ask)."""
    return any(type(finder).__module__ == f"{__name__.rpartition('.')[0]}.as_ray" for finder in sys.meta_path)


def root_name(name: str, root: str) -> object:
    """What ``shoal.<name>`` is where the package has no such attribute of its own: its ``__getattr__``.

    Raises:
      AttributeError: nothing; says so if Ray has it.
    """
    if name in ROOT:
        return getattr(importlib.import_module(f"{root}.{ROOT[name]}"), name)
    if has(name):
        return importlib.import_module(f"{root}.{name}")
    raise AttributeError(missing(name, root) if name in ABSENT else f"module {root!r} has no attribute {name!r}")


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
        path = f"{self.__name__.removeprefix(f'{self._root}.')}.{name}"
        if path in ABSENT:
            raise AttributeError(missing(path, self._root))
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; it has {', '.join(dir(self))}")

    def __setattr__(self, name: str, value: object) -> None:
        # The import system sets a submodule as attribute of its package when it has loaded it.
        if not (isinstance(value, ModuleType) and name in self.__dict__.get("_names", ())):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self._names, *self._modules})

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # A function of a script that uses it travels with it; cloudpickle knows plain modules only.
        return importlib.import_module, (self.__name__,)


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
