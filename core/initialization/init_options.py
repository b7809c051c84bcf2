"""What `init` is given, checked: Ray's arguments, of which many mean nothing on one machine. Pure but for logging.

    understood      they change the session
    without effect  `HIDDEN`, dashboards, ports, metadata: a line in the debug log; a Ray cluster is told them
    refused         addresses of clusters, promises that could not be kept, misspellings: an error that says what to do

Ray's texts are kept where programs look at them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from ..ray_compat.job_config import JobConfig

logger = logging.getLogger("shoal")

#: Ray's arguments that are in no documentation and in many programs.
HIDDEN = frozenset(
    {
        "object_spilling_directory",
        "_driver_object_store_memory",
        "_enable_object_reconstruction",
        "_memory",
        "_metrics_export_port",
        "_node_ip_address",
        "_node_name",
        "_plasma_directory",
        "_redis_password",
        "_redis_username",
        "_skip_env_hook",
        "_system_config",
        "_temp_dir",
        "_tracing_startup_hook",
    }
)
#: Addresses that mean this machine, in a session of its own.
_HERE = (None, "local")


def set_log_level(level: int | str) -> None:
    """Set what the logger "shoal" writes.

    Raises:
      ValueError: there is no such level.
    """
    logger.setLevel(level.upper() if isinstance(level, str) else level)


def check_hidden(arguments: Mapping[str, object]) -> None:
    """Look at the arguments that `init` has no name for.

    Raises:
      RuntimeError: one that Ray does not know either, or has given up.
    """
    for gone, text in (
        ("storage", "Cluster-wide storage configuration has been removed, from Ray too"),
        ("allow_multiple", "`allow_multiple` is for Ray Client, which shoal does not have"),
    ):
        if arguments.get(gone):
            raise RuntimeError(f"{text}: do not pass {gone}")
    unknown = [name for name in arguments if name not in (*HIDDEN, "storage", "allow_multiple")]
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")


def without_effect(arguments: Mapping[str, object]) -> None:
    """Note arguments that change nothing here in the debug log."""
    given = sorted(name for name, value in arguments.items() if value is not None)
    if given:
        logger.debug("shoal.init: without effect on one machine: %s", ", ".join(given))


def check_address(address: str | None) -> None:
    """Look whether the session is to be on this machine.

    Raises:
      TypeError: it is no text.
      ConnectionError: a running cluster was asked for, which there is not.
      RuntimeError: it names a cluster elsewhere.
    """
    if address in _HERE:
        return
    if not isinstance(address, str):
        raise TypeError(f"address is a text such as 'local', not {type(address).__name__} {address!r}")
    if address == "auto":
        raise ConnectionError(
            "Could not find any running Ray instance: address='auto' connects to a cluster, and shoal runs in the "
            "process that calls init. Leave the address out, or pass 'local'"
        )
    what = "Ray Client" if "://" in address else "a cluster of several machines"
    raise RuntimeError(
        f"address={address!r} is that of {what}, which shoal's own engines do not connect to. Leave the address out "
        "(and RAY_ADDRESS unset) to run on this machine, or pass engine='ray' to have a Ray cluster do the work"
    )


def check_promises(*, local_mode: bool) -> None:
    """Refuse what could only be ignored.

    Raises:
      RuntimeError: it is wanted.
    """
    if local_mode:
        raise RuntimeError("`local_mode` is no longer supported. To debug in one process, use engine='inline'")


def check_on_this_machine(arguments: Mapping[str, object]) -> None:
    """Look at the arguments that only a Ray cluster can follow; most change nothing here.

    Raises:
      RuntimeError: one is a promise that could only be broken.
    """
    if arguments.get("enable_resource_isolation"):
        raise RuntimeError("enable_resource_isolation: shoal sets up no cgroups; leave it out")
    without_effect({name: value for name, value in arguments.items() if value is not False})


def check_preload_on_ray(preload: Sequence[str]) -> None:
    """Ray starts its workers itself.

    Raises:
      ValueError: it should have them import something.
    """
    if preload:
        raise ValueError(
            "preload: Ray starts its workers itself; leave it out, or name a function that imports what they need: "
            "runtime_env={'worker_process_setup_hook': 'module.function'}"
        )


def check_namespace(namespace: object) -> str:
    """The namespace of the driver: the one given, or one that nobody else has.

    Raises:
      TypeError, ValueError: it is none.
    """
    if namespace is None:
        return str(uuid4())
    if not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if not namespace:
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
    return namespace


def check_job_config(job_config: object) -> JobConfig:
    """The job's settings; none are given: the defaults.

    Raises:
      TypeError: it is no JobConfig.
      RuntimeError: it asks for what shoal cannot do.
    """
    if job_config is None:
        return JobConfig()
    if not isinstance(job_config, JobConfig):
        raise TypeError(f"job_config is a ray.job_config.JobConfig, not {type(job_config).__name__} {job_config!r}")
    if job_config.default_actor_lifetime != "non_detached":
        raise RuntimeError("default_actor_lifetime='detached' is not in shoal: give lifetime='detached' to the actors")
    if job_config.jvm_options or job_config.code_search_path:
        raise RuntimeError("jvm_options and code_search_path are for Java and C++, which shoal does not run")
    return job_config


def merged_runtime_env(
    own: Mapping[str, Any] | None, injected: str | None, *, override: bool
) -> Mapping[str, Any] | None:
    """The driver's runtime_env, with what the one who submitted it as a job wants.

    Args:
      own: what the driver gives to `init`.
      injected: the job's configuration in JSON, from the environment.
      override: the driver's wins where both say something.

    Raises:
      ValueError: both say something of the same key, or of the same variable.
    """
    theirs = dict((json.loads(injected) if injected else {}).get("runtime_env") or {})
    if not theirs:
        return own
    mine = dict(own or {})
    variables = (dict(theirs.pop("env_vars", {})), dict(mine.pop("env_vars", {})))
    twice = {*theirs} & {*mine} | {*variables[0]} & {*variables[1]}
    if twice and not override:
        raise ValueError(
            f"Failed to merge the Job's runtime env {theirs} with a ray.init's runtime env {own}: both give "
            f"{', '.join(sorted(twice))}. RAY_OVERRIDE_JOB_RUNTIME_ENV=1 lets that of init win"
        )
    merged = {**theirs, **mine}
    if any(variables):
        merged["env_vars"] = {**variables[0], **variables[1]}
    return merged
