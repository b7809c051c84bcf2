"""What there is: nodes and their resources. Answered by the head, without any web server."""

from __future__ import annotations

from typing import Any

from .engines.base import Engine
from .engines.current import running
from .errors import SessionError
from .resources import SCALE
from .scheduling.machine import ADDRESS


def nodes() -> list[dict[str, Any]]:
    """The machines of the session, as Ray describes them: NodeID, Alive, Resources, Labels, NodeManagerHostname, ...

    Where Ray has a port, this is 0: processes speak through sockets in the session's directory.

    Raises:
      SessionError: there is no session.
    """
    engine = _engine()
    node = engine.describe()
    directory = engine.directory()
    ports = ("NodeManagerPort", "ObjectManagerPort", "RuntimeEnvAgentPort")
    absent = ("MetricsExportPort", "MetricsAgentPort", "DashboardAgentListenPort")
    return [
        {
            "NodeID": node.node_id.hex(),
            "Alive": True,
            "alive": True,
            "AliveSubState": "",
            "NodeManagerAddress": ADDRESS,
            "NodeManagerHostname": node.hostname,
            "NodeName": ADDRESS,
            **dict.fromkeys(ports, 0),
            **dict.fromkeys(absent, -1),
            "ObjectStoreSocketName": directory,
            "RayletSocketName": directory,
            "DeathReason": 0,
            "DeathReasonMessage": "",
            "Resources": _units(node.total),
            "Labels": dict(engine.place().node_labels),
        }
    ]


def cluster_resources() -> dict[str, float]:
    """All resources of the session, in units: ``{"CPU": 2.0, "memory": ...}``. Raises as `nodes`."""
    return _units(_engine().describe().total)


def available_resources() -> dict[str, float]:
    """What nobody has taken at this moment; names of which nothing is left are missing. Raises as `nodes`."""
    return {name: amount for name, amount in _units(_engine().describe().available).items() if amount > 0}


def _engine() -> Engine:
    engine = running()
    if engine is None:
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return engine


def _units(parts: Any) -> dict[str, float]:
    return {name: amount / SCALE for name, amount in parts.items()}
