"""Which processes a session has and has had: their pids, when they came and went, and how. Pure.

For those who ask what goes on. The living are all here, of the dead the last `remembered`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..scheduling.machine import ADDRESS


class ProcessBook:
    """Drivers and workers of one node."""

    def __init__(self, node_id: bytes, *, remembered: int = 1_000) -> None:
        self._node_id = node_id
        self._living: dict[bytes, dict[str, Any]] = {}
        self._dead: deque[dict[str, Any]] = deque(maxlen=remembered)

    def joined(self, worker_id: bytes, kind: str, pid: int, now_ms: float) -> None:
        """A process has registered."""
        self._living[worker_id] = {
            "worker_id": worker_id.hex(),
            "is_alive": True,
            "worker_type": kind.upper(),
            "exit_type": None,
            "exit_detail": None,
            "node_id": self._node_id.hex(),
            "ip": ADDRESS,
            "pid": pid,
            "start_time_ms": now_ms,
            "end_time_ms": None,
        }

    def died(self, worker_id: bytes, cause: str, now_ms: float, *, intended: bool) -> None:
        """A process has ended; `intended`: we wanted it to."""
        row = self._living.pop(worker_id, None)
        if row is not None:
            kind = "INTENDED_SYSTEM_EXIT" if intended else "SYSTEM_ERROR"
            row.update(is_alive=False, exit_type=kind, exit_detail=cause, end_time_ms=now_ms)
            self._dead.append(row)

    def pid(self, worker_id: bytes) -> int:
        """The pid of a living process; 0 if there is none."""
        row = self._living.get(worker_id)
        return 0 if row is None else int(row["pid"])

    def drivers(self) -> list[bytes]:
        """The worker ids of the living drivers."""
        return [worker_id for worker_id, row in self._living.items() if row["worker_type"] == "DRIVER"]

    def living(self) -> list[dict[str, Any]]:
        """A row for each process, as `rows.WorkerState` has them."""
        return list(self._living.values())

    def everybody(self) -> list[dict[str, Any]]:
        """`living`, and the dead that are remembered."""
        return [*self._living.values(), *self._dead]
