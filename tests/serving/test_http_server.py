import asyncio
import gzip
import http.client
import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from shoal.serving import wire
from shoal.serving.errors import Overloaded
from shoal.serving.http_server import HttpServer, HttpSettings
from shoal.serving.requests import ActRequest

pytestmark = pytest.mark.usefixtures("who_reads_requests")

GOOD = {"observations": [[0.1, 0.2, 0.3, 0.4]]}
EVERYTHING = {
    "camera": [[[1, 2, 3]] * 4], "state/0": [[0.5, 1]], "state/1": [6], "gears": [[1, 2]], "lamps": [[0, 1]],
}  # fmt: skip


def error_of(answer, status: int) -> dict:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) - {"retry_after_s"} == {"code", "message", "field"}
    return answer.json["error"]


def test_an_observation_gets_its_action_and_the_version_that_acted(served, policies):
    answer = served.act("cartpole", GOOD)
    assert (answer.status, answer.json) == (200, {"actions": [0], "policy": "cartpole", "version": 1})
    policies.swap("cartpole")
    assert served.act("cartpole", GOOD).json["version"] == 2
    assert served.act("cartpole:2", GOOD).json["version"] == 2
    assert error_of(served.act("cartpole:1", GOOD), 404)["code"] == "policy_not_found"


def test_what_is_asked_for_is_answered(served):
    body = {"observations": EVERYTHING, "want_value": True, "want_log_prob": True, "state": [[1, 2]]}
    answer = served.act("everything", body).json
    assert answer["state"] == [[2.0, 3.0]]
    assert answer["log_prob"] == [-0.5]
    (action,) = answer["actions"]
    assert set(action) == {"gear", "steer"}
    assert len(action["steer"]) == 2
    assert len(answer["value"]) == 1


def test_tensors_are_answered_in_tensors(served):
    columns = {name: np.array(value) for name, value in EVERYTHING.items()}
    body = wire.write_tensor_request(ActRequest(observations=columns, want_value=True))
    answer = served.act("everything", body, Content_Type=wire.TENSOR_FORM)
    assert answer.headers["Content-Type"] == wire.TENSOR_FORM
    reply = wire.read_tensor_reply(answer.body)
    in_json = served.act("everything", {"observations": EVERYTHING, "want_value": True}).json
    assert reply.value.tolist() == in_json["value"]
    assert reply.actions["gear"].tolist() == [in_json["actions"][0]["gear"]]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        ({}, 400, "observations"),
        ({"observations": [[0.1, 0.2]]}, 422, "observations.observation"),
        ({"observations": {"camera": [[0.1]]}}, 422, "observations.camera"),
        (b'{"observations": [[NaN, 0, 0, 0]]}', 422, "observations.observation"),
        (b'{"observations": [[1e999, 0, 0, 0]]}', 422, "observations.observation"),
        ({"observations": [["a", 0, 0, 0]]}, 400, "observations"),
        ({"observations": [[1e300, 0, 0, 0]]}, 422, "observations.observation"),
        ({"observations": [GOOD["observations"][0]] * 65}, 422, "observations"),
        (GOOD | {"action_mask": [[0, 0]]}, 422, "action_mask"),
        (GOOD | {"timeout_s": -1}, 400, "timeout_s"),
        (GOOD | {"sessions": ["\ud800"]}, 400, "sessions"),
        (GOOD | {"unheard": 1}, 400, "unheard"),
    ],
)
def test_bad_input_is_told_with_its_field(served, body, status, field):
    assert error_of(served.act("cartpole", body), status)["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/policies/nobody/actions", 404, "policy_not_found"),
        ("POST", "/v1/policies/cartpole:x/actions", 400, "bad_request"),
        ("POST", "/v1/policies/%00%ff/actions", 404, "policy_not_found"),
        ("POST", "/v1/policies//actions", 404, "route_not_found"),
        ("POST", "/v1/policies/a/b/actions", 404, "route_not_found"),
        ("POST", "/v1/policies/a%2Fb/actions", 404, "policy_not_found"),
        ("POST", "/v1/policies/actions", 404, "route_not_found"),
        ("GET", "/v1/policies/cartpole/actions", 405, "method_not_allowed"),
        ("POST", "/v1/policies", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("GET", "/etc/passwd", 404, "route_not_found"),
        ("GET", "/../page.html", 404, "route_not_found"),
        ("PROPFIND", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_told(served, method, path, status, code):
    answer = served.ask(method, path, GOOD if method == "POST" else None)
    assert error_of(answer, status)["code"] == code
    assert status != 405 or answer.headers["Allow"] in ("POST", "GET, HEAD")


@pytest.mark.parametrize("text", [b"BREW / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nA\r\n\r\n"])
def test_what_is_no_http_is_a_bad_request_and_fills_no_log(served, text, caplog):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(text)
        assert connection.recv(100).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert caplog.records == []


def test_the_form_of_a_body_is_named(served):
    for form in ("text/plain", "application/x-python-pickle", "multipart/form-data", ""):
        assert error_of(served.act("cartpole", GOOD, Content_Type=form), 415)["field"] == "Content-Type"
    assert served.act("cartpole", GOOD, Content_Type="Application/JSON; charset=utf-8").status == 200


def test_nothing_is_decompressed(served):
    body = gzip.compress(json.dumps(GOOD).encode() + b" " * 10_000_000)
    answer = served.act("cartpole", body, Content_Encoding="gzip")
    assert error_of(answer, 415)["field"] == "Content-Encoding"
    assert served.act("cartpole", GOOD, Content_Encoding="identity").status == 200


@pytest.mark.parametrize("path", ["/v1/policies", "/metrics", "/v1/policies/cartpole/actions"])
def test_the_token_is_asked_for_also_on_loopback(served, path):
    method = "POST" if "actions" in path else "GET"
    for token in (None, "wrong", ""):
        answer = served.ask(method, path, GOOD if method == "POST" else None, token=token)
        assert error_of(answer, 401)["field"] == "Authorization"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert served.ask(method, path, GOOD if method == "POST" else None).status == 200


def test_pages_of_strangers_are_turned_away_whatever_they_ask(served):
    for path in ("/", "/healthz", "/v1/policies", "/nothing"):
        assert error_of(served.ask("GET", path, Host="evil.example"), 403)["field"] == "Host"
        assert error_of(served.ask("GET", path, Origin="http://evil.example"), 403)["field"] == "Origin"
    own = f"http://127.0.0.1:{served.port}"
    assert served.ask("GET", "/v1/policies", Origin=own).status == 200
    assert "Access-Control-Allow-Origin" not in served.ask("GET", "/v1/policies", Origin=own).headers


def test_a_body_that_is_told_as_too_large_is_not_read(serving, policies):
    with serving(policies, max_json_bytes=1000, max_body_bytes=2000) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
            connection.sendall(
                b"POST /v1/policies/cartpole/actions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n"
                b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n\r\n" % served.token.encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
        assert error_of(served.act("cartpole", b" " * 1001), 413)["code"] == "too_large"
        assert error_of(served.act("cartpole", b" " * 2001, Content_Type=wire.TENSOR_FORM), 413)
        assert error_of(served.act("cartpole", b" " * 1001, Content_Type=wire.TENSOR_FORM), 400)


def test_a_body_in_chunks_is_read_up_to_the_limit(serving, policies):
    def ask(served, size: int) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
        text = json.dumps(GOOD).encode()
        chunks = [text, b" " * (size - len(text))]
        connection.request("POST", "/v1/policies/cartpole/actions", iter(chunks), headers, encode_chunked=True)
        response = connection.getresponse()
        status, body = response.status, response.read()
        connection.close()
        return status, body

    with serving(policies, max_json_bytes=1000, max_body_bytes=2000) as served:
        assert ask(served, 1000)[0] == 200
        for size in (1001, 5000):
            status, body = ask(served, size)
            assert status == 413
            assert json.loads(body)["error"]["code"] == "too_large"


def test_a_body_that_does_not_come_is_given_up(serving, policies):
    with (
        serving(policies, body_timeout_s=0.1) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection,
    ):
        connection.sendall(
            b"POST /v1/policies/cartpole/actions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
            b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n\r\n{" % served.token.encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"]
)
def test_a_connection_that_asks_nothing_more_is_closed(serving, policies, begun):
    with (
        serving(policies, idle_s=0.1) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection,
    ):
        connection.sendall(begun)
        while connection.recv(1000):
            pass


def test_an_overloaded_policy_says_when_to_come_back(served, policies):
    def refuse(request: ActRequest) -> None:
        raise Overloaded("the queue is full", retry_after_s=2.4)

    policies.before_act = refuse
    answer = served.act("cartpole", GOOD)
    assert error_of(answer, 503) == {
        "code": "overloaded", "message": "the queue is full", "field": None, "retry_after_s": 2.4
    }  # fmt: skip
    assert answer.headers["Retry-After"] == "2"


def test_a_fault_of_the_policy_is_logged_and_told_without_its_traceback(served, policies, caplog):
    def fail(request: ActRequest) -> None:
        raise ZeroDivisionError("secret")

    policies.before_act = fail
    answer = served.act("cartpole", GOOD)
    assert error_of(answer, 500)["code"] == "policy_failed"
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "ZeroDivisionError: secret" in caplog.text


def test_policies_are_told_with_spaces_and_versions(served, policies):
    policies.swap("cartpole")
    cartpole, everything = served.ask("GET", "/v1/policies").json["policies"]
    assert [version["number"] for version in cartpole["versions"]] == [2, 1]
    assert cartpole["observation_space"]["shape"] == [4]
    assert everything["observation_space"]["parts"]["state"]["parts"]["0"]["low"] == [None]
    assert (everything["recurrent"], everything["state_size"]) == (True, 2)


def test_probes_tell_a_server_that_is_there_from_one_that_answers(served, policies):
    assert served.ask("GET", "/healthz", token=None).status == 200
    assert served.ask("GET", "/readyz", token=None).status == 200
    assert served.ask("HEAD", "/readyz", token=None).body == b""
    policies.is_ready = False
    assert error_of(served.ask("GET", "/readyz", token=None), 503)["code"] == "unready"
    assert served.ask("GET", "/healthz", token=None).status == 200
    assert error_of(served.act("cartpole", GOOD), 503)["code"] == "unready"


def test_metrics_are_prometheus_text(served):
    served.act("cartpole", GOOD)
    served.act("cartpole", {"observations": [[1]]})
    served.act("cartpole", b"{")
    answer = served.ask("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    for line in (
        'shoal_serving_answers_total{policy="cartpole",code="ok"} 1',
        'shoal_serving_answers_total{policy="cartpole",code="bad_observation"} 1',
        'shoal_serving_batch_rows_bucket{policy="cartpole",le="1"} 1',
        'shoal_serving_batch_rows_count{policy="cartpole"} 1',
        'shoal_serving_version{policy="cartpole"} 1',
        'shoal_http_requests_total{route="actions",status="200"} 1',
        'shoal_http_requests_total{route="actions",status="422"} 1',
        'shoal_http_requests_total{route="actions",status="400"} 1',
        'shoal_http_latency_seconds_count{route="actions"} 3',
        "shoal_http_in_flight 1",
    ):
        assert line in lines
    pattern = re.compile(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+')
    assert [line for line in lines if not pattern.fullmatch(line)] == []


def test_the_page_loads_nothing_from_elsewhere(served):
    assert served.ask("GET", "/", token=None).status == 200
    answer = served.ask("GET", "/", token=None)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert not re.search(rb"https?://", answer.body)
    assert served.token.encode() not in answer.body


def test_requests_on_one_connection_are_answered_in_order(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
    statuses = []
    for body in (json.dumps(GOOD), "{", json.dumps(GOOD)):
        connection.request("POST", "/v1/policies/cartpole/actions", body, headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert statuses == [200, 400, 200]


def test_many_at_once_are_each_answered(served):
    answers = []

    def ask(i: int) -> None:
        answers.append((i, served.act("cartpole", {"observations": [[i, 0, 0, 0]]})))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(i for i, _ in answers) == list(range(16))
    assert all(answer.json["actions"] == [(i + 1) % 2] for i, answer in answers)


def test_a_server_that_leaves_answers_what_it_began_and_turns_others_away(serving, policies):
    arrived, go = threading.Event(), None

    async def wait(request: ActRequest) -> None:
        nonlocal go
        go = asyncio.Event()
        arrived.set()
        await asyncio.wait_for(go.wait(), 30)

    policies.before_act = lambda request: wait(request)
    with serving(policies) as served:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(served.act("cartpole", GOOD)))
        asking.start()
        assert arrived.wait(30)
        leaving = asyncio.run_coroutine_threadsafe(served.server.drain(), served.loop)
        deadline = time.monotonic() + 30
        while served.ask("GET", "/readyz").status != 503 and time.monotonic() < deadline:
            pass
        late = served.act("cartpole", GOOD)
        assert error_of(late, 503)["code"] == "unready"
        assert late.headers["Connection"] == "close"
        served.loop.call_soon_threadsafe(lambda: go.set())
        leaving.result(30)
        asking.join(30)
        assert [answer.status for answer in answers] == [200]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port), timeout=30)


def test_a_server_gives_notice_before_it_turns_anybody_away(serving, policies):
    with serving(policies, notice_s=30.0) as served:
        leaving = asyncio.run_coroutine_threadsafe(served.server.drain(), served.loop)
        deadline = time.monotonic() + 30
        while served.ask("GET", "/readyz").status != 503 and time.monotonic() < deadline:
            pass
        assert served.act("cartpole", GOOD).status == 200
        leaving.cancel()


def test_a_server_does_not_wait_for_ever_for_who_does_not_end(serving, policies, caplog):
    arrived = threading.Event()

    async def wait(request: ActRequest) -> None:
        arrived.set()
        await asyncio.sleep(30)

    policies.before_act = lambda request: wait(request)
    with serving(policies, drain_s=0.05) as served:

        def ask() -> None:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                served.act("cartpole", GOOD)

        asking = threading.Thread(target=ask)
        asking.start()
        assert arrived.wait(30)
        served.run(served.server.drain())
        asking.join(30)
        assert not asking.is_alive()
    assert "1 requests unanswered after 0.05 s" in caplog.text


def test_a_taken_port_is_told_by_the_system(serving, served, policies):
    with pytest.raises(OSError, match="address already in use"), serving(policies, port=served.port):
        pass


def test_the_token_is_not_in_what_is_printed_of_the_settings():
    assert "hush" not in repr(HttpSettings(token="hush"))


def test_without_aiohttp_it_says_what_to_install(monkeypatch, policies):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'shoal[serve]'")):
        HttpServer(policies, HttpSettings(token="x"))


def test_importing_the_server_imports_neither_aiohttp_nor_torch():
    code = "import sys; import shoal.serving.http_server; print([n for n in ('aiohttp', 'torch') if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
    assert importlib.util.find_spec("aiohttp") is not None
