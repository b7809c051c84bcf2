"""Answers over HTTP whose body is there: head and body in one write.

`web.Response` keeps its head open to all that aiohttp may do to it: cookies, compression, chunks, whoever adds a header
while it is prepared. Of an answer of actions nothing is open, and it is given thousands of times a second: its head is
four lines with three holes. Everything else is aiohttp's: when a connection ends, and when its client reads too slowly.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.abc import AbstractStreamWriter


def maker_of_answers() -> Callable[[str, bytes], web.StreamResponse]:
    """What makes such an answer, of its content type, one of this server's own, and of its body.

    It is a 200, for a request with a method other than HEAD. A class within a function, as aiohttp is imported late.
    """
    from aiohttp import http, web

    server, version_1_0, version_1_1 = http.SERVER_SOFTWARE, http.HttpVersion10, http.HttpVersion11

    class WholeAnswer(web.StreamResponse):
        def __init__(self, form: str, body: bytes) -> None:
            super().__init__()
            self._form, self._whole = form, body
            self._stays: bool | None = None  #: None: as the request has it
            self._writer: AbstractStreamWriter | None = None

        @property
        def keep_alive(self) -> bool | None:
            return self._stays

        def force_close(self) -> None:
            self._stays = False

        async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
            """Put the head before the body; `write_eof` sends both."""
            version = request.version
            if self._stays is None:
                self._stays = request.keep_alive
            connection = ""
            if self._stays:
                if version == version_1_0:
                    connection = "Connection: keep-alive\r\n"
            elif version == version_1_1:
                connection = "Connection: close\r\n"
            head = (
                f"HTTP/{version.major}.{version.minor} 200 OK\r\nContent-Type: {self._form}\r\n"
                f"Content-Length: {len(self._whole)}\r\nDate: {_date(int(time.time()))}\r\nServer: {server}\r\n"
                f"{connection}\r\n"
            )
            self._whole = head.encode() + self._whole
            self._writer = request.writer
            return self._writer

        async def write_eof(self, data: bytes = b"") -> None:
            """Raises ConnectionError if the client has gone."""
            assert self._writer is not None, "it was prepared"
            await self._writer.write_eof(self._whole)

    return WholeAnswer


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    """As a Date header has it (RFC 9110, 5.6.7); made once a second."""
    return formatdate(second, usegmt=True)
