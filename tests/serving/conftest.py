"""A small implementation of what HTTP needs of policies: linear policies with a version counter."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium import spaces

from shoal.serving.checking import Checker
from shoal.serving.errors import PolicyNotFound, ServingError, Unready
from shoal.serving.http_server import HttpServer, HttpSettings
from shoal.serving.measures import ROWS, SECONDS, PolicyMetrics, ServingMetrics, Tally
from shoal.serving.requests import ActReply, ActRequest, PolicyInfo, VersionInfo, parse_name
from shoal.serving.spaces import columns_of, leaves, space_form

#: A space with a leaf of every kind, nested.
EVERYTHING = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (4, 3), np.uint8),
        "state": spaces.Tuple((spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(3, start=5))),
        "gears": spaces.MultiDiscrete([2, 3]),
        "lamps": spaces.MultiBinary(2),
    }
)


def info_of(
    name: str, observation_space: spaces.Space, action_space: spaces.Space, *, state_size: int = 0, max_rows: int = 64
) -> PolicyInfo:
    version = VersionInfo(number=1, source="made by a test", loaded_at=0.0, state="serving")
    return PolicyInfo(
        name=name, versions=(version,), observation_space=space_form(observation_space),
        action_space=space_form(action_space), recurrent=state_size > 0, state_size=state_size, max_rows=max_rows,
    )  # fmt: skip


class LinearPolicy:
    """Scores are the sums of an observation times (1, 2, ...) plus the version; the state counts steps."""

    def __init__(self, info: PolicyInfo) -> None:
        self.info = info
        self.checker = Checker(info)
        self.latency, self.rows = Tally(SECONDS), Tally(ROWS)
        self.answers: dict[str, int] = {}

    @property
    def version(self) -> int:
        return self.info.versions[0].number

    def act(self, request: ActRequest) -> ActReply:
        request = self.checker.checked(request)
        rows = request.num_rows
        names = columns_of(self.info.observation_space)
        flat = np.concatenate([request.observations[name].reshape(rows, -1) for name in names], 1)
        scores = flat.astype(np.float64) @ np.arange(1.0, flat.shape[1] + 1) + self.version
        state = None
        if self.info.state_size:
            before = np.zeros((rows, self.info.state_size), np.float32) if request.state is None else request.state
            state = before + 1
        actions = {}
        for path, leaf in leaves(self.info.action_space):
            if leaf.kind == "box":
                values = np.broadcast_to(scores.reshape(rows, *[1] * len(leaf.shape)), (rows, *leaf.shape))
            else:
                nvec, start = np.reshape(leaf.nvec, leaf.shape), leaf.start[0]
                values = start + np.floor(np.abs(scores)).reshape(rows, *[1] * len(leaf.shape)) % nvec
            actions[path] = values.astype(leaf.dtype)
        return ActReply(
            actions=nested(self.info.action_space, actions), policy=self.info.name, version=self.version,
            log_prob=np.full(rows, -0.5, np.float32) if request.want_log_prob else None,
            value=scores.astype(np.float32) if request.want_value else None, state=state,
            drawn=np.floor(scores)[:, None] if request.want_drawn else None,
        )  # fmt: skip


def nested(space, arrays, path=""):
    if not hasattr(space, "parts"):
        return arrays[path]
    parts = {name: nested(part, arrays, f"{path}/{name}" if path else name) for name, part in space.parts.items()}
    return parts if space.kind == "dict" else tuple(parts.values())


class SmallPolicies:
    """What HTTP needs, for policies that answer at once, or as ``before_act`` has it."""

    def __init__(self, *infos: PolicyInfo) -> None:
        self.policies = {info.name: LinearPolicy(info) for info in infos}
        self.is_ready = True
        self.episodes = None
        self.before_act: Callable[[ActRequest], object] | None = None
        self.in_flight = 0

    async def act(self, policy: str, request: ActRequest) -> ActReply:
        if not self.is_ready:
            raise Unready("leaving")
        name, version = parse_name(policy)
        found = self.policies.get(name)
        if found is None or version not in (None, found.version):
            raise PolicyNotFound(f"there is no policy {policy!r}; there are {', '.join(self.policies)}", field="name")
        self.in_flight += 1
        try:
            if self.before_act is not None:
                waiting = self.before_act(request)
                if asyncio.iscoroutine(waiting):
                    await waiting
            reply = found.act(request)
        except ServingError as error:
            found.answers[error.code] = found.answers.get(error.code, 0) + 1
            raise
        finally:
            self.in_flight -= 1
        found.answers["ok"] = found.answers.get("ok", 0) + 1
        found.rows.add(request.num_rows)
        found.latency.add(0.0002)
        return reply

    def swap(self, name: str) -> None:
        """Another version from now on."""
        policy = self.policies[name]
        newest = replace(policy.info.versions[0], number=policy.version + 1)
        policy.info = replace(policy.info, versions=(newest, *policy.info.versions))

    def infos(self) -> list[PolicyInfo]:
        return [policy.info for policy in self.policies.values()]

    def ready(self) -> bool:
        return self.is_ready

    def metrics(self) -> ServingMetrics:
        return ServingMetrics(
            policies=tuple(
                PolicyMetrics(
                    policy=name, latency_s=policy.latency.read(), queue_s=policy.latency.read(),
                    batch_rows=policy.rows.read(), in_flight=self.in_flight, version=policy.version,
                    answers=dict(policy.answers),
                )
                for name, policy in self.policies.items()
            )
        )  # fmt: skip


@pytest.fixture
def cartpole() -> PolicyInfo:
    return info_of("cartpole", spaces.Box(-10, 10, (4,), np.float32), spaces.Discrete(2))


@pytest.fixture
def everything() -> PolicyInfo:
    actions = spaces.Dict({"steer": spaces.Box(-1, 1, (2,), np.float32), "gear": spaces.Discrete(3, start=-1)})
    return info_of("everything", EVERYTHING, actions, state_size=2, max_rows=8)


@pytest.fixture
def policies(cartpole, everything) -> SmallPolicies:
    return SmallPolicies(cartpole, everything)


TOKEN = "a token for tests".replace(" ", "-")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A server on a loop of its own thread, and requests to it."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop

    token = TOKEN
    #: Sent with each request. With one that no plain request has, aiohttp reads it.
    more_headers: ClassVar[dict[str, str]] = {}

    @property
    def port(self) -> int:
        return self.server.port

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """On the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = TOKEN, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = self.more_headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def act(self, name: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", f"/v1/policies/{name}/actions", body, **headers)


@contextlib.contextmanager
def serving_over_http(policies: SmallPolicies, **settings: Any) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> HttpServer:
        server = HttpServer(policies, HttpSettings(**({"token": TOKEN, "port": 0} | settings)))
        await server.start()
        return server

    served = None
    try:
        served = Served(asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30), loop)
        yield served
    finally:
        if served is not None:
            served.run(served.server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def served(policies) -> Iterator[Served]:
    with serving_over_http(policies) as served:
        yield served


@pytest.fixture(params=["plain", "aiohttp"])
def who_reads_requests(request, monkeypatch) -> None:
    """For tests that ask all twice: requests for actions are read in two ways (plain_connection.py)."""
    if request.param == "aiohttp":
        monkeypatch.setattr(Served, "more_headers", {"X-Own": "1"})


@pytest.fixture
def serving() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    return serving_over_http
