"""The client of `shoal bench http`: as little of HTTP/1.1 as a benchmark needs, so that the server's time shows.

A request is bytes that were made beforehand; an answer is read up to its length and thrown away, but for its status.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from shoal.scripts.benchmarks.loads import Answered, Load


@dataclass(frozen=True)
class Target:
    """A request that is sent again and again."""

    port: int
    request: bytes

    @classmethod
    def of(cls, port: int, path: str, body: bytes, form: str, token: str = "") -> Target:
        """A POST to 127.0.0.1."""
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Type: {form}"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        lines += [f"Content-Length: {len(body)}", "", ""]
        return cls(port, "\r\n".join(lines).encode() + body)


def is_whole(answer: bytes) -> bool:
    """Whether an answer is there to its end.

    Raises:
      ConnectionError: it is no success, or does not tell where it ends.
    """
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        raise ConnectionError(f"the answer is {answer[:200]!r}")
    at = head.find(b"content-length:")
    if at >= 0:
        return len(answer) >= end + 4 + int(head[at + 15 :].partition(b"\r")[0])
    if b"transfer-encoding: chunked" not in head:
        raise ConnectionError(f"the answer does not tell where it ends: {answer[:200]!r}")
    return answer.endswith(b"\r\n0\r\n\r\n")


class Asker:
    """One connection that waits for each answer."""

    def __init__(self, target: Target) -> None:
        self._request = target.request
        self._socket = socket.create_connection(("127.0.0.1", target.port), timeout=30.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self) -> None:
        """Ask once.

        Raises:
          ConnectionError: there is no answer, or it is no success.
        """
        self._socket.sendall(self._request)
        answer = b""
        while not is_whole(answer):
            more = self._socket.recv(1 << 20)
            if not more:
                raise ConnectionError("the server hung up")
            answer += more

    def close(self) -> None:
        self._socket.close()


class _Connection(asyncio.Protocol):
    """Asks again as soon as it has its answer, until the time is up."""

    def __init__(self, request: bytes, load: Load, clock: Callable[[], float], stop_s: float) -> None:
        self._request, self._load, self._clock, self._stop_s = request, load, clock, stop_s
        self._answer = b""
        self._sent_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        try:
            if not is_whole(self._answer):
                return
        except ConnectionError as error:
            self._end(error)
            return
        self._answer = b""
        now_s = self._clock()
        self._load.answered.append(Answered(self._sent_s, now_s))
        if now_s < self._stop_s:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server hung up"))

    def _ask(self) -> None:
        self._sent_s = self._clock()
        self._transport.write(self._request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
            self._transport.close()


async def all_the_time(target: Target, *, connections: int, seconds: float) -> Load:
    """As many requests as there are answers, on each of so many connections.

    Raises:
      ConnectionError: one was lost, or got no success.
      asyncio.TimeoutError: the last answers did not come.
    """
    load, loop = Load(), asyncio.get_running_loop()
    began_s = time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - began_s

    def connection() -> _Connection:
        return _Connection(target.request, load, clock, seconds)

    made = [await loop.create_connection(connection, "127.0.0.1", target.port) for _ in range(connections)]
    try:
        await asyncio.wait_for(asyncio.gather(*(each.done for _, each in made)), seconds + 30.0)
    finally:
        for transport, _ in made:
            transport.abort()
    return load
