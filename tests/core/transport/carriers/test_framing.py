"""Batches come out of a stream as they went in, wherever it is cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, strategies as st

from shoal.core.errors import ProtocolError
from shoal.core.transport.carriers import framing
from shoal.core.transport.carriers.framing import Assembler, prefix

FRAMES = st.lists(st.binary(max_size=60), min_size=1, max_size=5)
SIZES = st.lists(st.integers(1, 80), min_size=1, max_size=8)


def stream_of(batches: list[list[bytes]]) -> bytes:
    return b"".join(part for frames in batches for part in (prefix(frames), *frames))


def assemble(assembler: Assembler, stream: bytes, sizes) -> list[list[bytes]]:
    """Feed the stream in pieces of at most these sizes, as a socket would."""
    batches = []
    at = 0
    while at < len(stream):
        piece = stream[at : at + next(sizes)]
        target = assembler.target
        if target is None:
            batches += assembler.feed(piece)
        else:
            piece = piece[: len(target)]
            target[: len(piece)] = piece
            batches += assembler.filled(len(piece))
        at += len(piece)
    return batches


def endless(sizes: list[int]):
    while True:
        yield from sizes


@given(st.lists(FRAMES, max_size=6), SIZES, st.sampled_from([1, 16, 1 << 16]))
@example([[b"long", b""]], [1], 1)
def test_batches_come_out_as_they_went_in(batches, sizes, direct):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "_DIRECT_BYTES", direct)
        assembler = Assembler()
        assert assemble(assembler, stream_of(batches), endless(sizes)) == batches
        assert assembler.is_whole


@given(st.lists(FRAMES, min_size=1, max_size=4), st.data())
def test_a_stream_that_ends_early_gives_whole_batches_only(batches, data):
    stream = stream_of(batches)
    cut = data.draw(st.integers(0, len(stream) - 1))
    assembler = Assembler()
    got = assemble(assembler, stream[:cut], endless([7]))
    assert got == batches[: len(got)]
    assert assembler.is_whole == (stream[:cut] == stream_of(got))


@given(st.lists(FRAMES, min_size=1, max_size=4), SIZES)
def test_behind_a_limited_first_batch_nothing_is_looked_at_before_go_on(batches, sizes):
    assembler = Assembler(first_bytes=1000)
    stream = stream_of(batches)
    first, rest = stream[: len(stream_of(batches[:1]))], stream[len(stream_of(batches[:1])) :]
    ahead = rest[: sizes[0]]
    assert assembler.feed(first + ahead) == batches[:1]
    assert assembler.go_on() + assemble(assembler, rest[len(ahead) :], endless(sizes)) == batches[1:]


@pytest.mark.parametrize(
    "start",
    [struct.pack("<IQ", 0, 5), struct.pack("<IQ", 1 << 25, 5), struct.pack("<IQ", 1, 1 << 50), b"GET / HTTP/1.1\r\n"],
)
def test_what_cannot_be_a_batch_is_refused(start):
    with pytest.raises(ProtocolError):
        Assembler().feed(start)


@pytest.mark.parametrize("start", [struct.pack("<IQ", 1, 513), struct.pack("<I70Q", 70, *range(70))])
def test_a_first_batch_over_its_limit_is_refused_before_memory_is_taken_for_it(start):
    with pytest.raises(ProtocolError, match="512"):
        Assembler(first_bytes=512).feed(start)
