"""What user code measures (`shoal.util.metrics`), handed on to Ray's metrics, which each node offers to Prometheus.

A measure is made on Ray's side at its first value, under the same name and tags; Ray puts ``ray_`` before the name.
"""

from __future__ import annotations

import threading
from typing import Any

from ray.util import metrics as theirs

from ...observing.measures import COUNTER, GAUGE, Identity


class Exported:
    """Ray's side of this process's measures. Called in any thread (`observing.measures.Measures.exporter`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Identity, Any] = {}

    def __call__(self, identity: Identity, description: str, tags: tuple[str, ...], value: float) -> None:
        kind, _, keys, _ = identity
        with self._lock:
            made = self._made.get(identity)
            if made is None:
                made = self._made[identity] = _made(identity, description)
        named = dict(zip(keys, tags, strict=True))
        if kind == COUNTER:
            made.inc(value, named)
        elif kind == GAUGE:
            made.set(value, named)
        else:
            made.observe(value, named)


def _made(identity: Identity, description: str) -> Any:
    kind, name, keys, boundaries = identity
    if kind == COUNTER:
        return theirs.Counter(name, description, keys)
    if kind == GAUGE:
        return theirs.Gauge(name, description, keys)
    return theirs.Histogram(name, description, list(boundaries), keys)
