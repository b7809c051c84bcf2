"""The zygote. (What it does with processes is tested in test_lifetime.py.)"""

from __future__ import annotations

import os

from shoal.core.node import zygote
from shoal.core.node.zygote_channel import Outbox, channel, receive, send_now
from shoal.core.protocol import messages as m


def test_a_fork_that_fails_is_told(monkeypatch):
    head, far = channel()
    one = zygote.Zygote(directory="", driver=0, run_head=lambda channel: None, run_worker=lambda *_: None)
    one._channel, one._outbox = far, Outbox(far)

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    assert send_now(head, m.Fork(b"x", b""))
    assert one._obey()
    message, _ = receive(head)
    assert isinstance(message, m.ForkFailed)
    assert (message.worker_id, "temporarily unavailable" in message.reason) == (b"x", True)
    head.close()
    far.close()
