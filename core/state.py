"""What there is: nodes and their resources. Answered by the engine, without any web server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engines.base import Engine, NodeDescription
from .engines.current import running
from .errors import SessionError
from .resources import SCALE


def nodes() -> list[dict[str, Any]]:
    """The machines of the session, as Ray describes them: NodeID, Alive, Resources, Labels, NodeManagerHostname, ...

    On one machine the ports of Ray's are 0: processes speak through sockets in the session's directory. A Ray cluster
    tells of nodes that have died, too.

    Raises:
      SessionError: there is no session.
    """
    return [_row(node) for node in _engine().nodes()]


def cluster_resources() -> dict[str, float]:
    """All resources of the session, in units: ``{"CPU": 2.0, "memory": ...}``. Raises as `nodes`."""
    return _units(_engine().stock().total)


def available_resources() -> dict[str, float]:
    """What nobody has taken at this moment; names of which nothing is left are missing. Raises as `nodes`."""
    return {name: amount for name, amount in _units(_engine().stock().available).items() if amount > 0}


def _row(node: NodeDescription) -> dict[str, Any]:
    ports = ("NodeManagerPort", "ObjectManagerPort", "RuntimeEnvAgentPort")
    absent = ("MetricsExportPort", "MetricsAgentPort", "DashboardAgentListenPort")
    return {
        "NodeID": node.node_id.hex(),
        "Alive": node.is_alive,
        "alive": node.is_alive,
        "AliveSubState": "",
        "NodeManagerAddress": node.address,
        "NodeManagerHostname": node.hostname,
        "NodeName": node.address,
        **dict.fromkeys(ports, 0),
        **dict.fromkeys(absent, -1),
        "ObjectStoreSocketName": "",
        "RayletSocketName": "",
        "DeathReason": 0,
        "DeathReasonMessage": "",
        "Resources": _units(node.total),
        "Labels": dict(node.labels),
        **node.further,
    }


def _engine() -> Engine:
    engine = running()
    if engine is None:
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return engine


def _units(parts: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / SCALE for name, amount in parts.items()}
