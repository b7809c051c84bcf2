"""The head of a session: control and node, in one process and one loop.

They speak to each other by the few calls wired here, and to everyone else by messages.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import socket
from typing import Any

from . import ids
from .clock import system_clock
from .control.notices import NoticeBoard
from .control.server import ControlServer
from .control.surveys import Surveys
from .node.leases import Infeasible
from .node.output import OutputCollector
from .node.server import NodeServer
from .protocol.worker_output import mark_of
from .session import Session
from .store.arena import Arena
from .store.regions import RegionTable
from .transport.endpoint import HEAD, Endpoint
from .transport.loop import Loop


def run_head(session: Session, channel: socket.socket, arena: Arena, ready_fd: int, output_sink: socket.socket) -> None:
    """Serve until the driver says Shutdown; the zygote then ends the session.

    Args:
      channel: to the zygote.
      output_sink: gets what workers print.
      ready_fd: gets one byte when drivers and workers may connect.
    """
    # A link for every process of the session; 1024 is a common limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    endpoint = Endpoint(session.directory, HEAD, session.token, carrier=session.config.carrier)
    loop = Loop(endpoint, background_s=session.config.background_s)
    output = OutputCollector(output_sink if session.log_to_driver else None, mark_of(session.token))
    node = NodeServer(
        loop,
        channel,
        node_id=ids.new_node_id(),
        total=session.resources,
        gpus=session.gpus,
        labels=session.labels,
        regions=RegionTable(arena.size_bytes),
        memory=arena.view,
        output=output,
        config=session.config,
        clock=system_clock,
    )
    over = False

    def shut_down() -> None:
        nonlocal over
        over = True

    control = ControlServer(loop, node, clock=system_clock, infeasible=Infeasible, on_shutdown=shut_down)
    node.on_actor_placed = control.actor_placed
    node.on_actor_refused = control.actor_refused
    node.on_freed = control.groups.resources_freed
    node.is_gone = control.groups.is_gone
    def leaves(worker_id: bytes) -> None:
        # What `__del__` of its actor and handlers of atexit do may take for ever; callers wait for its end.
        patience_s = session.config.exit_patience_s
        why = f"it was to leave and had not done so in {patience_s:g} s"
        loop.after(patience_s, lambda: node.kill_worker(worker_id, why))

    surveys = Surveys(
        loop,
        members=lambda: node.members,
        facts=lambda subject, key: _facts(subject, key, node, control),
        remembered=session.config.history_tasks,
        on_farewell=leaves,
    )
    NoticeBoard(loop, drivers=node.processes.drivers)

    def process_died(worker_id: bytes, cause: str) -> None:
        endpoint.forget(worker_id)
        control.process_died(worker_id, cause)
        surveys.process_died(worker_id)

    node.on_process_died = process_died
    os.write(ready_fd, b"\1")
    os.close(ready_fd)
    loop.drive_until(lambda: over)
    output.finish(session.config.stop_timeout_s)
    loop.close()
    endpoint.close()


def _facts(subject: str, key: bytes, node: NodeServer, control: ControlServer) -> list[dict[str, Any]]:
    """What the head knows of a subject, a row each (rows.py); beside what it asks processes, who they are."""
    if subject == "workers":
        return node.processes.everybody()
    if subject == "actors":
        return [row for row in control.describe_actors(node.processes.pid) if not key or row["actor_id"] == key.hex()]
    if subject == "usage":
        return [{"total": node.leases.total, "available": node.leases.available}, *node.usage()]
    if subject == "store":
        return [dataclasses.asdict(node.regions.statistics()), *node.processes.living()]
    if subject == "placement_groups":
        return [record.facts() for record in control.groups.groups if not key or record.group_id == key]
    return node.processes.living()
