"""One process's way to every other: messages in boxes by peer, sent as one batch per peer and tick.

Messages to a peer wait in a box until `flush`: one batch, however many messages. Boxes and what the carrier keeps have
no bound of their own; what bounds them are the windows of the layers above (tasks per lease, calls per actor).

Security: addresses are Unix sockets in a directory that only the user can enter, and each link that a peer opens must
begin with a Hello that shows the session's token. What comes over a link that has not shown it is dropped; only its
msgpack header is parsed, which runs no code.

A process that has died stays dead: ids are never used again, so what is sent to it is dropped, and what comes late of
it too.

Not here: threads (the `Loop` owns the endpoint), how frames travel (carriers/), what messages mean, who is alive.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile
from typing import Any, cast

from ..errors import ProtocolError
from ..protocol import codec
from ..protocol.messages import Hello, Message
from .carriers.base import HEAD, Carrier, Frames
from .carriers.unix import UnixCarrier
from .carriers.zeromq import ZmqCarrier

__all__ = ["HEAD", "Endpoint"]

_CARRIERS: dict[str, type[UnixCarrier | ZmqCarrier]] = {"unix": UnixCarrier, "zmq": ZmqCarrier}


class Endpoint:
    """What a process says and hears. Every method is called by whoever drives the loop, one thread at a time."""

    def __init__(self, directory: str, me: bytes, token: bytes, *, carrier: str) -> None:
        """Can be reached at once; peers are looked for in the same directory.

        Args:
          carrier: "unix" or "zmq"; the same for all processes of a session.
        """
        self._token = token
        self.me = me
        self._dead: set[bytes] = set()
        #: Messages that wait for `flush`, by peer.
        self.pending: dict[bytes, list[Message]] = {}
        hello = codec.encode([Hello(token, me)])[0]
        self.carrier: Carrier = _CARRIERS[carrier](directory, me, hello=hello, admit=self._admit)
        self.carrier.on_drop = self._drop
        self.carrier.on_lost = self._lost
        #: Called with a peer, when it is known, and the reason when something that came from it is dropped.
        self.on_drop: Callable[[bytes, str], None] = lambda peer, reason: None
        #: Called with a peer that could not be reached: it does not exist (any more). What was to be sent is dropped.
        self.on_unreachable: Callable[[bytes], None] = lambda peer: None
        #: Called with a peer whose links have ended, when all that it had sent has been received.
        self.on_lost: Callable[[bytes], None] = lambda peer: None

    def send(self, peer: bytes, message: Message) -> None:
        """Put a message in the peer's box. A peer known to be dead gets nothing: its death has been announced."""
        box = self.pending.get(peer)
        if box is None:
            if peer in self._dead:
                return
            self.pending[peer] = [message]
        else:
            box.append(message)

    def flush(self) -> None:
        """Send every box.

        Raises:
          OSError: too many files are open. What has not been sent stays in its box.
        """
        boxes, self.pending = self.pending, {}
        peer = b""
        try:
            for peer, batch in boxes.items():
                if not self.carrier.send(peer, codec.encode(batch)):
                    self._dead.add(peer)
                    self.on_unreachable(peer)
        except OSError:
            self.pending = dict(dropwhile(lambda box: box[0] != peer, boxes.items()))
            raise

    def receive(self) -> Iterator[tuple[bytes, Message]]:
        """What has arrived, as (peer, message)."""
        return self._messages(self.carrier.receive())

    def hear_out(self, peer: bytes) -> Iterator[tuple[bytes, Message]]:
        """What a peer that has died sent before. Not while what `receive` gave is being gone through."""
        return self._messages(self.carrier.hear_out(peer))

    def forget(self, peer: bytes) -> None:
        """The peer is dead: drop its links and its box, for good (ids are never used again)."""
        self._dead.add(peer)
        self.pending.pop(peer, None)
        self.carrier.forget(peer)

    def close(self, linger_s: float = 0.0) -> None:
        """Send what is left for at most `linger_s`, close, and remove the socket file."""
        self.carrier.close(linger_s)

    def _messages(self, batches: Iterable[tuple[bytes, Frames]]) -> Iterator[tuple[bytes, Message]]:
        for peer, frames in batches:
            if peer in self._dead:
                continue
            try:
                batch = codec.decode(frames)
            except ProtocolError as error:
                self.on_drop(peer, str(error))
                continue
            for message in batch:
                yield peer, message

    def _drop(self, peer: bytes, reason: str) -> None:
        self.on_drop(peer, reason)

    def _lost(self, peer: bytes) -> None:
        if peer not in self._dead:
            self._dead.add(peer)
            self.pending.pop(peer, None)
            self.on_lost(peer)

    def _admit(self, frames: Frames) -> bytes | None:
        """Who a link is from, by the first batch over it; None: it has not shown the token."""
        try:
            (hello,) = codec.decode(frames)
        except (ProtocolError, ValueError):
            hello = None
        if isinstance(hello, Hello):
            token, peer = cast("Any", hello.token), cast("Any", hello.peer)  # they are what a stranger has put there
            if isinstance(token, bytes) and isinstance(peer, bytes) and hmac.compare_digest(token, self._token):
                return peer
        self.on_drop(b"", "it did not begin with the session's token")
        return None
