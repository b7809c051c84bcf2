"""A connection as long as only plain requests come over it (plain_request.py); then it is aiohttp's, for good.

    made -> idle --a plain request--> busy --answered--> idle
            idle --one without the end of its body--> begun --the end--> busy
            idle --anything else--> aiohttp's: it is told of a connection that has just been made, and gets these bytes
            begun --anything else, or for ``_REST_S`` nothing--> aiohttp's, as well
            idle for so long -> closed, and cut after so long again if what was sent has not been read
            busy --more bytes--> they wait, and nothing more is read until the answer is out

A plain request is read, answered and sent in two turns of the event loop, or in one where tasks begin at once (Python
3.12); aiohttp takes four, or two, and as much time again for what a request might also have been. Answers go out in
the order of their requests: there is only one under way. Who does not read them is not read from.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import plain_request
from .http_answer import Answer, as_bytes
from .plain_request import PlainRequest

#: How long the end of a body is waited for here, and the most of it: many clients send head and body in two pieces.
_REST_S, _MOST_REST = 0.05, 1 << 16
#: A task begins at once, and ends so if it need not wait.
_AT_ONCE: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class PlainConnection(asyncio.Protocol):
    """One connection.

    Args:
      answer: Answers a request; raises nothing but CancelledError.
      others: Makes aiohttp's protocol.
      software: As the Server header names it.
      idle_s: After which a connection that asks nothing is closed.
      open_ones: It is in there while it is open, and not aiohttp's.

    Attributes:
      ended: Done when it has been closed, and all that was sent is out, or lost.
    """

    def __init__(
        self,
        answer: Callable[[PlainRequest], Awaitable[Answer]],
        others: Callable[[], asyncio.Protocol],
        *,
        software: str,
        idle_s: float,
        open_ones: set[PlainConnection],
    ) -> None:
        self._answer, self._others, self._software = answer, others, software
        self._idle_s, self._open_ones = idle_s, open_ones
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._idle_since_s = self._loop.time()
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_busy = self._is_full = False
        self._waiting = b""  #: what came while it was busy
        self._begun = b""  #: a request without its end, and when it is given up
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """What answers a request now, if one is being answered."""
        return self._task if self._is_busy else None

    def close(self) -> None:
        """End it, and what is under way."""
        if self.under_way is not None:
            self.under_way.cancel()
        self._transport.close()

    # --- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # So that the system notices clients that are gone for good, as aiohttp has it.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._open_ones.add(self)
        self._alarm = self._loop.call_later(self._idle_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._is_busy or self._is_full:
            self._waiting += data
            self._transport.pause_reading()
            return
        begun, self._begun = self._begun, b""
        self._stop_giving_up()
        request = plain_request.read(begun + data)
        if request is not None and not request.missing:
            self._is_busy = True
            self._task = asyncio.Task(self._answered(request), loop=self._loop, **_AT_ONCE)
        elif request is not None and not begun and request.missing <= _MOST_REST:
            self._begun = data
            self._giving_up = self._loop.call_later(_REST_S, self._hand_over, data)
        else:
            self._hand_over(begun, data)

    def pause_writing(self) -> None:
        self._is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._go_on()

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _answered(self, request: PlainRequest) -> None:
        try:
            answer = await self._answer(request)
        finally:
            self._is_busy = False
        if self._transport.is_closing():  # the client has gone
            return
        self._transport.write(as_bytes(answer, time.time(), self._software))
        if answer.is_last:
            self._transport.close()
            return
        self._idle_since_s = self._loop.time()
        if self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        """Read what waits, and again what comes."""
        if self._is_busy or self._is_full or self._transport.is_closing():
            return
        self._transport.resume_reading()
        data, self._waiting = self._waiting, b""
        if data:
            self.data_received(data)

    def _hand_over(self, *pieces: bytes) -> None:
        self._let_go()
        protocol = self._others()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        # As they came: of a piece that ends in what is no HTTP, aiohttp answers nothing but that.
        for piece in filter(None, pieces):
            protocol.data_received(piece)

    def _let_go(self) -> None:
        self._open_ones.discard(self)
        self._stop_giving_up()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _look(self) -> None:
        """Whether it has been idle for too long."""
        left_s = self._idle_s if self._is_busy else self._idle_since_s + self._idle_s - self._loop.time()
        if left_s <= 0.0:
            self._transport.close()
            # A transport that closes sends what it has first: to a client that never reads, for ever.
            self._alarm = self._loop.call_later(self._idle_s, self._transport.abort)
        else:
            self._alarm = self._loop.call_later(left_s, self._look)
