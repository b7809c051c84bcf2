"""Blocks that were made for this process and that it was never told of: it frees them. In the driver of the loop.

A worker seals a result in its own memory, in our name, and then tells us: TaskDone, TaskYielded. If it dies between the
two, nobody knows of the block. When everybody has heard the dead worker out, the head, which sees the headers, names
its blocks that are ours (`BlocksLeft`, node/estate.py). What no object of ours lies in we were never told of:

    told      the handler of the message has put the place into the object table, or has freed it, in one go
    kept      it stays in the table until we free it: views, borrowers and tasks under way are all counted here
    untold    neither, and the worker's messages are dropped from its burial on: we shall never be told

So a block that lives and is not in the table is read by nobody.
"""

from __future__ import annotations

from ..protocol import messages as m
from ..protocol.specs import BlockLeft
from ..store.client import Location, StoreClient
from ..transport.loop import Loop
from .objects import ObjectTable


class Untold:
    """Frees what the dead have made for this process without telling it."""

    def __init__(self, loop: Loop, objects: ObjectTable, store: StoreClient) -> None:
        self._objects = objects
        self._store = store
        self._post = loop.post
        #: Named, and not looked at yet.
        self._left: list[BlockLeft] = []
        loop.on(m.BlocksLeft, self._on_blocks_left)

    def _on_blocks_left(self, peer: bytes, message: m.BlocksLeft) -> None:
        if not self._left:
            # Posted: there is a message for each region, and the table, which may be long, is gone through once.
            self._post(self._free_unknown, None)
        self._left += message.blocks

    def _free_unknown(self, _: None) -> None:
        left, self._left = self._left, []
        for offset, serial, is_dedicated in self._objects.unknown(left):
            # False for what was told and has been freed since the head looked.
            self._store.free_if_live(Location(offset, serial, 0, (), is_dedicated))
