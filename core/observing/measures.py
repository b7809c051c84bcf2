"""Numbers that user code measures: what one process has, and how those of many become one. Pure but for a lock.

    Counter    only grows                sums add up
    Gauge      what it was last set to   the latest setting counts, whichever process made it
    Histogram  how many were how large   counts of each bucket add up

A row is one measure of one process as it travels: ``{"name", "kind", "description", "tag_keys", "boundaries",
"points": [[values of the tags], numbers] ...}``. The numbers of a counter are [sum], of a gauge [value, time], of
a histogram [count of each bucket ..., sum].
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
#: What tells measures apart: (kind, name, tag keys, boundaries).
Identity: TypeAlias = tuple[str, str, tuple[str, ...], tuple[float, ...]]

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Measures:
    """All measures of one process. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptions: dict[Identity, str] = {}
        self._points: dict[Identity, dict[tuple[str, ...], list[float]]] = {}
        self._changed = False
        #: Called, in any thread, when something is recorded and nothing was since `rows` was last asked for.
        self.on_change: Callable[[], None] = lambda: None
        #: Told of every value (identity, description, values of the tags, value), where others collect them too.
        self.exporter: Callable[[Identity, str, tuple[str, ...], float], None] | None = None

    def declare(self, identity: Identity, description: str) -> None:
        """A measure that exists, though nothing was recorded yet. Twice is the same one."""
        with self._lock:
            self._descriptions.setdefault(identity, description)
            self._points.setdefault(identity, {})

    def record(self, identity: Identity, tags: tuple[str, ...], value: float) -> None:
        """One more value, for these values of the tags."""
        kind, _, _, boundaries = identity
        with self._lock:
            points = self._points[identity]
            if kind == COUNTER:
                points.setdefault(tags, [0.0])[0] += value
            elif kind == GAUGE:
                points[tags] = [value, time.time()]
            else:
                buckets = points.setdefault(tags, [0.0] * (len(boundaries) + 2))
                buckets[bisect_left(boundaries, value)] += 1
                buckets[-1] += value
            first, self._changed = not self._changed, True
            description = self._descriptions[identity]
        if first:
            self.on_change()
        if self.exporter is not None:
            self.exporter(identity, description, tags, value)

    def rows(self) -> list[Row]:
        """Everything, as it travels."""
        with self._lock:
            self._changed = False
            return [_row(identity, self._descriptions[identity], points) for identity, points in self._points.items()]

    def forget(self) -> None:
        """In a forked process: what was measured before is its parent's. The measures themselves stay declared."""
        self._lock = threading.Lock()
        self._points = {identity: {} for identity in self._points}
        self._changed = False
        self.on_change = lambda: None
        self.exporter = None


def merge(rows: Iterable[Row]) -> list[Row]:
    """The rows of many processes as one for each measure, by name."""
    merged: dict[Identity, tuple[str, dict[tuple[str, ...], list[float]]]] = {}
    for row in rows:
        identity = (row["kind"], row["name"], tuple(row["tag_keys"]), tuple(row["boundaries"]))
        _, points = merged.setdefault(identity, (row["description"], {}))
        for tags, numbers in row["points"]:
            known = points.get(tuple(tags))
            points[tuple(tags)] = list(numbers) if known is None else _joined(row["kind"], known, numbers)
    ordered = sorted(merged.items(), key=lambda item: item[0][1])
    return [_row(identity, description, points) for identity, (description, points) in ordered]


def _joined(kind: str, one: list[float], other: Sequence[float]) -> list[float]:
    if kind == GAUGE:
        return list(one if one[1] >= other[1] else other)
    return [a + b for a, b in zip(one, other, strict=True)]


def _row(identity: Identity, description: str, points: dict[tuple[str, ...], list[float]]) -> Row:
    kind, name, tag_keys, boundaries = identity
    return {
        "kind": kind,
        "name": name,
        "description": description,
        "tag_keys": list(tag_keys),
        "boundaries": list(boundaries),
        "points": [[list(tags), list(numbers)] for tags, numbers in points.items()],
    }


#: Of this process. Metrics are made at import time, before there is a session: so they belong to the process.
MEASURES = Measures()
os.register_at_fork(after_in_child=MEASURES.forget)
