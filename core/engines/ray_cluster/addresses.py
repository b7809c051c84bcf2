"""Which cluster `address` means, and whether anything answers there.

    None          RAY_ADDRESS, else the cluster that ``ray start`` has begun on this machine, else a Ray of our own
    "auto"        likewise, but never one of our own
    "local"       a Ray of our own, which ends with the session
    "host:port"   the cluster whose head is there; 6379 is the port that ``ray start --head`` takes

Ray asks an address that nobody answers for 13 minutes, at a log line a second. So a place is knocked at first: who
speaks HTTP/2 there, as all servers of Ray's do, is left to Ray; the rest is told within seconds, in one line. A driver
shares memory with a node of the cluster, so there must be one on its machine; Ray looks for a minute.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from ...errors import ClusterConnectionError

#: How long a machine may take to answer a knock.
KNOCK_S = 5.0
#: What a client of HTTP/2 says first (RFC 9113, section 3.4), with an empty SETTINGS frame (6.5).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
#: Length of a frame's head, and the type of the frame that a server begins with.
_FRAME_HEAD_BYTES, _SETTINGS = 9, 4
_PLACE = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")
#: Ports of a head that are mistaken for its own.
_OTHER_PORTS = {8265: "the dashboard's, for `ray job submit`", 10001: "Ray Client's"}


def resolved(address: object, environ: Mapping[str, str]) -> str | None:
    """What to hand to Ray: None, "auto", "local" or host:port.

    Raises:
      TypeError: it is no text.
      ValueError: it is no address, or one of a kind that shoal does not connect to.
    """
    told = "address"
    if address in (None, "auto") and environ.get("RAY_ADDRESS"):
        address, told = environ["RAY_ADDRESS"], "RAY_ADDRESS"
    if address is None:
        return None
    if not isinstance(address, str):
        raise TypeError(f"address is a text such as 'auto' or 'host:6379', not {type(address).__name__} {address!r}")
    if address in ("auto", "local"):
        return address
    if address.startswith("ray://"):
        raise ValueError(
            f"{told}={address!r} is Ray Client's, through which a program cannot see where it runs and what its actors "
            "hold: start the program on a machine of the cluster (`ray job submit`) with address='auto'"
        )
    place = _PLACE.fullmatch(address)
    if place is None:
        raise ValueError(
            f"{told}={address!r} is not the address of a Ray cluster: give 'auto' on one of its machines, else "
            "'host:port' of its head, whose port is 6379 unless `ray start` was told another"
        )
    if int(place["port"]) in _OTHER_PORTS:
        raise ValueError(
            f"{told}={address!r}: {place['port']} is {_OTHER_PORTS[int(place['port'])]} port; that of the cluster is "
            "6379 unless `ray start` was told another"
        )
    return address


def recorded(temp_dir: str | None) -> str | None:
    """The cluster of this machine, which ``ray start`` has left a note of.

    Args:
      temp_dir: Ray's folder, where it is not its usual one.
    """
    folder = temp_dir or os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
    try:
        return Path(folder, "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def knock(address: str, *, is_encrypted: bool = False, timeout_s: float = KNOCK_S) -> None:
    """Look whether a server such as Ray's answers at ``host:port``.

    Args:
      is_encrypted: the cluster speaks TLS (RAY_USE_TLS), so that no more can be found out than whether anybody listens.
      timeout_s: for each of its answers.

    Raises:
      ClusterConnectionError: nobody does in time, or somebody else.
    """
    place = _PLACE.fullmatch(address)
    assert place is not None, "resolved() has looked at it"
    asked = "is `ray start --head` running there, and does a firewall let this machine reach the port?"
    try:
        with socket.create_connection((place["ipv6"] or place["host"], int(place["port"])), timeout_s) as link:
            if is_encrypted:
                return
            link.sendall(_PREFACE)
            answer = _first_bytes(link)
    except socket.gaierror as error:
        raise ClusterConnectionError(
            f"no Ray cluster at {address}: the name is not known ({error.strerror}); give the address of its head"
        ) from None
    except TimeoutError:
        raise ClusterConnectionError(f"no Ray cluster answers at {address} within {timeout_s:g} s: {asked}") from None
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ClusterConnectionError(f"no Ray cluster answers at {address} ({reason}): {asked}") from None
    if len(answer) < _FRAME_HEAD_BYTES or answer[3] != _SETTINGS:
        raise ClusterConnectionError(
            f"what answers at {address} is no Ray cluster: the port of a head is 6379 unless `ray start` was told "
            "another"
        )


def check_is_node(address: str, *, patience_s: float = KNOCK_S) -> None:
    """Look whether this machine is of a cluster at all.

    Args:
      patience_s: for a node that is just starting.

    Raises:
      ClusterConnectionError: no Ray node runs here.
    """
    deadline_s = time.monotonic() + patience_s
    while not any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        if time.monotonic() >= deadline_s:
            raise ClusterConnectionError(not_of_the_cluster(address))
        time.sleep(0.2)


def not_of_the_cluster(address: str) -> str:
    """What to do on a machine without a node of the cluster."""
    return (
        f"this machine is not one of the Ray cluster at {address}: run the program on one that is (`ray job submit` "
        f"sends it there), or let this one join: ray start --address={address}"
    )


def _first_bytes(link: socket.socket) -> bytes:
    """As many as the head of a frame has, or all until the other side hangs up."""
    answer = b""
    while len(answer) < _FRAME_HEAD_BYTES and (more := link.recv(_FRAME_HEAD_BYTES - len(answer))):
        answer += more
    return answer
