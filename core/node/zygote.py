"""The zygote: a process with one thread and no sockets of zmq, from which head and workers are forked.

It has imported what every worker needs, so a worker costs a fork (milliseconds) and not an interpreter (a quarter of a
second). It is the parent of every process of the session, hence the one that reaps them, and the one that cleans up:

    message from the head: Fork, KillWorker      -> fork (or ForkFailed), or kill
    SIGCHLD                                      -> reap; a worker: tell the head (Reaped); the head: end the session
    the driver has died                          -> end the session
    end of session: SIGKILL to all children, reap them, remove the session's directory, exit

If the zygote itself is killed, the kernel kills its children (lifeline.py), and the driver removes the directory.

Not here: what head and workers do; they come as functions.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..protocol.messages import Fork, ForkFailed, KillWorker, Reaped
from . import lifeline
from .zygote_channel import Outbox, channel, receive

#: What a read of the wake pipe takes: signals that came together.
_WAKE_BYTES = 4096


class Zygote:
    """Forks, reaps, cleans up."""

    def __init__(
        self,
        *,
        directory: str,
        driver: int,
        run_head: Callable[[socket.socket], None],
        run_worker: Callable[[bytes, bytes], None],
    ) -> None:
        """
        Args:
          directory: the session's directory, removed at the end.
          driver: pid of the process whose session this is.
          run_head: runs the head in a child, given its end of the channel.
          run_worker: runs the worker of the given id and environment in a child.
        """
        self._directory = directory
        self._driver = driver
        self._run_head = run_head
        self._run_worker = run_worker
        self._workers: dict[int, bytes] = {}
        self._pids: dict[bytes, int] = {}
        self._head_pid = 0
        self._pid = os.getpid()

    def serve(self, *, after_head: Callable[[], None]) -> int:
        """Run until the session ends; returns the head's exit code (0: it was asked to leave; 128 + signal).

        Args:
          after_head: called once the head has been forked: what only the head needed can be let go.
        """
        try:
            driver_ended = lifeline.watch_process(self._driver)
        except ProcessLookupError:
            shutil.rmtree(self._directory, ignore_errors=True)
            return 1
        flush_streams()  # else every child would print what preloaded modules have left in the buffers
        # Objects made so far live in pages shared with every child; a collection in a child would copy them.
        gc.collect()
        gc.freeze()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write)
        self._channel, head_end = channel()
        self._outbox = Outbox(self._channel)
        self._inherited = [wake_read, wake_write, self._channel.fileno()] + (
            [] if driver_ended is None else [driver_ended]
        )
        self._head_pid = self._fork(lambda: self._run_head(head_end), "shoal-head")
        head_end.close()
        after_head()
        poll = select.poll()
        for descriptor in (wake_read, self._channel.fileno(), driver_ended):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        head_speaks = True
        while True:
            if head_speaks:
                poll.modify(self._channel, select.POLLIN if self._outbox.is_empty else select.POLLIN | select.POLLOUT)
            for descriptor, events in poll.poll(None if driver_ended is not None else 500):
                if descriptor == wake_read:
                    os.read(wake_read, _WAKE_BYTES)
                elif descriptor == driver_ended:
                    return self._end(1)
                else:
                    self._outbox.send_on()
                    if events != select.POLLOUT and not self._obey():
                        poll.unregister(descriptor)  # the head is gone; SIGCHLD tells how
                        head_speaks = False
            if driver_ended is None and os.getppid() != self._driver:
                return self._end(1)
            status = self._reap()
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return self._end(code if code >= 0 else 128 - code)  # as shells tell of signals

    def _obey(self) -> bool:
        """Do what the head says; False when it has hung up."""
        message, descriptors = receive(self._channel)
        if isinstance(message, Fork):
            self._fork_worker(message.worker_id, message.environment, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        elif isinstance(message, KillWorker):
            pid = self._pids.get(message.worker_id, 0)
            if pid:
                _kill_group(pid)
        return message is not None

    def _fork_worker(self, worker_id: bytes, environment: bytes, streams: list[int]) -> None:
        try:
            pid = self._fork(lambda: self._run_worker(worker_id, environment), "shoal-worker", streams)
        except OSError as error:  # no memory, or no more processes: the head decides who learns of it
            self._outbox.tell(ForkFailed(worker_id, f"the system could start no process: {error}"))
            return
        self._workers[pid] = worker_id
        self._pids[worker_id] = pid

    def _fork(self, run: Callable[[], None], name: str, streams: Sequence[int] = ()) -> int:
        pid = os.fork()
        if pid:
            _lead_group(pid)
            return pid
        return self._become_child(run, name, streams)

    def _become_child(self, run: Callable[[], None], name: str, streams: Sequence[int]) -> NoReturn:
        """Args: streams: to become stdout and stderr."""
        code = 1
        try:
            for target, descriptor in enumerate(streams, start=1):
                os.dup2(descriptor, target)
                os.close(descriptor)
            lifeline.die_with_parent(self._pid)
            _lead_group(0)
            lifeline.name_process(name)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in self._inherited:
                os.close(descriptor)
            run()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
        except BaseException:  # noqa: BLE001  a child that cannot go on: the one thing left is to say why
            traceback.print_exc()
        finally:
            flush_streams()
            os._exit(code)  # not sys.exit: the stack above is the zygote's

    def _reap(self) -> int | None:
        """Collect ended children; returns the head's wait status once it has ended."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return None
            if ended is None:
                return None
            pid = ended.si_pid
            ours = pid in self._workers or pid == self._head_pid
            if ours:
                _kill_group(
                    pid
                )  # what user code has forked there ends with it; before we reap it, while the pid is ours
            _, status = os.waitpid(pid, 0)
            if pid == self._head_pid:
                self._head_pid = 0
                return status
            worker_id = self._workers.pop(pid, None)
            if worker_id is not None:  # else a preloaded module has started a process of its own
                del self._pids[worker_id]
                self._outbox.tell(Reaped(worker_id, status))

    def _end(self, code: int) -> int:
        """Leave nothing behind."""
        children = [*self._workers, *([self._head_pid] if self._head_pid else [])]
        for pid in children:  # all of them before we wait for any: thousands take seconds to go
            _kill_group(pid)
        for pid in children:
            os.waitpid(pid, 0)  # it cannot refuse
        self._channel.close()
        shutil.rmtree(self._directory, ignore_errors=True)  # the driver may be removing it at this moment
        return code


def flush_streams() -> None:
    """Write out what Python has kept of stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or user code has closed it
            stream.flush()


def _lead_group(pid: int) -> None:
    """Make a child the leader of a process group. Parent and child both do it: whoever comes first."""
    try:
        os.setpgid(pid, pid)
    except (PermissionError, ProcessLookupError):
        pass  # the child has done it, or has ended already


def _kill_group(pid: int) -> None:
    """SIGKILL a child and what it has forked. A zombie takes the signal too: its pid is ours until it is reaped."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left in the group
