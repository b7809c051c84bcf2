"""The children of `shoal bench http`: other servers, with the net that ours has. Usage: http_peers.py NAME PORT CORE.

Run by an interpreter that has the server, and need not have shoal: nothing of it is imported here. Each is set up as
its documentation shows, with one worker and without logs.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import time
from typing import Any

import numpy as np


class Net:
    """64 x 64, tanh; the likelier of two choices."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._layers = [rng.standard_normal(shape).astype(np.float32) for shape in ((4, 64), (64, 64), (64, 2))]

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = np.asarray(body["observations"], np.float32)
        for layer in self._layers[:-1]:
            rows = np.tanh(rows @ layer)
        return {"actions": (rows @ self._layers[-1]).argmax(1).tolist(), "version": 1}


@functools.cache
def _class_for_litserve() -> type:
    class LitServeNet(importlib.import_module("litserve").LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.net = Net()

        def predict(self, request: dict[str, Any]) -> dict[str, Any]:
            return self.net(request)

    LitServeNet.__qualname__ = "LitServeNet"
    return LitServeNet


@functools.cache
def _class_for_mosec() -> type:
    class MosecNet(importlib.import_module("mosec").Worker):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, data: dict[str, Any]) -> dict[str, Any]:
            return self.net(data)

    MosecNet.__qualname__ = "MosecNet"
    return MosecNet


_CLASSES = {"LitServeNet": _class_for_litserve, "MosecNet": _class_for_mosec}


def __getattr__(name: str) -> type:
    """Both servers pickle a class by its name for their workers; it cannot stand here where the server is missing."""
    if name in _CLASSES:
        return _CLASSES[name]()
    raise AttributeError(name)


def litserve(port: int) -> None:
    """LitServe: uvicorn in front of a process with the net."""
    api = _class_for_litserve()(api_path="/act")
    server = importlib.import_module("litserve").LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def mosec(port: int) -> None:
    """MOSEC: a server in Rust in front of a process with the net."""
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    server = importlib.import_module("mosec").Server()
    server.append_worker(_class_for_mosec(), num=1, route="/act")
    server.run()


def ray(port: int) -> None:
    """Ray Serve: a proxy in front of a replica with the net."""
    library, serve = importlib.import_module("ray"), importlib.import_module("ray.serve")

    class Actor:
        def __init__(self, net: Net) -> None:
            self.net = net

        async def __call__(self, request: Any) -> dict[str, Any]:
            return self.net(await request.json())

    library.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    # Ray Serve looks at the annotation: without starlette's type it would not hand over the request.
    Actor.__call__.__annotations__["request"] = importlib.import_module("starlette.requests").Request
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0})(Actor)
    serve.run(deployment.bind(Net()), route_prefix="/act")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    name, at, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    {"litserve": litserve, "mosec": mosec, "ray": ray}[name](int(at))
