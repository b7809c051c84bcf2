"""How much memory there is: the machine's, or what the container that this process is in leaves of it.

On Linux a container is a control group with a limit. What counts is the least of the limits of a process's own group
and of all above it. There are two interfaces:

    version 2    /proc/self/cgroup has "0::PATH"           /sys/fs/cgroup/PATH/memory.max
    version 1    /proc/self/cgroup has "N:memory:PATH"     /sys/fs/cgroup/memory/PATH/memory.limit_in_bytes

In a container PATH may be one of the host, of which the container sees nothing but its own group, as the root. Then,
and where a file is not there or says "max", there is no limit by that group. Swap is left out of account.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROCESS_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def memory_bytes() -> int:
    """Memory that this process and those that it starts may use together, as far as anybody limits it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(_PROCESS_GROUPS, _GROUPS)])


def _limits(process_groups: Path, groups: Path) -> Iterator[int]:
    """The limits of the groups that a process is in.

    Args:
      process_groups: The file that names them.
      groups: Where the file system of control groups is mounted.
    """
    try:
        lines = process_groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _limits_above(groups, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_above(groups / "memory", path, "memory.limit_in_bytes")


def _limits_above(root: Path, path: str, file: str) -> Iterator[int]:
    """Those of a group and of all above it, as far as they can be seen."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # of a group outside of what this process sees
        parts = []
    for depth in range(len(parts), -1, -1):
        try:
            told = root.joinpath(*parts[:depth], file).read_text(encoding="ascii").strip()
        except OSError:  # no such group here, or the root of all, which has no limit
            continue
        if told.isdigit():
            yield int(told)
