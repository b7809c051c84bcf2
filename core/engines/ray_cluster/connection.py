"""Connecting to a cluster, or starting a local one: `init(engine="ray")`.

    the program has called ray.init     that connection is used, and left as it is at the end
    a cluster runs (`addresses.py`)     knocked at, joined, one of its workers looked at (`libraries.py`)
    none, or address="local"            a Ray is started here, and ended with the session

Ray's arguments go to Ray, which says what it does not like; its own texts of many lines become one here. A process that
was forked from a connected one cannot use Ray, which holds threads and sockets that the fork has not.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...environments.runtime_env import WantedEnvironment
from ...errors import ClusterConnectionError, EngineUnavailableError
from ...ray_compat.job_config import LoggingConfig
from .. import current
from . import addresses, installation, shipping

if TYPE_CHECKING:
    from .engine import RayEngine

#: Arguments that say how a Ray looks that is started here.
_OF_A_NEW_RAY = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory")
#: How often Ray asks a head for its first answer, a second or more apart; by itself 20 times.
_ATTEMPTS = ("RAY_gcs_server_port_wait_time_s", "1")
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `init` was told, as far as Ray is concerned. None and empty: not said.

    own: further arguments of ``ray.init``, by name.
    """

    address: str | None
    environment: WantedEnvironment | None
    namespace: str | None
    metadata: Mapping[str, str]
    logging: LoggingConfig | None
    own: Mapping[str, Any]


def connect(wishes: Wishes, *, version: str) -> RayEngine:
    """Join the cluster that is meant, or start one.

    Args:
      version: of this shoal.

    Raises:
      EngineUnavailableError: Ray is missing or of a version that does not fit, or workers lack what shoal needs.
      ClusterConnectionError: no cluster answers.
      ValueError: an argument that Ray cannot follow there.
    """
    ray = installation.load()
    from . import libraries
    from .engine import RayEngine

    if isinstance(current.before_fork(), RayEngine):
        raise EngineUnavailableError(
            "this process was forked from one that is connected to Ray, which cannot be used in both: start it anew "
            "(multiprocessing's 'spawn'), or connect after the fork"
        )
    if ray.util.client.ray.is_connected():
        raise ValueError(
            "this process is connected by Ray Client (ray://), through which a program cannot see where it runs: start "
            "it on a machine of the cluster (`ray job submit`), without ray.init() or with address='auto'"
        )
    if ray.is_initialized():
        refuse_what_is_settled(wishes, ray.get_runtime_context().gcs_address)
        libraries.check_workers(is_shipped=False, version=version)
        return RayEngine(whereabouts=_whereabouts(ray))
    temp_dir = wishes.own.get("_temp_dir")
    target = addresses.resolved(wishes.address, os.environ)
    running = addresses.recorded(temp_dir) if target in (None, "auto") else target
    starts = target == "local" or (target is None and running is None)
    if not starts:
        refuse_a_new_rays(wishes, running)
        if running is not None:
            _knock(running, is_noted=target != running)
            addresses.check_is_node(running)
    with ExitStack() as stack:
        if not starts:
            stack.enter_context(installation.set_for_a_while(*_ATTEMPTS))
        stack.enter_context(_told_in_a_line(ray, running))
        # What `ray job submit` has said of the environment is in `wishes` already.
        stack.enter_context(installation.set_for_a_while("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1", instead=True))
        stack.enter_context(_keeping_sigterm())
        with shipping.staged_package() as package:  # uploaded when init returns
            joined = ray.init("local" if starts else wishes.address, **_arguments(wishes, package))
        if not starts:
            libraries.check_workers(is_shipped=True, version=version)
        return RayEngine(disconnects=True, whereabouts={**joined.address_info, "webui_url": joined.dashboard_url or ""})


def _knock(running: str, *, is_noted: bool) -> None:
    """`addresses.knock`; of a cluster that nobody has named it is said how it came to be meant."""
    try:
        addresses.knock(running, is_encrypted=os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"))
    except ClusterConnectionError as error:
        if not is_noted:
            raise
        raise ClusterConnectionError(
            f"{error} `ray start` has left a note of it on this machine: `ray stop` forgets it, and address='local' "
            "starts a Ray of your own"
        ) from None


def _arguments(wishes: Wishes, package: str) -> dict[str, Any]:
    """Those of ``ray.init``, but for the address."""
    import ray

    said = {name: value for name, value in wishes.own.items() if value is not None}
    said["runtime_env"] = shipping.job_environment(wishes.environment, package)
    if wishes.namespace is not None:
        said["namespace"] = wishes.namespace
    if wishes.logging is not None:
        said["logging_config"] = ray.LoggingConfig(
            encoding=wishes.logging.encoding,
            log_level=wishes.logging.log_level,
            additional_log_standard_attrs=wishes.logging.additional_log_standard_attrs,
        )
    if wishes.metadata:
        said["job_config"] = ray.job_config.JobConfig(metadata=dict(wishes.metadata))
    return said


def refuse_what_is_settled(wishes: Wishes, connected_to: str) -> None:
    """What the program's own ``ray.init`` has settled cannot be settled again."""
    said = [name for name in _OF_A_NEW_RAY if wishes.own.get(name) is not None]
    said += [name for name in ("namespace", "metadata", "logging") if getattr(wishes, name)]
    said += ["runtime_env"] if wishes.environment is not None else []
    said += ["address"] if wishes.address not in (None, "auto", connected_to) else []
    if said:
        raise ValueError(
            f"this process is connected to the Ray cluster at {connected_to} by ray.init(): say {', '.join(said)} "
            "there, or leave ray.init() to shoal.init(engine='ray', ...)"
        )


def refuse_a_new_rays(wishes: Wishes, running: str | None) -> None:
    """A cluster that runs already has what it has."""
    said = [name for name in _OF_A_NEW_RAY if wishes.own.get(name) is not None]
    if said:
        raise ValueError(
            f"{', '.join(said)}: the Ray cluster that is joined ({running or 'on this machine'}) has its own: leave "
            "them out, or start a Ray here with address='local'"
        )


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place of the program's; where the program has none, it may."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler not in (signal.SIG_DFL, None) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _told_in_a_line(ray: Any, running: str | None) -> Iterator[None]:
    """Ray's failures to begin in one line each; what has begun is ended."""
    try:
        yield
    except BaseException as error:
        ray.shutdown()
        verdict = in_a_line(error, running)
        if verdict is None:
            raise
        raise verdict from error


def in_a_line(error: BaseException, running: str | None) -> Exception | None:
    """What to raise in place of what ``ray.init`` has raised; None: that itself.

    Args:
      running: the cluster that was to be joined.
    """
    is_of_token = type(error).__name__ == "AuthenticationError" or "AuthenticationError" in str(error.__cause__)
    if isinstance(error, EngineUnavailableError):
        return None
    # A node that does not come up in time is to Ray an Exception, and no more.
    is_known = isinstance(error, (ConnectionError, RuntimeError, ValueError)) or type(error) is Exception
    if not is_of_token and not is_known:
        return None
    text = str(error)
    where = f"the Ray cluster at {running}" if running else "Ray"
    versions = _VERSIONS.findall(text)
    if "Version mismatch" in text and len(versions) == 2:
        (their_ray, their_python), (our_ray, our_python) = versions
        change = [f"pip install 'ray=={their_ray}' here"] if their_ray != our_ray else []
        change += [f"run the driver with Python {their_python}"] if their_python != our_python else []
        if their_python != our_python and their_python.split(".")[:2] == our_python.split(".")[:2]:
            change[-1] += " (RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor lets it pass)"
        return EngineUnavailableError(
            f"{where} has Ray {their_ray} and Python {their_python}, this process Ray {our_ray} and Python "
            f"{our_python}: {' and '.join(change)}"
        )
    if is_of_token:
        return ClusterConnectionError(
            f"{where} asks for a token: set RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token "
            "or RAY_AUTH_TOKEN (on its head: ray get-auth-token)"
        )
    if "No node info found" in str(error.__cause__):
        return ClusterConnectionError(addresses.not_of_the_cluster(running or "the address given"))
    if "Could not find any running Ray" in text:
        return ClusterConnectionError(
            "no Ray cluster runs on this machine: start one (ray start --head), give the address of one (host:6379), "
            "or leave the address out to have a Ray of your own"
        )
    line = " ".join(text.split())
    if isinstance(error, ConnectionError):
        return ClusterConnectionError(f"no Ray cluster answers at {running or 'the address given'}: {line}")
    return ValueError(f"Ray: {line}") if isinstance(error, ValueError) else EngineUnavailableError(f"Ray: {line}")


def _whereabouts(ray: Any) -> dict[str, Any]:
    """Of a connection that is not ours, as far as Ray tells it."""
    from .place import session_directory

    here = ray.get_runtime_context()
    unknown = dict.fromkeys(("object_store_address", "raylet_socket_name"))
    return {
        **unknown,
        "node_ip_address": ray.util.get_node_ip_address(),
        "address": here.gcs_address,
        "gcs_address": here.gcs_address,
        "session_dir": session_directory(),
        "node_id": here.get_node_id(),
    }
