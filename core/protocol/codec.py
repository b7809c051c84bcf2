"""Messages to frames and back.

A batch of messages for one peer is one multipart: a msgpack header `[[tag, field, ...], ...]` and behind it the buffers
of all its messages in order; a message that carries buffers ends with their number. msgpack only: nothing here can run
code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from ..errors import ProtocolError
from .messages import TYPES, Message

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def encode(batch: Iterable[Message]) -> list[Any]:
    """Frames of a batch: the header, then the buffers. Only one thread at a time may encode (the packer keeps its
    buffer).
    """
    rows = []
    frames: list[Any] = [b""]
    message: Any
    for message in batch:
        if message.CARRIES:
            buffers = message.buffers
            rows.append((message.TAG, *message.VALUES(message), len(buffers)))
            frames += buffers
        else:
            rows.append((message.TAG, *message.VALUES(message)))
    frames[0] = _pack(rows)
    return frames


def decode(frames: Sequence[Any]) -> list[Message]:
    """The batch in `frames`.

    Raises:
      ProtocolError: the bytes are no batch of known messages.
    """
    try:
        rows = msgpack.unpackb(frames[0], use_list=False, strict_map_key=False)
        batch = []
        at = 1
        for row in rows:
            cls: Any = TYPES[row[0]]
            if cls.CARRIES:
                end = at + row[-1]
                batch.append(cls(*row[1:-1], list(frames[at:end])))
                at = end
            else:
                batch.append(cls(*row[1:]))
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        size = len(frames[0]) if frames else 0
        raise ProtocolError(
            f"{len(frames)} frames, header of {size} bytes: not a batch of messages ({error})"
        ) from error
    return batch
