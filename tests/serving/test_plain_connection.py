"""A connection of plain requests, which is aiohttp's as soon as something else comes over it."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from aiohttp import web

from shoal.serving import http_server, wire
from shoal.serving.http_answer import Answer
from shoal.serving.http_server import HttpServer, HttpSettings
from shoal.serving.plain_connection import PlainConnection
from shoal.serving.plain_request import PlainRequest


def plain(text: str, *more: str) -> bytes:
    lines = ["POST /v1/policies/p/actions HTTP/1.1", "Host: x", *more, f"Content-Length: {len(text)}", "", text]
    return "\r\n".join(lines).encode()


def other(text: str) -> bytes:
    return plain(text, "X-Own: 1")


class Served:
    """A server that says who has read a request, and what was in it."""

    def __init__(self, answer: Callable[[PlainRequest], Awaitable[Answer]] | None = None, idle_s: float = 60.0) -> None:
        self._given = answer or self._say
        self._idle_s = idle_s
        self.open_ones: set[PlainConnection] = set()
        self.asked: list[bytes] = []

    async def _say(self, request: PlainRequest) -> Answer:
        return Answer(json.dumps(["plain", request.body.decode()]).encode(), "application/json")

    async def _answer(self, request: PlainRequest) -> Answer:
        self.asked.append(request.body)
        return await self._given(request)

    async def _others(self, request: web.BaseRequest) -> web.Response:
        return web.Response(text=json.dumps(["aiohttp", (await request.content.read()).decode()]))

    async def __aenter__(self) -> "Served":
        aiohttp = web.Server(self._others)
        self._runner = web.ServerRunner(aiohttp, shutdown_timeout=0.1)
        await self._runner.setup()
        made = partial(
            PlainConnection, self._answer, aiohttp, software="x", idle_s=self._idle_s, open_ones=self.open_ones
        )
        self._server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self.open_ones):
            connection.close()
        await self._runner.cleanup()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        reader, writer = await asyncio.open_connection(*self._server.sockets[0].getsockname())
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hears(self) -> list[str]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return json.loads(await asyncio.wait_for(self.reader.readexactly(length), 30))

    async def is_hung_up_on(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 30) == b""


async def until(is_so: Callable[[], object]) -> None:
    for _ in range(30_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never was")


def test_a_connection_is_aiohttps_from_the_first_request_that_is_not_plain():
    async def ask() -> list[list[str]]:
        async with Served() as served, served.client() as client:
            told = []
            for number, request in enumerate((plain("0"), plain("1"), other("2"), plain("3"))):
                client.writer.write(request)
                told.append(await client.hears())
                assert len(served.open_ones) == (number < 2)
        return told

    assert asyncio.run(ask()) == [["plain", "0"], ["plain", "1"], ["aiohttp", "2"], ["aiohttp", "3"]]


@pytest.mark.parametrize("requests", [(plain, plain), (plain, other, plain), (other, plain)])
def test_requests_that_come_together_are_answered_in_order(requests):
    async def ask() -> list[str]:
        async with Served() as served, served.client() as client:
            client.writer.write(b"".join(made(str(number)) for number, made in enumerate(requests)))
            return [(await client.hears())[1] for _ in requests]

    assert asyncio.run(ask()) == [str(number) for number in range(len(requests))]


def test_a_request_that_comes_in_two_pieces_is_answered_wherever_it_is_cut():
    request = plain("{}")

    async def ask() -> list[list[str]]:
        told = []
        async with Served() as served:
            for at in range(1, len(request)):
                async with served.client() as client:
                    await until(lambda: served.open_ones)
                    (connection,) = served.open_ones
                    client.writer.write(request[:at])
                    await until(lambda: connection._begun or not served.open_ones)  # noqa: B023
                    if connection._begun:
                        connection._stop_giving_up()  # however slow this machine is
                    client.writer.write(request[at:])
                    told.append(await client.hears())
                await until(lambda: not served.open_ones)
        return told

    in_head = len(request) - 3
    assert asyncio.run(ask()) == [["aiohttp", "{}"]] * in_head + [["plain", "{}"]] * 2


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("{}", (b"", b"}")),
        ("{+}", (b"+", b"}")),
        ("{}", (b"}" + plain("behind"),)),
        ("{}", (b"}" + other("behind"),)),
    ],
)
def test_a_body_whose_end_does_not_come_at_once_or_not_alone_is_aiohttps(text, ends):
    async def ask() -> list[list[str]]:
        async with Served() as served, served.client() as client:
            client.writer.write(plain(text)[: 1 - len(text)])
            await until(lambda: served.open_ones)
            for end in ends:
                client.writer.write(end)
                await until(lambda: not served.open_ones)
            return [await client.hears() for _ in range(1 + ends[-1].endswith(b"behind"))]

    assert asyncio.run(ask()) in ([["aiohttp", text]], [["aiohttp", text], ["aiohttp", "behind"]])


@pytest.mark.parametrize("second", [plain, other])
def test_what_comes_while_a_request_is_under_way_waits_for_its_answer(second):
    async def ask() -> list[str]:
        go = asyncio.Event()

        async def wait(request: PlainRequest) -> Answer:
            await go.wait()
            return Answer(json.dumps(["plain", request.body.decode()]).encode(), "application/json")

        async with Served(wait) as served, served.client() as client:
            client.writer.write(plain("0"))
            await until(lambda: served.asked)
            (connection,) = served.open_ones
            request = second("1")
            client.writer.write(request[:30])
            await until(lambda: connection._waiting)
            client.writer.write(request[30:])
            assert served.asked == [b"0"]
            go.set()
            return [(await client.hears())[1], (await client.hears())[1]]

    assert asyncio.run(ask()) == ["0", "1"]


def test_who_does_not_read_answers_is_not_read_from_and_loses_none():
    large = json.dumps(["x" * (1 << 20), ""]).encode()

    async def ask() -> None:
        async def answer(request: PlainRequest) -> Answer:
            return Answer(large, "application/json")

        async with Served(answer) as served, served.client() as client:
            client.reader._transport.pause_reading()
            client.writer.write(plain("0"))
            await until(lambda: served.asked)
            (connection,) = served.open_ones
            number = 0
            while not connection._is_full:
                number += 1
                client.writer.write(plain(str(number)))
                await until(lambda: len(served.asked) == number + 1)  # noqa: B023
            client.writer.write(other("last"))
            client.reader._transport.resume_reading()
            for _ in range(number + 1):
                assert len((await client.hears())[0]) == 1 << 20
            assert await client.hears() == ["aiohttp", "last"]

    asyncio.run(ask())


@pytest.mark.parametrize("made", [plain, other])
def test_as_long_as_answers_are_not_taken_nothing_is_read(made):
    async def ask() -> None:
        async with Served() as served, served.client() as client:
            client.writer.write(plain("0"))
            assert await client.hears() == ["plain", "0"]
            (connection,) = served.open_ones
            connection.pause_writing()
            client.writer.write(made("1"))
            connection.data_received(made("2"))  # the system had it already
            await asyncio.sleep(0.01)
            assert served.asked == [b"0"]
            assert connection in served.open_ones
            connection.resume_writing()
            assert [(await client.hears())[1] for _ in range(2)] == ["2", "1"]

    asyncio.run(ask())


def test_a_connection_that_asks_nothing_is_closed():
    async def ask() -> None:
        async with Served(idle_s=0.05) as served, served.client() as client:
            assert await client.is_hung_up_on()
            await until(lambda: not served.open_ones)

    asyncio.run(ask())


def test_a_connection_is_not_idle_while_its_request_is_under_way_nor_just_after():
    async def ask() -> None:
        go = asyncio.Event()

        async def wait(request: PlainRequest) -> Answer:
            await go.wait()
            return Answer(b"[]", "application/json")

        async with Served(wait, idle_s=60.0) as served, served.client() as client:
            client.writer.write(plain("0"))
            await until(lambda: served.asked)
            (connection,) = served.open_ones
            connection._idle_since_s -= 61.0
            connection._look()
            go.set()
            assert await client.hears() == []
            connection._look()
            client.writer.write(plain("1"))
            assert await client.hears() == []
            connection._idle_since_s -= 61.0
            connection._look()
            assert await client.is_hung_up_on()

    asyncio.run(ask())


def test_the_last_answer_ends_the_connection():
    async def ask() -> bytes:
        async def answer(request: PlainRequest) -> Answer:
            return Answer(b"{}", "application/json", 503, is_last=True)

        async with Served(answer) as served, served.client() as client:
            client.writer.write(plain("0"))
            return await asyncio.wait_for(client.reader.read(), 30)

    told = asyncio.run(ask())
    assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert told.endswith(b"\r\nConnection: close\r\n\r\n{}")


def test_a_client_that_goes_harms_nobody_and_one_that_is_cut_off_sees_it(caplog):
    async def ask() -> None:
        go = asyncio.Event()

        async def wait(request: PlainRequest) -> Answer:
            await go.wait()
            return Answer(b"[]", "application/json")

        async with Served(wait) as served:
            async with served.client() as gone:
                gone.writer.write(plain("0"))
                await until(lambda: served.asked)
            await until(lambda: not served.open_ones)
            go.set()
            async with served.client() as client:
                client.writer.write(plain("1"))
                assert await client.hears() == []
                go.clear()
                client.writer.write(plain("2"))
                await until(lambda: len(served.asked) == 3)
                (connection,) = served.open_ones
                assert connection.under_way is not None
                connection.close()
                assert await client.is_hung_up_on()

    asyncio.run(ask())
    assert caplog.records == []


def test_a_client_that_reads_no_answer_does_not_keep_its_connection_open():
    async def answer(_request: PlainRequest) -> Answer:
        return Answer(bytes(16 << 20), "application/json")

    async def ask() -> None:
        async with Served(answer, idle_s=0.1) as served, served.client() as client:
            client.writer.write(plain("{}"))
            await until(lambda: served.asked)
            await until(lambda: not served.open_ones)

    asyncio.run(ask())


def test_a_request_is_answered_though_what_comes_with_its_end_is_no_http():
    request = plain("{}")

    async def ask() -> bytes:
        async with Served() as served, served.client() as client:
            client.writer.write(request[:-1])
            await until(lambda: any(connection._begun for connection in served.open_ones))
            client.writer.write(request[-1:] + b"no HTTP\r\n\r\n")
            assert await client.hears() == ["aiohttp", "{}"]
            return await asyncio.wait_for(client.reader.read(), 30)

    assert asyncio.run(ask()).startswith(b"HTTP/1.0 400 Bad Request\r\n")


def test_an_answer_that_is_on_its_way_when_the_server_closes_arrives_whole(policies, monkeypatch):
    size, token = 32 << 20, "t" * 20
    monkeypatch.setattr(http_server, "_LAST_S", 30.0)
    monkeypatch.setattr(wire, "write_json_reply", lambda reply: bytes(size))
    text = json.dumps({"observations": [[0.0] * 4]})
    lines = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
    request = plain(text).replace(b"Host: x", lines.encode()).replace(b"/p/", b"/cartpole/")

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(request)
            return b"".join(iter(partial(client.recv, 1 << 16), b""))

    async def serve(threads: ThreadPoolExecutor) -> Future[bytes]:
        server = HttpServer(policies, HttpSettings(token=token, port=0))
        await server.start()
        answer = threads.submit(ask, server.port)
        await until(lambda: server._counts.answers)
        await server.close()
        return answer

    with ThreadPoolExecutor(1) as threads:
        head, _, body = asyncio.run(serve(threads)).result(30).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(body) == size
