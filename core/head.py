"""The head of a session: control and node, in one process and one loop.

They speak to each other by the few calls wired here, and to everyone else by messages.
"""

from __future__ import annotations

import os
import socket

from . import ids
from .clock import system_clock
from .control.server import ControlServer
from .node.leases import Infeasible
from .node.server import NodeServer
from .session import Session
from .store.arena import Arena
from .store.regions import RegionTable
from .transport.endpoint import HEAD, Endpoint
from .transport.loop import Loop


def run_head(session: Session, channel: socket.socket, arena: Arena, ready_fd: int) -> None:
    """Serve until the driver says Shutdown; the zygote then ends the session.

    Args:
      channel: to the zygote.
      ready_fd: gets one byte when drivers and workers may connect.
    """
    endpoint = Endpoint(session.directory, HEAD, session.token, carrier=session.config.carrier)
    loop = Loop(endpoint, background_s=session.config.background_s)
    node = NodeServer(
        loop,
        channel,
        node_id=ids.new_node_id(),
        total=session.resources,
        regions=RegionTable(arena.size_bytes),
        memory=arena.view,
        config=session.config,
        clock=system_clock,
    )
    over = False

    def shut_down() -> None:
        nonlocal over
        over = True

    control = ControlServer(loop, node, infeasible=Infeasible, on_shutdown=shut_down)
    node.on_actor_placed = control.actor_placed
    node.on_actor_refused = control.actor_refused

    def process_died(worker_id: bytes, cause: str) -> None:
        loop.hear_out(worker_id)
        endpoint.forget(worker_id)
        control.process_died(worker_id, cause)

    node.on_process_died = process_died
    os.write(ready_fd, b"\1")
    os.close(ready_fd)
    loop.drive_until(lambda: over)
    loop.close()
    endpoint.close()
