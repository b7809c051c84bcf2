"""Values that change over training. Pure functions of the progress, so resuming needs no schedule state."""

from __future__ import annotations


def linear(start: float, end: float, progress: float) -> float:
    """On the line from ``start`` (progress 0) to ``end`` (progress 1); progress beyond either is held there."""
    progress = min(max(progress, 0.0), 1.0)
    return start + (end - start) * progress
