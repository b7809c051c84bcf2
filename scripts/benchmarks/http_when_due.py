"""An open loop over HTTP: each request is sent when it is due, whatever became of those before.

A connection carries one request at a time. One that is due when all are taken gets a connection more, and when there
are as many as there may be it waits for one: that counts, as a request is late from when it was due. So a server that
falls behind is seen to, and one that stops altogether is given up some seconds after the last request was due.

    due -> waits for a connection -> under way -> answered, or failed (refused, or hung up on)
                                               -> failed: given up, as is what waits then

All in the calling thread, which never sleeps, for the reason that `loads.at_once` gives.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque

from shoal.scripts.benchmarks.http_requests import Target, is_whole
from shoal.scripts.benchmarks.loads import Answered, Load, without_collections

#: How long the kernel may take to open a connection on this machine: one that does not do so has no room for more.
_CONNECT_S = 1.0


def when_due(
    target: Target, *, per_second: float, seconds: float, most_connections: int = 16, patience_s: float = 5.0
) -> Load:
    """Requests at this rate for so long; one that was not answered is a failure.

    Args:
      target: What is sent.
      per_second: How many are due.
      seconds: For how long.
      most_connections: What waits when so many are under way waits its turn.
      patience_s: For the answers after the last was due.
    """
    with without_collections():
        return _OpenLoop(target, most_connections).run(per_second, round(per_second * seconds), patience_s)


class _Connection:
    """One request at a time. Raises OSError where there is nobody, or nobody any more."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection(("127.0.0.1", target.port), timeout=_CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._answer = b""
        self.due_s = 0.0

    def send(self, request: bytes, due_s: float) -> None:
        self.due_s = due_s
        sent = self.socket.send(request)
        if sent != len(request):  # the last one was answered, so the socket is empty: it is larger than any socket
            raise ConnectionError(f"a request of {len(request)} bytes does not fit")

    def hears_all(self) -> bool:
        """Take what has come; whether it is all."""
        more = self.socket.recv(1 << 20)
        if not more:
            raise ConnectionError("the server hung up")
        self._answer += more
        if not is_whole(self._answer):
            return False
        self._answer = b""
        return True


class _OpenLoop:
    def __init__(self, target: Target, most_connections: int) -> None:
        self._target, self._most = target, most_connections
        self._load = Load()
        self._waiting: deque[float] = deque()  #: when they were due
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._began_s = time.perf_counter()

    def run(self, per_second: float, count: int, patience_s: float) -> Load:
        number, give_up_s = 0, count / per_second + patience_s
        try:
            while (number < count or self._waiting or self._busy) and self._now_s() < give_up_s:
                if number < count and number / per_second <= self._now_s():
                    self._waiting.append(number / per_second)
                    number += 1
                elif self._waiting and (self._idle or len(self._busy) < self._most):
                    self._send(self._waiting.popleft())
                else:
                    for key, _ in self._selector.select(0):
                        self._hear(key.data)
            for due_s in [*self._waiting, *(each.due_s for each in self._busy)]:
                self._failed(due_s, TimeoutError(f"not answered {patience_s:g} s after the last was due"))
        finally:
            for connection in [*self._idle, *self._busy]:
                connection.socket.close()
            self._selector.close()
        return self._load

    def _now_s(self) -> float:
        return time.perf_counter() - self._began_s

    def _send(self, due_s: float) -> None:
        try:
            connection = self._idle.pop() if self._idle else self._connected()
        except OSError as error:
            self._failed(due_s, error)
            return
        self._busy.add(connection)
        try:
            connection.send(self._target.request, due_s)
        except OSError as error:
            self._drop(connection, error)

    def _connected(self) -> _Connection:
        connection = _Connection(self._target)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def _hear(self, connection: _Connection) -> None:
        try:
            is_all = connection.hears_all()
        except OSError as error:
            self._drop(connection, error)
            return
        if is_all:
            self._load.answered.append(Answered(connection.due_s, self._now_s()))
            self._busy.discard(connection)
            self._idle.append(connection)

    def _drop(self, connection: _Connection, error: OSError) -> None:
        """Of an idle one nothing is lost: servers close what has been idle for long."""
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection in self._busy:
            self._busy.remove(connection)
            self._failed(connection.due_s, error)
        else:
            self._idle.remove(connection)

    def _failed(self, due_s: float, error: Exception) -> None:
        self._load.answered.append(Answered(due_s, self._now_s(), error=error))
