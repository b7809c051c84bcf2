"""Asking a policy server from anywhere: no torch, no core, no gymnasium.

    client = PolicyClient("http://127.0.0.1:8000", token=Path("token"))
    reply = client.act("walker", observations)          # [N, ...] -> reply.actions, reply.version

Arrays travel as they lie in memory (wire.py). Calls are tried again within their time when nobody answers, or when the
server says so; an error that can only come again is raised at once. With ``sessions`` the server remembers what it saw,
so a call that may have been acted on already is not sent twice: its ``Unreachable`` says so.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import exchange
from .episode import Episode, EpisodeScript
from .errors import ServingError, Unreachable
from .exchange import Answer, Sending
from .patience import Patience
from .requests import ActReply, PolicyInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .requests import ActOptions


class PolicyClient:
    """Asks one server. Any thread may call; connections are kept and used again. Also a context manager.

    Args:
      url: Of the server: "http://127.0.0.1:8000".
      token: What it asks for, or the file that holds it, which is read again when the server has another.
      timeout_s: For a call with all its tries, where the call says nothing else.

    Raises:
      ValueError: the URL leads nowhere, or the file holds no token.
    """

    def __init__(self, url: str, *, token: str | Path, timeout_s: float = 10.0) -> None:
        self._exchange = exchange.Exchange(url, token)
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []  # its pop and append are atomic

    def act(
        self,
        policy: str,
        observations: np.ndarray | Mapping[str, np.ndarray],
        *,
        timeout_s: float | None = None,
        **options: Unpack[ActOptions],
    ) -> ActReply:
        """Actions for N observations.

        Args:
          policy: "name", or "name:version".
          observations: [N, *shape]; for a nested space such arrays by column name, "camera", "state/position".
          timeout_s: For the call with all its tries.
          options: Fields of ``ActRequest``: deterministic=False, sessions=("a", "b"), want_value=True, ...

        Raises:
          ServingError: see errors.py; Unreachable where nobody answered in time.
        """
        acting = partial(self._exchange.acting, policy, observations, options=options)
        return exchange.reply_of(self._answer(acting, timeout_s))

    def start_episode(
        self, *, policy: str | None = None, name: str | None = None, timeout_s: float | None = None
    ) -> Episode:
        """Begin an episode for a learner, see episode.py.

        Args:
          policy: Whose actions it wants; None: of the policy that learns.
          name: Of the episode, unlike all others; None: a new one.
          timeout_s: For each of its calls with all their tries; None: 60, or the client's own if that is longer.

        Raises:
          ServingError: see errors.py; RouteNotFound where nobody learns.
        """
        script = EpisodeScript(self._exchange, policy, name)
        episode = Episode(script, self._answer, max(60.0, self._timeout_s) if timeout_s is None else timeout_s)
        episode.start()
        return episode

    def policies(self, *, timeout_s: float | None = None) -> list[PolicyInfo]:
        """What is served.

        Raises:
          ServingError: see errors.py.
        """
        return exchange.policies_of(self._answer(lambda _: self._exchange.listing(), timeout_s))

    def is_ready(self, *, timeout_s: float = 1.0) -> bool:
        """Whether a server is there and answers requests, by one look."""
        try:
            return self._send(self._exchange.probing(), Patience(timeout_s)).status == 200
        except Unreachable:
            return False

    def close(self) -> None:
        """Close the connections. A later call opens one again."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._idle.pop().close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, made: Callable[[float], Sending], timeout_s: float | None) -> Answer:
        """The good answer to what is sent, after as many tries as it takes.

        Args:
          made: Seconds that are left -> what is sent.
          timeout_s: For all tries.

        Raises:
          ServingError: there is none.
        """
        patience = Patience(self._timeout_s if timeout_s is None else timeout_s)
        while True:
            sending = made(patience.left())
            try:
                return exchange.good(self._send(sending, patience))
            except ServingError as error:
                if self._exchange.has_newer_token(sending, error):
                    continue
                time.sleep(patience.pause(error, can_repeat=sending.can_repeat))

    def _send(self, sending: Sending, patience: Patience) -> Answer:
        """One try.

        Raises:
          Unreachable: no answer; where the request may have been acted on and must not be repeated, not to retry.
        """
        connection = self._connection()
        was_sent = False
        try:
            connection.timeout = max(patience.left(), 1e-3)
            if connection.sock is None:
                connection.connect()
            else:
                connection.sock.settimeout(connection.timeout)
            was_sent = True
            connection.request(sending.method, sending.path, sending.body, sending.headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers.get("Content-Type"), response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._exchange.unanswered(error, can_repeat=sending.can_repeat or not was_sent) from error
        except BaseException:  # half an answer may be in it
            connection.close()
            raise
        if response.will_close:
            connection.close()
        self._idle.append(connection)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        """One that is kept, unless its other end has gone; else a new one, which is not connected."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.sock is None or not _has_input(connection.sock):
                return connection
            connection.close()  # what can be read now is its end: servers close what is idle
        address = self._exchange.address
        kind = http.client.HTTPSConnection if address.is_tls else http.client.HTTPConnection
        return kind(address.host, address.port)


def _has_input(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
