"""How a policy server serves, for all its policies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Bounds and goals of a server; each is the same for every policy.

    Raises:
      ValueError: a number is out of range.
    """

    slo_s: float | None = None
    """Seconds within which a request should be answered. Batches are kept short enough for it, and a request that could
    not be answered in time is refused at once. None: no matter; then only the bound on waiting rows refuses."""

    max_batch_rows: int = 64
    """Rows that are answered together, at most; a larger request is a batch by itself."""

    max_waiting_rows: int = 4096
    """Rows that may wait; who comes then is refused with a time to come back."""

    max_request_rows: int = 1024
    """Rows of one request."""

    timeout_s: float = 30.0
    """Seconds after which a request that gave itself no time is given up."""

    max_sessions: int = 10_000
    """Recurrent states that are kept; the one used longest ago goes first."""

    session_idle_s: float = 600.0
    """Seconds after which a session that nobody uses is forgotten."""

    device: str = "cpu"
    """Where policies act: cpu in numpy, else torch's name of a device, or auto, a GPU if there is one. Recurrent
    policies act on a CPU only."""

    seed: int = 0
    """Of what actions are drawn with."""

    def __post_init__(self) -> None:
        if self.slo_s is not None and not self.slo_s > 0.0:
            raise ValueError(f"slo_s must be None or greater than 0, not {self.slo_s}")
        for name in ("max_batch_rows", "max_waiting_rows", "max_request_rows", "timeout_s", "max_sessions"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.max_waiting_rows < max(self.max_batch_rows, self.max_request_rows):
            raise ValueError(
                f"max_waiting_rows ({self.max_waiting_rows}) must be at least max_batch_rows "
                f"({self.max_batch_rows}) and max_request_rows ({self.max_request_rows})"
            )
