"""Every tunable of the core, with unit, default and reason; the only reader of ``SHOAL_*`` environment variables.

`CoreConfig` is made once by the driver and travels to the head and the workers of its session, so that all of them
agree.
"""

from __future__ import annotations

import dataclasses
import os
import select
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class CoreConfig:
    """Settings of one session. Each can be set by the environment variable ``SHOAL_`` + its name in capitals."""

    carrier: str = "unix" if hasattr(select, "epoll") else "zmq"
    """What carries messages between processes: "unix" (sockets of the system, Linux only) or "zmq" (two more threads in
    each process, and half the calls per second).
    """

    inline_bytes: int = 100 * KIB
    """Values up to this size ride inside messages; larger ones go to shared memory. Ray's limit, so that programs see
    the same zero-copy behaviour.
    """

    pipeline_s: float = 0.005
    """How much measured work may wait at one leased worker. Enough to hide a round trip (0.15 ms) many times over,
    little enough that work is never far from an idle CPU.
    """

    pipeline_tasks: int = 1_000
    """Upper bound on the tasks that wait at one leased worker, whatever they cost: what a crash can take with it."""

    stall_s: float = 0.02
    """A task that runs longer than this hands the tasks queued behind it back to their owner."""

    lease_idle_s: float = 0.05
    """How long an owner keeps a worker with nothing to do: longer than the gap in a loop of synchronous calls, shorter
    than anybody notices.
    """

    worker_idle_s: float = 2.0
    """How long the node keeps idle workers beyond one per CPU before it ends them."""

    background_s: float = 0.005
    """While user code runs, the background thread does what arrives; but nothing for this long after user code has
    waited, for it may be about to wait again. Longer than most gaps in a loop of calls.
    """

    store_fraction: float = 0.3
    """Share of the machine's memory that the object store may grow to when `object_store_bytes` is 0; Ray's default."""

    object_store_bytes: int = 0
    """Size of the object store; 0 means `store_fraction` of memory. Pages are taken only as objects are written."""

    slab_bytes: int = 32 * MIB
    """Region a process takes from the store at once, to allocate from without asking; less where the store is small."""

    store_patience_s: float = 0.5
    """How long a process waits for room in a full object store: memory that others let go needs a few messages to come
    back.
    """

    history_tasks: int = 4_000
    """How many finished tasks each process remembers, for `timeline` and `list_tasks`: about 1 MB of memory."""

    notice_s: float = 5.0
    """What waits this long in get or wait, though nothing that it waits for runs, is reported once, with the reason."""

    survey_timeout_s: float = 1.0
    """How long a process may take to answer a question about itself. It is named then, and not waited for: user code
    that keeps Python's lock for minutes must not hide all the others.
    """

    start_attempts: int = 3
    """Workers of one environment that may end by themselves while they start, one after the other, before what waits
    for them fails.
    """

    interrupted_starts: int = 100
    """The same for workers that somebody kills while they start. That is no fault of theirs; but where the kernel kills
    each, because there is no memory for it, or one kills itself, to go on would be to fork for ever.
    """

    fold_output_s: float = 5.0
    """For how long a line that several workers print alike is held back, to be told once with its number. Ray's. 0:
    not at all; RAY_DEDUP_LOGS=0 does the same.
    """

    snapshot_bytes: int = 512 * MIB
    """Most that the files of one `working_dir` or entry of `py_modules` may have together; Ray's limit."""

    start_timeout_s: float = 30.0
    """How long `init` waits for the head, and the head for a new worker."""

    stop_timeout_s: float = 5.0
    """How long `shutdown` waits for the session's processes before it kills them."""

    force_patience_s: float = 1.0
    """How long a worker may take to end itself when its task is cancelled by force, before it is killed."""

    exit_patience_s: float = 30.0
    """How long a worker that leaves may take for handlers of `atexit` and the `__del__` of its actor; Ray's time."""

    report_unhandled_errors: int = 1
    """Whether exceptions of tasks are logged whose refs go before anybody has asked for them. 0: no;
    RAY_IGNORE_UNHANDLED_ERRORS=1 does the same.
    """

    request_timeout_s: float = 30.0
    """How long a question to the head (a name, a function, a region) may stay unanswered: the head never computes, so
    silence this long means that it hangs.
    """

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_environment(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> CoreConfig:
    """The defaults, changed by ``SHOAL_*`` variables, changed by `overrides`.

    Raises:
      ValueError: a variable does not parse, an override names no setting, or a setting is impossible here.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    defaults = dataclasses.asdict(CoreConfig())
    fields: dict[str, type] = {name: type(default) for name, default in defaults.items()}
    for name, kind in fields.items():
        variable = f"SHOAL_{name.upper()}"
        if variable in environ:
            try:
                values[name] = kind(environ[variable])
            except ValueError:
                raise ValueError(
                    f"environment variable {variable}={environ[variable]!r} is not a valid {kind.__name__}"
                ) from None
    if environ.get("RAY_DEDUP_LOGS") == "0":
        values.setdefault("fold_output_s", 0.0)
    if environ.get("RAY_IGNORE_UNHANDLED_ERRORS") == "1":
        values.setdefault("report_unhandled_errors", 0)
    for name, value in (overrides or {}).items():
        if name not in fields:
            raise ValueError(f"unknown setting {name!r}; the settings are {', '.join(fields)}")
        values[name] = value
    config = CoreConfig(**values)
    if config.carrier not in ("unix", "zmq"):
        raise ValueError(f"carrier is {config.carrier!r}; it can be 'unix' or 'zmq'")
    if config.carrier == "unix" and not hasattr(select, "epoll"):
        raise ValueError("carrier 'unix' needs epoll, which this system has not; use 'zmq'")
    return config
