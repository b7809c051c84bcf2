"""Plain requests: the few shapes that nearly all requests for actions have, read without aiohttp. Pure.

Most clients send the same dozen lines thousands of times, in one piece. Of them nothing is open to interpretation, and
to read them takes a tenth of what a whole HTTP takes. A request is plain if it is, letter by letter:

    POST /v1/policies/NAME/actions HTTP/1.1     NAME of letters, digits and -._~:%, at most ``MAX_HEAD`` bytes of head
    Name: value                                 names of ``_NAMES``, each once; values of visible ASCII and spaces
                                                Host and Content-Length among them; Connection only as keep-alive
    (an empty line)
    the body and nothing behind it; of its end may be ``missing`` what is yet to come

What differs in a single letter is none (``read`` says None) and is aiohttp's to understand or to refuse: a line that
ends in a bare newline, a space before a colon, two lengths, chunks, an Expect, half a head, two requests at once. So a
plain request is never understood otherwise than aiohttp would, which tests/serving/test_plain_request.py asks it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Longest head. aiohttp takes 8 KB a line.
MAX_HEAD = 4096
_START, _END = b"POST /v1/policies/", "/actions HTTP/1.1"
_IN_NAMES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:%")
#: Headers that a plain request may have, and what they are called here.
_NAMES = {
    name.lower(): name
    for name in (
        "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Connection", "Content-Length",
        "Content-Type", "Host", "Origin", "Referer", "User-Agent",
    )
}  # fmt: skip


@dataclass(slots=True)
class PlainRequest:
    """A request that was read."""

    raw_path: str
    headers: dict[str, str]  #: by the names of ``_NAMES``
    body: bytes
    missing: int = 0  #: bytes that the body is shorter than was told
    method: str = "POST"


def read(data: bytes) -> PlainRequest | None:
    """A plain request; None: these bytes are none."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0 or not data.startswith(_START):
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    name = first[len(_START) : -len(_END)]
    if not first.endswith(_END) or not name or not _IN_NAMES.issuperset(name):
        return None
    every = "".join(lines)
    if not (every.isascii() and every.isprintable()):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        said, colon, value = line.partition(":")
        known = _NAMES.get(said.lower())
        if known is None or not colon or known in headers:
            return None
        headers[known] = value.strip(" ")
    if "Host" not in headers or headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    told, body = headers.get("Content-Length", ""), data[end + 4 :]
    if not (told.isdigit() and len(told) < 10 and (told[0] != "0" or told == "0")):
        return None
    missing = int(told) - len(body)
    return None if missing < 0 else PlainRequest(first[5:-9], headers, body, missing)
