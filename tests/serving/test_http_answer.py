"""An answer as bytes says what aiohttp's own says, byte for byte."""

import asyncio
import re

import pytest
from aiohttp import http, web

from shoal.serving.http_answer import Answer, as_bytes


async def by_aiohttp(answer: Answer) -> bytes:
    async def handle(asked: web.BaseRequest) -> web.Response:
        headers = {"Content-Type": answer.form, **answer.headers}
        response = web.Response(body=answer.body, status=answer.status, headers=headers)
        if answer.is_last:
            response.force_close()
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        body = await asyncio.wait_for(reader.readexactly(len(answer.body)), 30)
        writer.close()
    finally:
        await runner.cleanup()
    return head + body


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b'{"actions":[0]}', "application/json"),
        Answer(bytes(range(256)), "application/vnd.shoal.tensors", is_last=True),
        Answer(b"", "application/json"),
        Answer(b"{}", "application/json", 503, {"Retry-After": "2"}, is_last=True),
        Answer(b"{}", "application/json", 422),
        Answer(b"{}", "application/json", 401, {"WWW-Authenticate": "Bearer"}),
    ],
)
def test_an_answer_as_bytes_is_the_one_that_aiohttp_gives(answer):
    dated = re.compile(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
    sent, expected = as_bytes(answer, 1e9, http.SERVER_SOFTWARE), asyncio.run(by_aiohttp(answer))
    assert dated.search(sent)
    assert dated.sub(b"\r\n", sent) == dated.sub(b"\r\n", expected)


def test_the_date_is_that_of_the_second():
    told = [as_bytes(Answer(b"", "a/b"), now_s, "x") for now_s in (0.0, 0.9, 784111777.5)]
    assert [b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in each for each in told] == [True, True, False]
    assert b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in told[2], "the example of RFC 9110, 5.6.7"
