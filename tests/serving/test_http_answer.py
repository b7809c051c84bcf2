"""An answer in one write says what aiohttp's own says, byte for byte."""

import asyncio
import re

import pytest
from aiohttp import web

from shoal.serving.http_answer import maker_of_answers

FORM, BODY = "application/json", b'{"actions":[0]}'


async def answers(request: bytes, response: web.StreamResponse) -> tuple[bytes, int]:
    """What a server sends that answers so, with its Date taken out; and in how many writes."""
    writes = []

    async def handle(asked: web.BaseRequest) -> web.StreamResponse:
        await asked.content.read()
        write = asked.transport.write
        asked.transport.write = lambda data: (writes.append(data), write(data))
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        body = await asyncio.wait_for(reader.readexactly(len(BODY)), 30)
        if b"connection: close" in head.lower():
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
    finally:
        await runner.cleanup()
    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
    return re.sub(rb"\r\nDate: [^\r]+", b"", head) + body, len(writes)


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_in_one_write_is_the_one_that_aiohttp_gives(version, connection, is_forced):
    request = b"POST / HTTP/%b\r\nHost: x\r\nContent-Length: 2\r\n%b\r\n{}" % (version, connection)
    ours = maker_of_answers()(FORM, BODY)
    theirs = web.Response(body=BODY, headers={"Content-Type": FORM})
    if is_forced:
        ours.force_close()
        theirs.force_close()
    (sent, writes), (expected, _) = (asyncio.run(answers(request, each)) for each in (ours, theirs))
    assert sent == expected
    assert writes == 1


def test_an_answer_of_megabytes_is_sent_whole_to_who_reads_slowly():
    body = bytes(range(256)) * (1 << 15)

    async def asked() -> bytes:
        async def handle(_: web.BaseRequest) -> web.StreamResponse:
            return maker_of_answers()(FORM, body)

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            reader, writer = await asyncio.open_connection(*runner.addresses[0], limit=1024)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            got = await asyncio.wait_for(reader.readexactly(len(body)), 30)
            writer.close()
        finally:
            await runner.cleanup()
        return got

    assert asyncio.run(asked()) == body
