"""Policies over HTTP: the shell around ``Policies``. aiohttp reads and writes; what is decided is decided elsewhere.

    POST /v1/policies/{name}/actions   name or name:version; JSON or tensors (wire.py), answered in the same form
    GET  /v1/policies                  what there is: spaces, versions, traffic
    POST /v1/episodes                  a simulator begins an episode, where a learner wants them
    POST /v1/episodes/{name}/steps     what it sees, answered with an action
    POST /v1/episodes/{name}/end       how it ended
    GET  /healthz  /readyz             the process is there; it answers requests
    GET  /metrics                      Prometheus text
    GET  /openapi.json  /              the document of all this; a page to try it

Each request: Host and Origin (http_access.py), path, method, token, form and size, then ``Policies.act``, which waits
in the queue of its batch on this very loop. Every failure is a ServingError and is answered as JSON that names the
field; what is not expected is logged here and told without its traceback. Only what is no HTTP at all is answered by
aiohttp, with a 400 in plain text.

There is no middleware and no router: of 130 us that aiohttp takes for a request they are 20. Plain requests for
actions, nearly all that come, are read and sent without it (plain_connection.py), and answered by the same methods.

Leaving: ``drain`` makes /readyz say no, then answers new requests with 503, waits for those under way, and closes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import episode_wire, forms, http_access, openapi, page, prometheus, wire
from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStarted, EpisodeStep, StartEpisode, StepReply
from .errors import (
    BadRequest,
    MethodNotAllowed,
    Overloaded,
    PolicyFailed,
    RouteNotFound,
    ServingError,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unready,
    UnsupportedForm,
)
from .http_answer import Answer
from .http_counts import HttpCounts
from .interface import Policies
from .plain_connection import PlainConnection
from .plain_request import PlainRequest

if TYPE_CHECKING:
    from typing import TypeAlias

    from aiohttp import StreamReader, web

    #: A request, whoever read it.
    Asked: TypeAlias = web.BaseRequest | PlainRequest

logger = logging.getLogger(__name__)

#: Where actions are asked for; a slash in a name would have to be written %2F.
ACTIONS = re.compile(r"/v1/policies/([^/]+)/actions")
#: Where simulators tell of their episodes.
EPISODES = re.compile(r"/v1/episodes(?:/([^/]+)/(steps|end))?")
#: For what has just begun when the server closes, and for answers that are on their way.
_LAST_S = 0.1
#: How long what a client still sends is read when it has been told that it is too much, so that it hears that.
_LINGER_S = 1.0
#: Told a browser that asks, without a token, what a page of an allowed origin may ask.
_WHAT_PAGES_MAY_ASK = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How policies are served over HTTP."""

    token: str = field(repr=False)
    """What requests must name."""
    host: str = "127.0.0.1"
    """Address to listen at. Loopback unless somebody says otherwise; the token then crosses the network unencrypted."""
    port: int = 8000
    """0: any that is free."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which others reach this server, besides the address itself."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may ask, besides the server's own page."""
    max_body_bytes: int = 32 << 20
    """Of a request in tensors: 64 states of 500 KB."""
    max_json_bytes: int = 1 << 20
    """Of a request in JSON. Reading it holds up everybody else, for 15 ms a megabyte."""
    body_timeout_s: float = 30.0
    """For a body to arrive whole."""
    idle_s: float = 75.0
    """After which a connection that asks nothing is closed; also one that does not end the head of a request."""
    notice_s: float = 0.0
    """How long /readyz says no before the first request is turned away, so that who balances load can look."""
    drain_s: float = 30.0
    """For requests under way to be answered when the server leaves."""


class HttpServer:
    """Serves policies over HTTP on the running event loop.

    Args:
      policies: Who answers.
      settings: How.

    Raises:
      ValueError: the settings contradict each other.
      ImportError: aiohttp is missing; says how to install it.
    """

    def __init__(self, policies: Policies, settings: HttpSettings) -> None:
        try:
            from aiohttp import http, web
        except ImportError as error:
            raise ImportError("serving over HTTP needs aiohttp: pip install 'shoal[serve]'") from error
        self._web, self._software = web, http.SERVER_SOFTWARE
        self._policies = policies
        self._settings = settings
        hosts = http_access.served_hosts(settings.host, settings.allowed_hosts)
        self._door = http_access.Door(settings.token, hosts, settings.allowed_origins)
        self._counts = HttpCounts()
        self._listening: asyncio.Server | None = None
        self._runner: web.ServerRunner | None = None  #: of connections that are aiohttp's
        self._plain: set[PlainConnection] = set()
        self._is_ready = True
        self._is_leaving = False
        self._emptied = asyncio.Event()  #: set when it leaves and has answered all
        self._routes: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/": self._get_page,
            "/healthz": self._get_health,
            "/readyz": self._get_readiness,
            "/metrics": self._get_metrics,
            "/openapi.json": self._get_openapi,
            "/v1/policies": self._get_policies,
        }
        #: The port, once it listens.
        self.port = settings.port

    async def start(self) -> None:
        """Listen.

        Raises:
          OSError: the address cannot be had.
        """
        web = self._web
        # All that aiohttp itself could log is that somebody sent what is no HTTP, with a traceback for each.
        silent = logging.getLogger(f"{__name__}.aiohttp")
        silent.setLevel(logging.CRITICAL)
        # Nothing is decompressed: a few bytes would be as large as one likes before anybody counts them.
        others = web.Server(
            self._through_aiohttp,
            access_log=None,
            logger=silent,
            auto_decompress=False,
            keepalive_timeout=self._settings.idle_s,
            lingering_time=_LINGER_S,
        )
        self._runner = web.ServerRunner(others, shutdown_timeout=_LAST_S)
        await self._runner.setup()
        made = functools.partial(
            PlainConnection, self._handle, others,
            software=self._software, idle_s=self._settings.idle_s, open_ones=self._plain,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(made, self._settings.host, self._settings.port, backlog=128)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def drain(self) -> None:
        """Take no new requests, answer those that are under way, for at most ``drain_s``, and close. Twice is once."""
        self._is_ready = False
        await asyncio.sleep(self._settings.notice_s)
        self._is_leaving = True
        if self._counts.in_flight:
            try:
                await asyncio.wait_for(self._emptied.wait(), self._settings.drain_s)
            except asyncio.TimeoutError:
                logger.warning("%d requests unanswered after %g s", self._counts.in_flight, self._settings.drain_s)
        await self.close()

    async def close(self) -> None:
        """Stop listening and cut what is still there."""
        self._is_ready, self._is_leaving = False, True
        listening, self._listening = self._listening, None
        if listening is not None and self._runner is not None:
            listening.close()
            await asyncio.sleep(0)  # who has just been let in is told of a connection first
            under_way = [each.under_way for each in self._plain if each.under_way is not None]
            if under_way:
                await asyncio.wait(under_way, timeout=_LAST_S)
            left = list(self._plain)
            for connection in left:
                connection.close()
            if left:  # a large answer goes out bit by bit, as it is read
                await asyncio.wait([connection.ended for connection in left], timeout=_LAST_S)
            await self._runner.cleanup()

    # --- one request ----------------------------------------------------------------------------------------------

    async def _through_aiohttp(self, request: web.BaseRequest) -> web.Response:
        answer = await self._handle(request)
        headers = {"Content-Type": answer.form, **answer.headers}
        response = self._web.Response(body=answer.body, status=answer.status, headers=headers)
        if answer.is_last:
            response.force_close()
        return response

    async def _handle(self, request: Asked) -> Answer:
        began = time.perf_counter()
        counts = self._counts
        counts.in_flight += 1
        route, permission = "other", http_access.NO_PERMISSION
        try:
            headers = request.headers
            self._door.check_origin(headers.get("Host"), headers.get("Origin"))
            permission = self._door.permission(headers.get("Origin"))
            acting = _policy_named(request.raw_path)
            if permission and request.method == "OPTIONS" and "Access-Control-Request-Method" in headers:
                route, answer = "preflight", Answer(b"", "text/plain", 204, dict(_WHAT_PAGES_MAY_ASK))
            elif acting is not None:
                route = "actions"
                answer = await self._post_actions(request, acting)
            else:
                path = request.raw_path.partition("?")[0]
                told = EPISODES.fullmatch(path)
                if told is not None:
                    route = f"episodes/{told[2] or 'start'}"
                    answer = await self._post_episodes(request, *told.groups())
                else:
                    handler = self._routes.get(path)
                    if handler is None:
                        raise RouteNotFound(f"nothing is served at {path[:80]!r}")
                    route = path
                    answer = await self._get(request, path, handler)
        except ServingError as error:
            answer = self._failure(error)
        except Exception:
            logger.exception("%s %s", request.method, route)
            answer = self._failure(PolicyFailed("this is a fault of the server; its log says which"))
        finally:
            counts.in_flight -= 1
            if self._is_leaving and not counts.in_flight:
                self._emptied.set()
        if self._is_leaving:
            answer.is_last = True
        if permission:
            answer.headers = {**answer.headers, **permission}
        counts.add(route, answer.status, time.perf_counter() - began)
        return answer

    async def _post_actions(self, request: Asked, name: str) -> Answer:
        form = self._form_of_posted(request)
        body = await self._body(request, form)
        if form == wire.JSON_FORM:
            reply = wire.write_json_reply(await self._policies.act(name, wire.read_json_request(body)))
        else:
            reply = wire.write_tensor_reply(await self._policies.act(name, wire.read_tensor_request(body)))
        return Answer(reply, form)

    async def _post_episodes(self, request: Asked, name: str | None, part: str | None) -> Answer:
        form = self._form_of_posted(request)
        body = await self._body(request, form)
        desk = self._policies.episodes
        if desk is None:
            raise RouteNotFound("nobody learns from episodes here: `shoal train --env external --serve` does")
        reply: EpisodeStarted | StepReply | EpisodeEnded
        if name is None:
            reply = await desk.start(episode_wire.read(StartEpisode, body, form))
        elif part == "steps":
            reply = await desk.step(_unquoted(name), episode_wire.read(EpisodeStep, body, form))
        else:
            reply = await desk.end(_unquoted(name), episode_wire.read(EpisodeEnd, body, form))
        return Answer(episode_wire.write_reply(reply, form), form)

    async def _get(self, request: Asked, path: str, handler: Callable[[], Awaitable[Answer]]) -> Answer:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method[:16]} {path}: it takes GET", allowed="GET, HEAD")
        if path not in http_access.OPEN:
            self._door.check_token(request.headers.get("Authorization"))
        return await handler()

    def _form_of_posted(self, request: Asked) -> str:
        """The form of what is asked with POST, when it may be; its body is not looked at."""
        if request.method != "POST":
            raise MethodNotAllowed(f"{request.method[:16]}: here it is asked with POST", allowed="POST")
        headers = request.headers
        self._door.check_token(headers.get("Authorization"))
        if self._is_leaving:
            raise Unready("this server is leaving")
        form = _form_named(headers.get("Content-Type"))
        if form is None:
            raise UnsupportedForm(f"Content-Type is {wire.JSON_FORM} or {wire.TENSOR_FORM}", field="Content-Type")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedForm("nothing is decompressed here", field="Content-Encoding")
        return form

    async def _body(self, request: Asked, form: str) -> bytes:
        """Raises TooLarge before anything is read where its length is told, BadRequest if it does not arrive."""
        limit = self._settings.max_json_bytes if form == wire.JSON_FORM else self._settings.max_body_bytes
        if isinstance(request, PlainRequest):
            body = request.body
        else:
            _check_length(request, limit, form)
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # it may send: aiohttp's router would say so
            body = await self._arrived(request.content, limit)
        if len(body) > limit:
            _check_length(request, limit, form)
            raise TooLarge(f"the body has more than the {limit} bytes that {form} may have")
        return body

    async def _arrived(self, content: StreamReader, limit: int) -> bytes:
        try:
            if content.is_eof():
                return content.read_nowait()
            return await asyncio.wait_for(_arriving(content, limit), self._settings.body_timeout_s)
        except asyncio.TimeoutError as error:
            raise TimedOut(f"the body did not arrive within {self._settings.body_timeout_s:g} s") from error
        except (self._web.RequestPayloadError, OSError) as error:
            raise BadRequest("the body did not arrive whole") from error

    @staticmethod
    def _failure(error: ServingError) -> Answer:
        headers = {}
        if isinstance(error, Overloaded | Unready):
            headers["Retry-After"] = str(max(1, round(error.retry_after_s)))  # whole seconds, RFC 9110, 10.2.3
        elif isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.allowed
        elif isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = "Bearer"
        return Answer(forms.encode(error.to_json()), wire.JSON_FORM, error.status, headers)

    # --- what is read ---------------------------------------------------------------------------------------------

    async def _get_policies(self) -> Answer:
        return _json({"policies": [forms.to_json(info) for info in self._policies.infos()]})

    async def _get_health(self) -> Answer:
        return _json({"status": "ok"})

    async def _get_readiness(self) -> Answer:
        if not self._is_ready:
            raise Unready("this server is leaving")
        if not self._policies.ready():
            raise Unready("no policy is ready to act")
        return _json({"status": "ready"})

    async def _get_metrics(self) -> Answer:
        writer = prometheus.TextWriter()
        prometheus.write_serving(writer, self._policies.metrics())
        self._counts.write(writer)
        return Answer(writer.text().encode(), prometheus.CONTENT_TYPE)

    async def _get_openapi(self) -> Answer:
        return _json(openapi.document())

    async def _get_page(self) -> Answer:
        headers = dict(page.headers())
        return Answer(page.html(), headers.pop("Content-Type"), headers=headers)


def _json(value: object) -> Answer:
    return Answer(forms.encode(value), wire.JSON_FORM)


def _check_length(request: Asked, limit: int, form: str) -> None:
    length = http_access.content_length(request.headers.get("Content-Length"))
    if length is not None and length > limit:
        raise TooLarge(f"a body of {length} bytes; {form} may have {limit}", field="Content-Length")


async def _arriving(content: StreamReader, limit: int) -> bytes:
    """A body that is not all there yet; of one that has more than ``limit`` bytes, no more than shows it."""
    parts, size = [], 0
    while size <= limit and (part := await content.readany()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _unquoted(name: str) -> str:
    return unquote(name, errors="replace") if "%" in name else name


@functools.lru_cache(maxsize=64)
def _policy_named(raw_path: str) -> str | None:
    """The policy whose actions are asked for there; None: nobody's. Kept, as the same few are asked all the time."""
    acting = ACTIONS.fullmatch(raw_path.partition("?")[0])
    return None if acting is None else _unquoted(acting[1])


@functools.lru_cache(maxsize=64)
def _form_named(content_type: str | None) -> str | None:
    """The form that a Content-Type header names, if it is one of ours. Kept, as nearly all are the same."""
    form = (content_type or "").partition(";")[0].strip().lower()
    return form if form in (wire.JSON_FORM, wire.TENSOR_FORM) else None
