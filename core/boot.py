"""What runs in the processes that `init` starts: the zygote's `main`, and in its children the head and the workers.

driver --spawn, session through stdin--> zygote --fork--> head, workers
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import signal
import socket
import sys

import msgpack
import numpy as np

from . import api
from .engines.native import NativeEngine
from .environments.resolved import Environment
from .head import run_head
from .node import lifeline
from .node.zygote import Zygote
from .protocol.worker_output import mark_of
from .ray_compat import as_ray
from .runtime import (
    async_lanes,  # noqa: F401  workers find it, and asyncio, imported
    standard_streams,
)
from .runtime.process import Process, run_worker
from .session import Session
from .store.arena import Arena


def main() -> int:
    """Become the zygote of the session that stdin describes; returns when the session is over."""
    # The terminal's Ctrl-C is the driver's affair: it decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    lifeline.name_process("shoal-zygote")
    streams = standard_streams.install()
    told = sys.stdin.buffer.read()
    if not told:
        return 1  # the driver has gone before it could say a word
    boot = msgpack.unpackb(told)
    session = Session.from_dict(boot["session"])
    ready_fd, output_sink = boot["ready_fd"], socket.socket(fileno=boot["output_fd"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if session.as_ray:
        as_ray.install()
    for name in session.preload:
        importlib.import_module(name)

    def head(channel: socket.socket) -> None:
        run_head(session, channel, Arena.attach(session.arena_fd), ready_fd, output_sink)

    if session.logging is not None:
        session.logging.apply()

    mark = mark_of(session.token)

    def worker(worker_id: bytes, environment: bytes) -> None:
        faulthandler.enable(2, all_threads=False)  # the other threads are ours, and would fill the last lines
        for stream in streams:
            stream.begin_announcing(mark)
        surroundings = Environment.decode(environment)
        surroundings.apply()
        surroundings.limit_threads()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ours is not that of programs that tasks start
        # A fork repeats its parent's global streams; Python's own `random` reseeds itself.
        np.random.seed()  # noqa: NPY002  the one that users of the old functions share
        if "torch" in sys.modules:
            sys.modules["torch"].seed()
        atexit.unregister(api.shutdown)  # the driver's

        def connect(process: Process) -> None:
            api.connect(NativeEngine(process))
            loop = process.loop
            for stream in streams:
                stream.after = lambda delay_s, call: loop.post(lambda _: loop.after(delay_s, call), None)

        run_worker(session, worker_id, Arena.attach(session.arena_fd), environment, connect, _name_actor)

    zygote = Zygote(directory=session.directory, driver=session.driver_pid, run_head=head, run_worker=worker)

    def after_head() -> None:
        os.close(ready_fd)
        output_sink.close()

    return zygote.serve(after_head=after_head)


def _name_actor(class_name: str, actor: object) -> None:
    """This process has become an actor: what ``ps`` and its output call it."""
    lifeline.name_process(f"shoal::{class_name}")
    standard_streams.name_actor(class_name, actor)
