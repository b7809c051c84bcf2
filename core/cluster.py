"""Starting a session's processes, and ending them.

`start` spawns the zygote, hands it the session through a pipe, and waits until the head takes messages. The zygote
outlives nobody: it watches the driver and cleans up after it. The driver cleans up after the zygote: `Cluster.stop`
removes what is left, and so does the next `start` for sessions whose processes were all killed at once.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgpack

from .config import CoreConfig
from .errors import SessionError
from .output.printing import Printer
from .protocol.worker_output import mark_of
from .ray_compat import ray_names
from .ray_compat.job_config import LoggingConfig
from .scheduling.machine import Machine
from .session import Session, new_token
from .store.arena import Arena

_PREFIX = "shoal-"
#: In a session's directory: pids of the driver and the zygote.
_OWNERS_FILE = "owners"
#: A directory without that file and of this age belongs to a driver that was killed within microseconds of making it.
_ORPHAN_AGE_S = 60.0
#: The module path comes first: the zygote must find the same shoal as the driver.
_BOOT = "import sys; sys.path[:] = {path!r}; from shoal.core.boot import main; sys.exit(main())"


@dataclass
class Cluster:
    """The processes of a session, as its driver sees them."""

    session: Session
    arena: Arena
    zygote: subprocess.Popen[bytes]
    #: Prints what workers print.
    printer: Printer

    def stop(self) -> None:
        """Wait until everything has ended, by force after `stop_timeout_s`; leave no file. The head has been told."""
        try:
            self.zygote.wait(self.session.config.stop_timeout_s)
        except BaseException as error:  # also Ctrl-C: nothing may be left running
            self.zygote.kill()  # the kernel kills its children
            self.zygote.wait()  # it cannot refuse
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self.printer.close(self.session.config.stop_timeout_s)
            # The zygote has done this, unless it was killed.
            shutil.rmtree(self.session.directory, ignore_errors=True)


def start(
    machine: Machine,
    *,
    config: CoreConfig,
    job_id: bytes,
    preload: list[str],
    namespace: str,
    logging: LoggingConfig | None,
    log_to_driver: bool = True,
) -> Cluster:
    """Start a session on this machine, which offers what `machine` says. For the other arguments see `Session`.

    Args:
      log_to_driver: print here what workers print.

    Raises:
      SessionError: its processes did not come up; says why.
    """
    arena = Arena.create(config.object_store_bytes)
    ready_read, ready_write = os.pipe()
    output_source, output_sink = socket.socketpair()
    directory = ""
    zygote: subprocess.Popen[bytes] | None = None
    try:
        parent = _parent_directory()
        remove_stale(parent)
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)  # mode 0700
        owners = Path(directory, _OWNERS_FILE)
        owners.write_text(f"{os.getpid()}")  # at once: a directory without it belongs to nobody, and nobody removes it
        session = Session(
            directory=directory,
            token=new_token(),
            arena_fd=arena.fd,
            arena_bytes=config.object_store_bytes,
            job_id=job_id,
            driver_pid=os.getpid(),
            resources=machine.resources,
            gpus=machine.gpus,
            gpus_listed=machine.gpus_listed,
            labels=machine.labels,
            path=[os.path.abspath(entry) for entry in sys.path],
            preload=preload,
            namespace=namespace,
            logging=logging,
            as_ray=ray_names.stands_for_ray(),
            log_to_driver=log_to_driver,
            config=config,
        )
        with _without_interrupts():  # one in the middle would leave a process that nobody knows
            zygote = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=session.path), "shoal-zygote"],
                stdin=subprocess.PIPE,
                pass_fds=[arena.fd, ready_write, output_sink.fileno()],
                start_new_session=True,  # the terminal's signals are for the driver
            )
        owners.write_text(f"{os.getpid()} {zygote.pid}")
        assert zygote.stdin is not None
        with zygote.stdin as pipe:
            told = {"session": session.to_dict(), "ready_fd": ready_write, "output_fd": output_sink.fileno()}
            pipe.write(msgpack.packb(told))
        os.close(ready_write)
        ready_write = -1  # only the head's copy is left: if it dies, we read the end
        _await_ready(ready_read, session, zygote)
        printer = Printer(output_source, mark_of(session.token), fold_s=config.fold_output_s)
        return Cluster(session, arena, zygote, printer)
    except BaseException:
        if zygote is not None:
            zygote.kill()  # the kernel kills its children
            zygote.wait()  # it cannot refuse
        if directory:
            shutil.rmtree(directory, ignore_errors=True)
        arena.close()
        output_source.close()
        raise
    finally:
        output_sink.close()
        os.close(ready_read)
        if ready_write >= 0:
            os.close(ready_write)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold SIGINT back. A process started within inherits that; the zygote lets it in again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _await_ready(ready_fd: int, session: Session, zygote: subprocess.Popen[bytes]) -> None:
    timeout_s = session.config.start_timeout_s
    poll = select.poll()
    poll.register(ready_fd, select.POLLIN)
    if not poll.poll(int(timeout_s * 1000)):
        raise SessionError(f"the session's processes did not start within {timeout_s:g} s")
    if not os.read(ready_fd, 1):
        code = zygote.wait(timeout_s)
        raise SessionError(
            f"the session's processes ended while they started (exit code {code}); what they printed stands above"
        )


def remove_stale(parent: str) -> None:
    """Remove directories of sessions whose driver and zygote were killed together, so that neither could clean up."""
    for directory in Path(parent).glob(f"{_PREFIX}*"):
        age_s = 0.0
        try:
            if directory.stat().st_uid != os.getuid():
                continue
            age_s = time.time() - directory.stat().st_mtime
            owners = [int(pid) for pid in (directory / _OWNERS_FILE).read_text().split()]
        except FileNotFoundError:
            # Being made or removed by its own session at this moment, unless that was long ago.
            owners = []
            if not directory.exists() or age_s < _ORPHAN_AGE_S:
                continue
        except (OSError, ValueError):
            continue  # not one of ours
        if not any(_is_alive(pid) for pid in owners):
            shutil.rmtree(directory, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # One killed but never reaped, as under a container's idle first process, is a zombie: "pid (name) Z ...".
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True  # not ours to signal, or no /proc on this system


def _parent_directory() -> str:
    """The user's runtime directory if there is one (memory, mode 0700), else the temporary directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_short(runtime) and os.access(runtime, os.W_OK):
        return runtime
    temporary = tempfile.gettempdir()
    return temporary if _is_short(temporary) else "/tmp"


def _is_short(parent: str) -> bool:
    """Whether the path of a socket below fits: it has at most 107 bytes (103 on macOS), of which ours take 45."""
    return len(os.fsencode(parent)) <= 55
