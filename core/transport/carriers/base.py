"""The seam between the endpoint, which knows messages, and what carries their frames.

    unix      sockets of the operating system, on one machine; no thread of its own
    zeromq    a ROUTER of zmq; two threads of its own

What every carrier keeps:

  * Batches to a peer arrive whole and in the order sent, as long as both processes live.
  * The first thing on a link is the hello of who opened it. What comes over a link before `admit` has approved of its
    hello reaches nobody.
  * `send` never waits: what the kernel does not take is kept, without bound, until it does.
  * No peer starves another: of what has arrived, `receive` gives a bounded piece for each peer.

Every method but `watch_again` is called by the thread that drives the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

#: A header and the buffers behind it, as the codec makes and reads them.
Frames: TypeAlias = Sequence[Any]

#: Given the first batch on a link: the peer that its hello names, or None when it has not shown the session's token.
Admit: TypeAlias = Callable[[Frames], "bytes | None"]

#: Peers are named by their 12-byte worker id; the head has a name of its own.
HEAD = b"shoal-head\0\0"


class Carrier(Protocol):
    """Links to all peers, and the wait for them."""

    #: Called with a peer, when it is known, and the reason when something that came from it is dropped.
    on_drop: Callable[[bytes, str], None]
    #: Called with a peer whose last link has ended, after everything that came over it has been given out.
    on_lost: Callable[[bytes], None]

    @property
    def descriptor(self) -> int | None:
        """Can be polled, by any thread and without harm: readable as long as `wait` would return at once. None: only
        `wait` can tell.
        """
        ...

    @property
    def due_at(self) -> float:
        """When `wait` is to be called even if nothing can be read (monotonic); infinity: not."""
        ...

    def watch(self, descriptor: int) -> None:
        """Have `wait` look for this descriptor of somebody else's too."""
        ...

    def watch_once(self, descriptor: int) -> None:
        """As `watch`, until it has been told of once. Only with a `descriptor`."""
        ...

    def watch_again(self, descriptor: int) -> None:
        """Tell of it once more. In any thread. Only with a `descriptor`."""
        ...

    def unwatch(self, descriptor: int) -> None: ...

    def wait(self, timeout_s: float | None) -> Sequence[int]:
        """Wait until something can be read or sent; None waits for ever.

        Returns:
          The watched descriptors that can be read. What the carrier's own sockets have is for `receive`.

        Raises:
          OSError: it was closed meanwhile, by a signal handler.
        """
        ...

    def send(self, peer: bytes, frames: Frames) -> bool:
        """Send a batch, or keep it until it can be sent. False: there is no such process (any more).

        Raises:
          OSError: the system has no descriptor or no memory for another link. Nothing of the batch has been sent.
        """
        ...

    def receive(self) -> Iterable[tuple[bytes, Frames]]:
        """What the last `wait` has found, as (peer, batch); goes on sending what was kept."""
        ...

    def hear_out(self, peer: bytes) -> Iterator[tuple[bytes, Frames]]:
        """Everything that a peer which is dead has sent and that has not been read."""
        ...

    def forget(self, peer: bytes) -> None:
        """Close the links to a peer, drop what was kept for it."""
        ...

    def close(self, linger_s: float) -> None:
        """Send what was kept for at most `linger_s`, close, remove the socket's file."""
        ...


def socket_path(directory: str, peer: bytes) -> str:
    """Where a process of the session listens."""
    return os.path.join(directory, "head.sock" if peer == HEAD else f"{peer.hex()}.sock")
