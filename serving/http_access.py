"""Who may ask over HTTP: the token, and that it is no web page of a stranger that asks. Pure but for the token's file.

A browser lets any page send requests to 127.0.0.1, so loopback alone protects nothing. Three things are asked:

    Host           a name that this server is known by. A page whose own name suddenly means 127.0.0.1 (DNS rebinding)
                   sends that name.
    Origin         where a browser sends it: this server itself, or one of the origins that were allowed.
    Authorization  "Bearer TOKEN", but for the paths in ``OPEN``, which hold nothing worth hiding.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from .errors import BadRequest, Forbidden, Unauthorized

#: Paths that need no token: probes, which have none, and what every copy of this program contains.
OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
#: Headers that no page needs.
NO_PERMISSION: Mapping[str, str] = MappingProxyType({})
#: Names of this machine for itself.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Shorter tokens can be guessed.
MIN_TOKEN_LENGTH = 16


class Door:
    """Lets requests in, or says why not.

    Args:
      token: What "Authorization: Bearer" must name.
      hosts: Names, without ports, that requests may be for.
      origins: Origins besides this server's own, as "https://example.org".
    """

    def __init__(self, token: str, hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        self._token = token.encode()
        self._usual = b"Bearer " + self._token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        #: Host headers that were found good: nearly all requests have the same.
        self._known: set[str] = set()

    def check_origin(self, host: str | None, origin: str | None) -> None:
        """Raises Forbidden if Host or Origin is none of ours."""
        if host not in self._known:
            name = host_name(host or "")
            if name not in self._hosts:
                raise Forbidden(f"Host {_shown(host)} is none of this server's names", field="Host")
            if len(self._known) < 64:
                self._known.add(host or "")
        if origin is not None and origin.lower() not in self._origins and not _is_same(origin, host or ""):
            raise Forbidden(f"requests of pages of {_shown(origin)} are not served", field="Origin")

    def permission(self, origin: str | None) -> Mapping[str, str]:
        """Headers without which a browser does not hand an answer to the page that has asked (Fetch standard, 3.3).

        None for pages of this server, which need no permission, and for those of strangers.
        """
        if origin is None or origin.lower() not in self._origins:
            return NO_PERMISSION
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}

    def check_token(self, authorization: str | None) -> None:
        """Raises Unauthorized unless the token is right; takes as long whichever letter is wrong."""
        if authorization is None:
            raise Unauthorized("no token; send Authorization: Bearer TOKEN", field="Authorization")
        if hmac.compare_digest(authorization.encode("utf-8", "surrogateescape"), self._usual):
            return
        scheme, _, token = authorization.partition(" ")  # "bearer" is as good
        is_right = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != "bearer" or not is_right:
            raise Unauthorized("not the token of this server", field="Authorization")


def host_name(host: str) -> str:
    """The name in a Host header: "[::1]:8000" is "::1". What is none gives ""."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower() if not set(host) & set("/?#@\\") else ""
    except ValueError:  # a bracket too many
        return ""


def served_hosts(bound: str, names: Iterable[str]) -> frozenset[str]:
    """The names that requests may be for, of a server bound to an address.

    Args:
      bound: An address, "localhost", or all addresses ("0.0.0.0", "::").
      names: Those that whoever starts the server gives.

    Raises:
      ValueError: it is bound to all addresses, and nobody says by which names it is reached.
    """
    given = frozenset(name.lower() for name in names)
    try:
        address = ipaddress.ip_address(bound)
    except ValueError:
        return given | (LOOPBACK if bound == "localhost" else {bound.lower()})
    if address.is_unspecified:
        if not given:
            raise ValueError(f"a server at {bound} is reached by any name: say by which (--allow-host NAME)")
        return given | LOOPBACK
    return given | (LOOPBACK if address.is_loopback else {str(address)})


def address_of(host: str, port: int) -> str:
    """The address of a server as a URL has it: IPv6 stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(32)


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
      ValueError: it is no file, others can read it, or what it holds is no token.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # a pipe lets its reader wait for a writer, and what is in it is there once
        raise ValueError(f"{path} is no regular file: name one that holds the token")
    if mode & 0o077:
        raise ValueError(f"{path} can be read by others: chmod 600 {path}")
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{path} holds no token: {MIN_TOKEN_LENGTH} or more letters and digits, without spaces")
    return token


def write_token(path: Path, token: str) -> None:
    """Keep a token in a file that only its owner can read. What was there is replaced."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{token}\n")
    aside.replace(path)


def content_length(header: str | None) -> int | None:
    """The number in a Content-Length header.

    Raises:
      BadRequest: it is none.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 19):
        raise BadRequest("Content-Length is no number of bytes", field="Content-Length")
    return int(header)


def _is_same(origin: str, host: str) -> bool:
    scheme, _, place = origin.partition("://")
    return scheme.lower() in ("http", "https") and place.lower() == host.lower()


def _shown(value: str | None) -> str:
    return "that is missing" if value is None else repr(value[:80])
