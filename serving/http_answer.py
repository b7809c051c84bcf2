"""What HTTP answers, as a value, and as the bytes of an answer that is sent without aiohttp. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus


@dataclass
class Answer:
    """An answer whose body is there."""

    body: bytes
    form: str  #: content type, one of this server's own
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)  #: those that it has beside the usual ones
    is_last: bool = False  #: the connection is closed behind it


def as_bytes(answer: Answer, now_s: float, software: str) -> bytes:
    """Head and body, as aiohttp would have it, for a request in HTTP/1.1 with a method other than HEAD.

    Args:
      answer: What to say.
      now_s: Seconds since 1970.
      software: As the Server header names it.
    """
    others = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items()) if answer.headers else ""
    head = (
        f"HTTP/1.1 {_status_line(answer.status)}\r\nContent-Type: {answer.form}\r\n{others}"
        f"Content-Length: {len(answer.body)}\r\nDate: {_date(int(now_s))}\r\nServer: {software}\r\n"
        f"{'Connection: close' + chr(13) + chr(10) if answer.is_last else ''}\r\n"
    )
    return head.encode() + answer.body


@functools.cache
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    """As a Date header has it (RFC 9110, 5.6.7); made once a second."""
    return formatdate(second, usegmt=True)
