"""The channel between head and zygote."""

from __future__ import annotations

import os

from shoal.core.node.zygote_channel import Outbox, channel, receive, send_now
from shoal.core.protocol import messages as m


def test_a_full_channel_is_told_and_takes_more_when_it_has_been_read():
    head, far = channel()
    sent = 0
    while send_now(head, m.Fork(sent.to_bytes(12, "big"), b"")):
        sent += 1
        assert sent < 1_000_000
    assert receive(far)[0] == m.Fork((0).to_bytes(12, "big"), b"")
    for number in range(1, sent):
        assert receive(far)[0] == m.Fork(number.to_bytes(12, "big"), b"")
    assert send_now(head, m.Fork(b"again", b"e" * 48 * 1024))
    head.close()
    far.close()


def test_a_zygote_that_has_gone_is_no_error():
    head, far = channel()
    far.close()
    assert send_now(head, m.Fork(b"x", b""))
    assert receive(head) == (None, [])
    head.close()


def test_descriptors_travel_with_a_message():
    head, far = channel()
    reading, writing = os.pipe()
    assert send_now(head, m.Fork(b"x", b""), [writing])
    message, (copy,) = receive(far)
    assert message == m.Fork(b"x", b"")
    os.write(copy, b"hello")
    assert os.read(reading, 10) == b"hello"
    for descriptor in (reading, writing, copy):
        os.close(descriptor)
    head.close()
    far.close()


def test_what_finds_no_room_waits_in_order_and_nobody_waits_for_it():
    head, far = channel()
    outbox, told = Outbox(head), 5000
    for number in range(told):  # more than the channel takes: who blocked here would block for ever
        outbox.tell(m.Reaped(number.to_bytes(12, "big"), 0))
    assert not outbox.is_empty
    heard = 0
    while heard < told:
        assert receive(far)[0] == m.Reaped(heard.to_bytes(12, "big"), 0)
        heard += 1
        if heard % 100 == 0:
            outbox.send_on()
    assert outbox.is_empty
    head.close()
    far.close()


def test_descriptors_that_wait_are_closed_when_they_have_gone():
    head, far = channel()
    outbox = Outbox(head)
    while outbox.is_empty:
        outbox.tell(m.Fork(b"x", b"e" * 1024))
    reading, writing = os.pipe()
    outbox.tell(m.Fork(b"last", b""), [writing])
    os.fstat(writing)  # still ours
    message, copies = m.Fork(b"", b""), []
    while message.worker_id != b"last":
        message, copies = receive(far)
        outbox.send_on()
    os.write(copies[0], b"hello")
    os.close(copies[0])
    assert os.read(reading, 10) == b"hello"
    assert os.read(reading, 10) == b"", "nobody has the other end any more"
    os.close(reading)
    head.close()
    far.close()
