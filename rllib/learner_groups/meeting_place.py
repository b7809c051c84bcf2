"""Where processes find each other for torch.distributed: ``MeetingPlace`` is an actor that holds what each has to tell,
and ``store`` is torch's view of it.

    process i   set("address i", bytes), then get("address j", wait) for all j: connections of their own from there on

So nothing is asked of a cluster but the core: no port that is chosen beforehand, no folder that all nodes see. Gloo
itself connects to the address that a node's hostname resolves to; GLOO_SOCKET_IFNAME names another interface.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from ...core import api


class MeetingPlace:
    """What was told, by key. A plain class, of which an actor is made for each meeting."""

    def __init__(self) -> None:
        import asyncio

        self._told: dict[str, bytes] = {}
        self._changed = asyncio.Condition()

    async def set(self, key: str, value: bytes) -> None:
        """Tell something."""
        self._told[key] = value
        async with self._changed:
            self._changed.notify_all()

    async def get(self, key: str, wait_s: float) -> bytes:
        """What was told under this key, as soon as it is.

        Raises:
          TimeoutError: nobody did for ``wait_s`` seconds.
        """
        import asyncio

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: key in self._told), wait_s)
            except (TimeoutError, asyncio.TimeoutError) as error:
                raise TimeoutError(f"waited {wait_s:g} s in vain for what another process has to tell") from error
        return self._told[key]


def store(place: Any, wait_s: float) -> Any:
    """A meeting place as torch takes it, a ``torch.distributed.Store``.

    Args:
      place: Handle of the actor.
      wait_s: Seconds for which to wait for the others.
    """
    from torch import distributed

    class ActorStore(distributed.Store):  # type: ignore[name-defined, misc]  # it is of C++
        def set(self, key: str, value: str | bytes) -> None:
            api.get(place.set.remote(key, value.encode() if isinstance(value, str) else bytes(value)))

        def get(self, key: str) -> bytes:
            return bytes(api.get(place.get.remote(key, wait_s)))

        def wait(self, keys: Sequence[str], timeout: dt.timedelta | None = None) -> None:
            most_s = wait_s if timeout is None else timeout.total_seconds()
            api.get([place.get.remote(key, most_s) for key in keys])

    return ActorStore()
