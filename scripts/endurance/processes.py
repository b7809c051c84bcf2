"""The processes of a session as the system shows them: who they are, what they hold, what they leave behind.

Read from /proc by pid; nothing here asks shoal, so that a fault of the session cannot hide itself.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Names of processes that are no workers. (Workers bear the names of what they run.)
_ZYGOTE, _HEAD = "shoal-zygote", "shoal-head"
#: How long a process that is told to end may take.
_PATIENCE_S = 5.0
_KIB = 1024


@dataclass(frozen=True)
class Footprint:
    """What a process, or several together, hold at one moment.

    pss_bytes: proportional share of memory, that of the object store included.
    private_bytes: memory that nobody shares.
    """

    pss_bytes: int = 0
    private_bytes: int = 0
    descriptors: int = 0
    threads: int = 0
    processes: int = 0

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(
            self.pss_bytes + other.pss_bytes,
            self.private_bytes + other.private_bytes,
            self.descriptors + other.descriptors,
            self.threads + other.threads,
            self.processes + other.processes,
        )


def of_session() -> list[psutil.Process]:
    """Every process below this one, the driver."""
    return psutil.Process().children(recursive=True)


def workers() -> list[psutil.Process]:
    """Those of them that run tasks or actors: what a zygote has forked, but for the head."""
    return [
        process
        for zygote in psutil.Process().children()
        if _name(zygote) == _ZYGOTE
        for process in zygote.children()
        if _is_worker(process)
    ]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name() != _HEAD and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it has just ended
        return False


def footprint(pid: int) -> Footprint:
    """What process `pid` holds.

    Raises:
      FileNotFoundError, ProcessLookupError: there is none.
      PermissionError: it is another user's.
    """
    kib = dict.fromkeys(("Pss", "Private_Clean", "Private_Dirty"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in kib:
            kib[name] = int(rest.split()[0])
    return Footprint(
        pss_bytes=kib["Pss"] * _KIB,
        private_bytes=(kib["Private_Clean"] + kib["Private_Dirty"]) * _KIB,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        processes=1,
    )


def whole_session() -> Footprint:
    """The driver and every process below it, together."""
    total = footprint(os.getpid())
    for process in of_session():
        try:
            total += footprint(process.pid)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return total


def session_directories() -> set[str]:
    """Folders of sessions on this machine, those of others included."""
    parents = {tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR") or "/tmp"}
    return {str(path) for parent in parents for path in Path(parent).glob("shoal-*") if path.is_dir()}


@dataclass(frozen=True)
class Before:
    """What was there before a session, to be compared with what is there after it."""

    pids: frozenset[int]
    descriptors: frozenset[int]
    directories: frozenset[str]

    @classmethod
    def look(cls) -> Before:
        """Look now."""
        return cls(frozenset(process.pid for process in of_session()), _descriptors(), frozenset(session_directories()))

    def left_behind(self) -> list[str]:
        """What is there that was not, a line each; processes are given a moment to end."""
        gc.collect()  # an error that was caught may hold the frames, and so the arrays, of its traceback
        deadline = time.monotonic() + _PATIENCE_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        new = [process for process in of_session() if process.pid not in self.pids]
        told = [f"process {process.pid} ({_name(process)})" for process in new]
        told += [f"descriptor {number} ({_target(number)})" for number in sorted(_descriptors() - self.descriptors)]
        return told + [f"folder {path}" for path in sorted(session_directories() - self.directories) if _is_ours(path)]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "gone by now"


def _descriptors() -> frozenset[int]:
    """Open descriptors, but for the one that reads the list."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(entry))
        except OSError:
            continue
        found.add(int(entry))
    return frozenset(found)


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return "closed by now"


def _is_ours(directory: str) -> bool:
    """Whether this process made a session's folder: its file names the driver."""
    try:
        return str(os.getpid()) in Path(directory, "owners").read_text(encoding="utf-8").split()
    except OSError:  # another's, or removed at this moment
        return False
