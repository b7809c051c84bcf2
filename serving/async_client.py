"""``PolicyClient`` for programs with an event loop. It needs aiohttp: ``pip install 'shoal[serve]'``.

    async with AsyncPolicyClient("http://127.0.0.1:8000", token=Path("token")) as client:
        replies = await asyncio.gather(*(client.act("walker", rows) for rows in batches))

What is said in client.py of tries and sessions holds here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import exchange
from .episode import AsyncEpisode, EpisodeScript
from .errors import ServingError, Unreachable
from .exchange import Answer, Sending
from .patience import Patience
from .requests import ActReply, PolicyInfo

if TYPE_CHECKING:
    import aiohttp
    from typing_extensions import Unpack

    from .requests import ActOptions


class AsyncPolicyClient:
    """Asks one server, as often at once as one likes. Also an asynchronous context manager.

    Args:
      url: Of the server: "http://127.0.0.1:8000".
      token: What it asks for, or the file that holds it.
      timeout_s: For a call with all its tries, where the call says nothing else.

    Raises:
      ValueError: the URL leads nowhere, or the file holds no token.
      ImportError: aiohttp is missing; says how to install it.
    """

    def __init__(self, url: str, *, token: str | Path, timeout_s: float = 10.0) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise ImportError("AsyncPolicyClient needs aiohttp: pip install 'shoal[serve]'") from error
        self._aiohttp = aiohttp
        self._exchange = exchange.Exchange(url, token)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def act(
        self,
        policy: str,
        observations: np.ndarray | Mapping[str, np.ndarray],
        *,
        timeout_s: float | None = None,
        **options: Unpack[ActOptions],
    ) -> ActReply:
        """Actions for N observations; see ``PolicyClient.act``.

        Raises:
          ServingError: see errors.py; Unreachable where nobody answered in time.
        """
        acting = partial(self._exchange.acting, policy, observations, options=options)
        return exchange.reply_of(await self._answer(acting, timeout_s))

    async def start_episode(
        self, *, policy: str | None = None, name: str | None = None, timeout_s: float | None = None
    ) -> AsyncEpisode:
        """Begin an episode for a learner; see ``PolicyClient.start_episode``.

        Raises:
          ServingError: see errors.py; RouteNotFound where nobody learns.
        """
        script = EpisodeScript(self._exchange, policy, name)
        episode = AsyncEpisode(script, self._answer, max(60.0, self._timeout_s) if timeout_s is None else timeout_s)
        await episode.start()
        return episode

    async def policies(self, *, timeout_s: float | None = None) -> list[PolicyInfo]:
        """What is served.

        Raises:
          ServingError: see errors.py.
        """
        return exchange.policies_of(await self._answer(lambda _: self._exchange.listing(), timeout_s))

    async def is_ready(self, *, timeout_s: float = 1.0) -> bool:
        """Whether a server is there and answers requests, by one look."""
        try:
            return (await self._send(self._exchange.probing(), Patience(timeout_s))).status == 200
        except Unreachable:
            return False

    async def close(self) -> None:
        """Close the connections. A later call opens one again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> AsyncPolicyClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answer(self, made: Callable[[float], Sending], timeout_s: float | None) -> Answer:
        """The good answer to what is sent, after as many tries as it takes; see ``PolicyClient._answer``."""
        patience = Patience(self._timeout_s if timeout_s is None else timeout_s)
        while True:
            sending = made(patience.left())
            try:
                return exchange.good(await self._send(sending, patience))
            except ServingError as error:
                if self._exchange.has_newer_token(sending, error):
                    continue
                await asyncio.sleep(patience.pause(error, can_repeat=sending.can_repeat))

    async def _send(self, sending: Sending, patience: Patience) -> Answer:
        """One try.

        Raises:
          Unreachable: no answer; where the request may have been acted on and must not be repeated, not to retry.
        """
        aiohttp = self._aiohttp
        if self._session is None:
            # Without limit: who waits for a connection here is in no queue that anybody bounds or measures.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        address = self._exchange.address
        url = f"{address}{sending.path.removeprefix(address.prefix)}"
        timeout = aiohttp.ClientTimeout(total=max(patience.left(), 1e-3))
        try:
            async with self._session.request(
                sending.method, url, data=sending.body, headers=sending.headers, timeout=timeout, allow_redirects=False
            ) as response:
                return Answer(response.status, response.headers.get("Content-Type"), await response.read())
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
            was_sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise self._exchange.unanswered(error, can_repeat=sending.can_repeat or not was_sent) from error
