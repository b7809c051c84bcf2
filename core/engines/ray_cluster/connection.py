"""Connecting to a cluster, or starting a local one: `init(engine="ray")`."""

from __future__ import annotations

from typing import Any

import ray

from .engine import RayEngine


def connect(address: str | None, **arguments: Any) -> RayEngine:
    """`ray.init`, unless this process is connected already."""
    if ray.is_initialized():
        return RayEngine()
    ray.init(address, **arguments)
    return RayEngine(disconnects=True)
