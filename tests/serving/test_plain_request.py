"""What is read without aiohttp is what aiohttp reads; and only what is plain, letter by letter, is read at all."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web
from hypothesis import example, given, settings, strategies as st

from shoal.serving.plain_request import MAX_HEAD, PlainRequest, read

HEAD = b"POST /v1/policies/walker:2/actions HTTP/1.1"
LINES = (b"Host: 127.0.0.1:8000", b"Content-Type: application/json", b"Authorization: Bearer x", b"Content-Length: 2")


def request_of(first: bytes = HEAD, lines: tuple[bytes, ...] = LINES, body: bytes = b"{}", newline: bytes = b"\r\n"):
    return newline.join([first, *lines, b"", b""]) + body


def test_a_plain_request_is_read():
    assert read(request_of()) == PlainRequest(
        "/v1/policies/walker:2/actions",
        {
            "Host": "127.0.0.1:8000", "Content-Type": "application/json", "Authorization": "Bearer x",
            "Content-Length": "2",
        },
        b"{}",
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: */*", b"accept-encoding:identity", b"ACCEPT-LANGUAGE: de", b"User-Agent:   curl/8.5.0  ",
        b"Connection: Keep-Alive", b"Origin: http://127.0.0.1:8000", b"Referer: ", b"Origin: null",
    ],
)  # fmt: skip
def test_what_clients_add_of_themselves_is_plain(line):
    asked = read(request_of(lines=(line, *LINES)))
    assert asked is not None
    assert asked.body == b"{}"
    assert len(asked.headers) == 5


@pytest.mark.parametrize(
    "data",
    [
        request_of(newline=b"\n"),
        request_of(first=b"GET /v1/policies/walker/actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies/walker/actions HTTP/1.0"),
        request_of(first=b"POST  /v1/policies/walker/actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies//actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies/a/b/actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies/a?b/actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies/a b/actions HTTP/1.1"),
        request_of(first=b"POST /v1/policies/\xc3\xa4/actions HTTP/1.1"),
        request_of(first=b"POST http://x/v1/policies/a/actions HTTP/1.1"),
        request_of(first=b"POST /v1/episodes HTTP/1.1"),
        request_of(body=b"{}\n"),
        request_of() + request_of(),
        request_of()[:-4],
        b"",
        *(
            request_of(lines=(line, *LINES))
            for line in (
                b"Transfer-Encoding: chunked", b"Content-Length: 2", b"Content-Length : 2", b"Expect: 100-continue",
                b"Connection: close", b"Connection: keep-alive, upgrade", b"Connection: ", b"Upgrade: websocket",
                b"Content-Encoding: gzip", b"Host: evil", b" folded", b"\tfolded", b"X-Own: 1", b"Accept", b": x",
                b"", b"Accept: a\x00b", b"Accept: a\tb", b"Accept: a\rb", b"Accept: \xe4", b"Accept : x",
                b"User-Agent: " + b"x" * MAX_HEAD, b"Accept: a\nTransfer-Encoding: chunked", b"Accept: \x7f",
            )
        ),
        *(
            request_of(lines=(*LINES[:3], b"Content-Length: " + told))
            for told in (b"+2", b"02", b"2 2", b"0x2", b"", b"1", b"00", b"\xb2", b"9" * 10)
        ),
        *(request_of(lines=LINES[:at] + LINES[at + 1 :]) for at in (0, 3)),
    ],
)  # fmt: skip
def test_whatever_differs_in_a_letter_is_left_to_aiohttp(data):
    assert read(data) is None


@pytest.mark.parametrize(("body", "told", "missing"), [(b"", b"2", 2), (b"{", b"2", 1), (b"", b"9" * 9, 999999999)])
def test_the_end_of_a_body_may_be_missing(body, told, missing):
    asked = read(request_of(lines=(*LINES[:3], b"Content-Length: " + told), body=body))
    assert asked is not None
    assert (asked.body, asked.missing) == (body, missing)


@pytest.fixture(scope="module")
def ask_aiohttp() -> Iterator[Callable[[bytes], PlainRequest]]:
    """What aiohttp reads in bytes; raises if it reads no request, or more than one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def handle(asked: web.BaseRequest) -> web.Response:
        told = [asked.raw_path, dict(asked.headers), (await asked.content.read()).decode("latin-1"), asked.method]
        return web.Response(text=json.dumps([*told, asked.keep_alive, list(asked.version)]))

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def asked(data: bytes) -> PlainRequest:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(data + b"GET /behind HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = (await asyncio.wait_for(reader.read(), 30)).split(b"HTTP/1.1 200 OK\r\n")[1:]
        first, second = (answer.partition(b"\r\n\r\n") for answer in answers)
        writer.close()
        assert json.loads(second[2])[0] == "/behind", "both find the end of the body at the same place"
        path, headers, sent, method, keeps, version = json.loads(first[2])
        assert keeps
        assert version == [1, 1]
        headers = {name.title(): value for name, value in headers.items()}
        return PlainRequest(path, headers, sent.encode("latin-1"), method=method)

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    runner = run(start())
    yield lambda data: run(asked(data))
    run(runner.cleanup())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


_WORDS = st.one_of(
    st.sampled_from(
        [*LINES, b"Connection: keep-alive", b"Accept:", b"Host:", b"Content-Length: 2", b" ", b"\t", b"\r\n", b"\n",
         b"\r", b":", b"%zz", b"%", b"/actions", b"//", b"..", b"Transfer-Encoding: chunked", b"2", b"{}", b"\x00",
         b"HTTP/1.1"]
    ),
    st.binary(min_size=1, max_size=3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    name=st.text("abcXYZ019-._~:%", min_size=1, max_size=8),
    lines=st.permutations([*LINES[:3], b"Accept: */*", b"Connection: keep-alive", b"User-Agent: x y"]),
    body=st.binary(max_size=20),
    cuts=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 2), _WORDS), max_size=2),
)
@example(name="..", lines=[*LINES[:3]], body=b"", cuts=[])
@example(name="%zz", lines=[*LINES[:3]], body=b"", cuts=[])
def test_what_is_read_is_what_aiohttp_reads(ask_aiohttp, name, lines, body, cuts):
    lines = (*lines, b"Content-Length: %d" % len(body))
    data = request_of(b"POST /v1/policies/%b/actions HTTP/1.1" % name.encode(), lines, body)
    for at, gone, word in cuts:
        data = data[:at] + word + data[at + gone :]
    asked = read(data)
    if asked is None:
        assert cuts, "a plain request is read"
    else:
        data += b"x" * asked.missing
        asked.body, asked.missing = asked.body + b"x" * asked.missing, 0
        assert asked == read(data) == ask_aiohttp(data)
