"""Beginning and end of a session: `init`, `shutdown`, `is_initialized`.

`init_options` checks what `init` is given; here it becomes an engine. One session at a time and process.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import ids
from ..cluster import start
from ..config import CoreConfig, from_environment
from ..engines import current
from ..engines.native import NativeEngine
from ..environments.runtime_env import WantedEnvironment, refuse_foreign, wanted
from ..errors import SessionError
from ..ray_compat.job_config import JobConfig, LoggingConfig
from ..runtime.process import Process
from ..scheduling.labels import check_labels
from ..scheduling.machine import ADDRESS, CLUSTER_ADDRESS, Machine, offer
from ..scheduling.memory import memory_bytes
from . import host_process, init_options
from .init_context import RayContext

_MEBIBYTE = 1024 * 1024
#: How many slabs the store has room for, at least.
_LEAST_SLABS = 32
_JOB_ID = b"\1\0\0\0"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str | None = None,
    dashboard_port: int | None = None,
    job_config: JobConfig | None = None,
    configure_logging: bool = True,
    logging_level: int | str = "info",
    logging_format: str | None = None,
    logging_config: LoggingConfig | None = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    proxy_server_url: str | None = None,
    engine: str = "native",
    preload: Sequence[str] = (),
    **hidden: Any,
) -> RayContext:
    """Start a session on this machine: a head process, and workers as they are needed. Or join a Ray cluster.

    Ray's arguments, of which those that are not explained here are accepted and change nothing on one machine.

    Args:
      address: None or "local". Where RAY_ADDRESS names a cluster, "local" stays here. For engine="ray": "auto" or
        "host:6379" for a cluster that this machine is one of, "local" for a Ray that is started here and ends with the
        session; None looks for the former (RAY_ADDRESS, ``ray start``) before it does the latter.
      num_cpus: CPUs to schedule on; those of the machine by default. Bookkeeping: nothing is pinned or measured.
      num_gpus: likewise; by default those that CUDA_VISIBLE_DEVICES lists, or that the machine has.
      resources: further resources by name.
      labels: of this node, for label selectors and NodeLabelSchedulingStrategy.
      object_store_memory: bytes that the object store may grow to; 30 % of the memory by default, the machine's or
        the container's.
      ignore_reinit_error: do nothing when there is a session already.
      job_config: a `JobConfig`; what is given to `init` itself comes first.
      configure_logging: set the logger "shoal" to `logging_level`.
      logging_level: a number or name of the module `logging`.
      logging_config: how the root loggers of the driver and its workers write.
      log_to_driver: print here what workers print, each line with the name of its task or actor.
      namespace: where the names of this driver's actors live; by default one of its own.
      runtime_env: what workers are started with; tasks and actors may ask for more.
      engine: "native"; "inline": no processes; work runs in this one, at the call that submits it, for debugging; or
        "ray": a Ray cluster does the work, that of `address`. Ray's arguments then mean what they mean there, and shoal
        is sent to its machines.
      preload: modules that workers shall have imported when they start.

    Returns:
      Where the session is; as a context manager it ends the session.

    Raises:
      RuntimeError: there is a session already, or an argument that shoal cannot honour.
      ConnectionError: `address` is "auto", and there is no cluster to connect to.
      TypeError, ValueError: an argument is of the wrong type or out of range.
      SessionError: the processes did not start, or a Ray cluster cannot be joined (`EngineUnavailableError`).
    """
    if configure_logging:
        init_options.set_log_level(logging_level)
    init_options.check_hidden(hidden)
    init_options.check_promises(local_mode=local_mode)
    of_ray = {
        "include_dashboard": include_dashboard,
        "dashboard_host": dashboard_host,
        "dashboard_port": dashboard_port,
        "logging_format": logging_format,
        "enable_resource_isolation": enable_resource_isolation or None,
        "cgroup_path": cgroup_path,
        "system_reserved_cpu": system_reserved_cpu,
        "system_reserved_memory": system_reserved_memory,
        "proxy_server_url": proxy_server_url,
        **hidden,
    }
    if engine not in ("native", "inline", "ray"):
        raise ValueError(f"unknown engine {engine!r}; there are 'native', 'inline' and 'ray'")
    with current.starting:
        if current.running() is not None:
            if ignore_reinit_error:
                return _context()
            raise RuntimeError(
                "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
                "'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'."
            )
        job = init_options.check_job_config(job_config)
        environment = _environment(job.runtime_env if runtime_env is None else runtime_env)
        namespace = job.ray_namespace if namespace is None else namespace
        logging = job.py_logging_config if logging_config is None else logging_config
        if engine == "ray":
            init_options.check_preload_on_ray(preload)
            _connect(
                address,
                environment=environment,
                namespace=None if namespace is None else init_options.check_namespace(namespace),
                metadata=job.metadata,
                logging=logging,
                of_ray={
                    **of_ray,
                    "num_cpus": num_cpus,
                    "num_gpus": num_gpus,
                    "resources": resources,
                    "labels": None if labels is None else check_labels(labels),
                    "object_store_memory": object_store_memory,
                    "configure_logging": configure_logging,
                    "logging_level": logging_level,
                    "log_to_driver": log_to_driver,
                },
            )
            return _context()
        init_options.check_on_this_machine(of_ray)
        init_options.check_address(os.environ.get("RAY_ADDRESS", address) if address in (None, "auto") else address)
        if environment is not None:
            refuse_foreign(environment)
        config = _config(object_store_memory)
        _start(
            engine,
            machine=_machine(config, num_cpus=num_cpus, num_gpus=num_gpus, resources=resources, labels=labels),
            config=config,
            namespace=init_options.check_namespace(namespace),
            environment=environment,
            preload=list(preload),
            logging=logging,
            log_to_driver=log_to_driver is not False,
        )
        return _context()


def _environment(asked: Mapping[str, Any] | None) -> WantedEnvironment | None:
    """What is asked for, with what `ray job submit` has said of it."""
    return wanted(
        init_options.merged_runtime_env(
            asked,
            os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"),
            override=os.environ.get("RAY_OVERRIDE_JOB_RUNTIME_ENV") == "1",
        )
    )


def _machine(
    config: CoreConfig,
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    labels: Mapping[str, str] | None,
) -> Machine:
    """What this machine offers, where nothing else is said all that it has."""
    return offer(
        num_cpus=_cpus() if num_cpus is None else num_cpus,
        num_gpus=num_gpus,
        memory_bytes=max(0, memory_bytes() - config.object_store_bytes),
        store_bytes=config.object_store_bytes,
        resources=resources,
        labels=labels,
        environ=os.environ,
    )


def _connect(
    address: str | None,
    *,
    environment: WantedEnvironment | None,
    namespace: str | None,
    metadata: Mapping[str, str],
    logging: LoggingConfig | None,
    of_ray: Mapping[str, Any],
) -> None:
    """Let a Ray cluster do the work."""
    from ..engines.ray_cluster import connection  # imports ray, which is an extra and takes its time

    if logging is not None:
        logging.apply()
    current.set_engine(
        connection.connect(
            connection.Wishes(address, environment, namespace, metadata, logging, of_ray),
            version=importlib.import_module(__name__.split(".", maxsplit=1)[0]).__version__,
        )
    )


def _start(
    engine: str,
    *,
    machine: Machine,
    config: CoreConfig,
    namespace: str,
    environment: WantedEnvironment | None,
    preload: list[str],
    logging: LoggingConfig | None,
    log_to_driver: bool,
) -> None:
    """Begin a session on this machine."""
    host_process.raise_file_limit()
    host_process.exit_on_sigterm()
    if logging is not None:
        logging.apply()
    if engine == "inline":
        from ..engines.inline.engine import InlineEngine  # the others need not pay for it

        current.set_engine(
            InlineEngine(
                machine.resources,
                gpus=machine.gpus,
                gpus_listed=machine.gpus_listed,
                labels=machine.labels,
                namespace=namespace,
                job_id=_JOB_ID,
                store_bytes=config.object_store_bytes,
                inline_bytes=config.inline_bytes,
                history_tasks=config.history_tasks,
                report_unhandled=bool(config.report_unhandled_errors),
                environment=environment,
            )
        )
        return
    cluster = start(
        machine,
        config=config,
        job_id=_JOB_ID,
        preload=preload,
        namespace=namespace,
        logging=logging,
        log_to_driver=log_to_driver,
    )
    driver: NativeEngine | None = None
    try:
        process = Process(cluster.session, ids.new_worker_id(), "driver", cluster.arena)
        process.environments.inherited = process.environments.resolve(environment)
        driver = NativeEngine(process, cluster)
        driver.watch_cluster()
        process.start()
    except BaseException:
        if driver is None:
            cluster.stop()
        else:
            driver.shutdown()
        raise
    current.set_engine(driver)


def start_on_demand() -> None:
    """What a call does that needs a session where there is none.

    Raises:
      SessionError: RAY_ENABLE_AUTO_CONNECT=0 forbids it.
    """
    if os.environ.get("RAY_ENABLE_AUTO_CONNECT") == "0":
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    init()


def shutdown(*, wait_for_processes: bool = False) -> None:  # noqa: ARG001
    """End the session: every process that `init` has started, and what they hold. Without a session, nothing.

    Called by itself when Python exits. Arrays that were got before stay valid; refs do not.

    Args:
      wait_for_processes: accepted for Ray's sake: all have ended when this returns.
    """
    engine = current.running()
    if engine is not None:
        current.set_engine(None)
        engine.shutdown()
        host_process.restore_sigterm()


def is_initialized() -> bool:
    """Whether there is a session."""
    return current.running() is not None


def _context() -> RayContext:
    engine = current.engine()
    here = {"node_ip_address": ADDRESS, "address": CLUSTER_ADDRESS, "gcs_address": CLUSTER_ADDRESS}
    absent = {"redis_address": None, "webui_url": "", "metrics_export_port": None, "dashboard_agent_listen_port": None}
    node_id = engine.place().node_id.hex()
    return RayContext({**here, **absent, "node_id": node_id, **engine.whereabouts()}, shutdown)


def _config(object_store_memory: int | None) -> CoreConfig:
    overrides = {} if object_store_memory is None else {"object_store_bytes": _check_store_bytes(object_store_memory)}
    config = from_environment(overrides)
    size = _check_store_bytes(config.object_store_bytes or int(memory_bytes() * config.store_fraction))
    # Every process that puts takes a slab: in a small store they are small, so that there are enough of them.
    slab = min(config.slab_bytes, max(1, size // _LEAST_SLABS // _MEBIBYTE) * _MEBIBYTE)
    return from_environment({**overrides, "object_store_bytes": size, "slab_bytes": slab})


def _check_store_bytes(size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"object_store_memory is a whole number of bytes, not {type(size).__name__} {size!r}")
    if size < 8 * _MEBIBYTE:
        raise ValueError(f"object_store_memory must be at least {8 * _MEBIBYTE} bytes (8 MiB), not {size}")
    return size // _MEBIBYTE * _MEBIBYTE


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
