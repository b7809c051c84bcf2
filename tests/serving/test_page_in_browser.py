"""The page in a real browser, driven over the DevTools protocol: `make test-browser`, which installs one if need be."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytestmark = pytest.mark.browser

DEADLINE_S = 30.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page:
    """One page of a browser without a window."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket = loop, socket
        self._ids = 0
        #: What the browser told unasked: (method, parameters).
        self.events: list[tuple[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), DEADLINE_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        self._ids += 1
        await self._socket.send_json({"id": self._ids, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._ids:
                assert "error" not in message, message
                return message["result"]
            self.events.append((message["method"], message["params"]))

    def run(self, expression: str) -> Any:
        """The value of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of JavaScript, once it is true."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, f"{expression} did not become true; the page: {self.text('body')}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str) -> None:
        """With the mouse, in its middle, as a person would."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def fill(self, selector: str, text: str) -> None:
        """Type over what is there."""
        self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()")
        self.call("Input.insertText", text=text)

    def complaints(self) -> list[str]:
        """What the browser's console holds of errors, and whom it asked besides the server."""
        self.run("0")  # what was told meanwhile has come when this is answered
        found = [json.dumps(told) for method, told in self.events if method == "Runtime.exceptionThrown"]
        return found + [
            told["entry"]["text"]
            for method, told in self.events
            if method == "Log.entryAdded" and told["entry"]["level"] == "error"
        ]

    def asked(self) -> set[str]:
        return {told["request"]["url"] for method, told in self.events if method == "Network.requestWillBeSent"}


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[str]:
    """A browser, and the address of its DevTools."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program is not None, f"none of {', '.join(NAMES)} is installed: make test-browser installs one on Debian"
    command = [program, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"]
    command += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox does not work for root
    log = folder / "log"
    with log.open("w") as output:
        browser = subprocess.Popen([*command, "about:blank"], stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + DEADLINE_S
        port = folder / "DevToolsActivePort"
        while not (port.is_file() and "\n" in port.read_text()):
            assert browser.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port.read_text().split()[0]}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait(30)


@pytest.fixture(scope="module")
def devtools(tmp_path_factory) -> Iterator[str]:
    with open_browser(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture
def page(devtools, served) -> Iterator[Page]:
    """The server's page, fresh, in a window of its own."""
    loop = asyncio.new_event_loop()

    async def connect() -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
        session = aiohttp.ClientSession()
        async with session.put(f"{devtools}/json/new?about:blank") as answer:
            target = await answer.json(content_type=None)
        return session, await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)

    session, socket = loop.run_until_complete(asyncio.wait_for(connect(), DEADLINE_S))
    try:
        page = Page(loop, socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=f"http://127.0.0.1:{served.port}/")
        page.wait_for("document.readyState === 'complete' && document.querySelector('#token') !== null")
        yield page
    finally:
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())
        loop.close()


@pytest.fixture
def opened(page, served) -> Page:
    """The page, with the token given."""
    page.fill("#token", served.token)
    page.click("#door button")
    page.wait_for("document.querySelectorAll('#policies tr').length === 2")
    return page


def test_without_its_token_the_page_tells_nothing(page):
    page.fill("#token", "guessed")
    page.click("#door button")
    assert page.wait_for("document.querySelector('#said').innerText") == "not the token of this server"
    assert page.run("document.querySelectorAll('#policies tr').length") == 0
    assert page.run("document.querySelector('#ask').disabled")


def test_it_shows_policies_and_their_versions_as_they_change(opened, policies):
    assert opened.text("#said") == "2 policies"
    first, second = opened.text("#policies").split("\n")
    assert first.split("\t")[:3] == ["cartpole", "1", "serving"]
    assert "float32[4]" in first
    assert "one of 2" in first
    assert "everything (recurrent)" in second
    assert "{camera: uint8[4, 3], gears: multi discrete[2], lamps: multi binary[2]," in second
    assert " state: (float32[2], one of 3)}" in second
    policies.swap("cartpole")
    opened.wait_for("document.querySelector('#policies td.number').innerText === '2'")
    assert opened.complaints() == []


def test_it_asks_for_an_action(opened, served):
    opened.click("#ask")
    answer = json.loads(opened.wait_for("document.querySelector('#answer').innerText"))
    assert answer == {"actions": [1], "policy": "cartpole", "version": 1}
    opened.fill("#observation", "[[1, 0, 0, 0], [0, 0, 0, 0.5]]")
    opened.click("#details")
    opened.click("#ask")
    opened.wait_for("document.querySelector('#answer').innerText.includes('value')")
    assert json.loads(opened.text("#answer"))["value"] == [2.0, 3.0]
    assert "half within" in opened.text("#here")
    assert opened.complaints() == []
    assert {url.split("/")[2] for url in opened.asked()} == {f"127.0.0.1:{served.port}"}
    assert not any(served.token in url for url in opened.asked())


def test_what_is_wrong_with_an_observation_is_said_with_its_field(opened):
    opened.fill("#observation", "[[1, 2]]")
    opened.click("#ask")
    opened.wait_for("document.querySelector('#answer.bad') !== null")
    assert opened.text("#answer").startswith("observations.observation: shape [1, 2]; the policy takes [N, 4]")
    opened.fill("#observation", "[[1, 2]")
    opened.click("#ask")
    opened.wait_for("document.querySelector('#answer').innerText.startsWith('the observation is no JSON')")


def test_a_policy_that_remembers_gets_its_state_back_and_the_form_fits_its_space(opened):
    opened.run("document.querySelector('#policy').value = 'everything'")
    opened.run("document.querySelector('#policy').dispatchEvent(new Event('change'))")
    assert json.loads(opened.run("document.querySelector('#observation').value"))["state/1"] == [5]
    for steps in (1, 2, 3):
        opened.click("#ask")
        opened.wait_for(f"document.querySelector('#answer').innerText.includes('\"state\":[[{steps},{steps}]]')")


def test_it_draws_latency_while_it_asks_again_and_again(opened):
    opened.click("#repeat")
    opened.wait_for("document.querySelector('#line').points.length >= 10")
    opened.wait_for("document.querySelector('#there').innerText.includes('99 % within')")
    assert opened.text("#repeat") == "Stop"
    opened.click("#repeat")
    opened.wait_for("document.querySelector('#repeat').innerText === 'Ask again and again'")
    assert opened.complaints() == []


def test_a_policy_whose_name_is_html_is_text(opened, served, policies):
    name = "<img src=x onerror=alert(1)>"
    policies.policies[name] = policies.policies.pop("cartpole")
    policies.policies[name].info = replace(policies.policies[name].info, name=name)
    opened.wait_for("document.querySelector('#policies').innerText.includes('<img src=x')")
    assert opened.run("document.images.length") == 0
    opened.run(f"document.querySelector('#policy').value = {json.dumps(name)}")
    opened.run("document.querySelector('#policy').dispatchEvent(new Event('change'))")
    opened.click("#ask")
    opened.wait_for("document.querySelector('#answer').innerText.includes('\"policy\":\"<img')")
