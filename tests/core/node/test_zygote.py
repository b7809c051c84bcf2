"""The channel between head and zygote. (What the zygote does with processes is tested in test_lifetime.py.)"""

from __future__ import annotations

import os

from shoal.core.node import zygote
from shoal.core.protocol import messages as m


def test_a_full_channel_is_told_and_takes_more_when_it_has_been_read():
    head, far = zygote.channel()
    sent = 0
    while zygote.send_now(head, m.Fork(sent.to_bytes(12, "big"), b"")):
        sent += 1
        assert sent < 1_000_000
    assert zygote.receive(far)[0] == m.Fork((0).to_bytes(12, "big"), b"")
    for number in range(1, sent):
        assert zygote.receive(far)[0] == m.Fork(number.to_bytes(12, "big"), b"")
    assert zygote.send_now(head, m.Fork(b"again", b"e" * 48 * 1024))
    head.close()
    far.close()


def test_a_zygote_that_has_gone_is_no_error():
    head, far = zygote.channel()
    far.close()
    assert zygote.send_now(head, m.Fork(b"x", b""))
    assert zygote.receive(head) == (None, [])
    head.close()


def test_descriptors_travel_with_a_message():
    head, far = zygote.channel()
    reading, writing = os.pipe()
    assert zygote.send_now(head, m.Fork(b"x", b""), [writing])
    message, (copy,) = zygote.receive(far)
    assert message == m.Fork(b"x", b"")
    os.write(copy, b"hello")
    assert os.read(reading, 10) == b"hello"
    for descriptor in (reading, writing, copy):
        os.close(descriptor)
    head.close()
    far.close()


def test_a_fork_that_fails_is_told(monkeypatch):
    head, far = zygote.channel()
    one = zygote.Zygote(directory="", driver=0, run_head=lambda channel: None, run_worker=lambda *_: None)
    one._channel = far

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    assert zygote.send_now(head, m.Fork(b"x", b""))
    assert one._obey()
    message, _ = zygote.receive(head)
    assert isinstance(message, m.ForkFailed)
    assert (message.worker_id, "temporarily unavailable" in message.reason) == (b"x", True)
    head.close()
    far.close()
