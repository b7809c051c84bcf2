"""Pages of origins that were allowed, as browsers ask for them (CORS); and clients that ask whether they may send."""

import socket

import pytest

pytestmark = pytest.mark.usefixtures("who_reads_requests")

PAGE = "https://example.org"
GOOD = {"observations": [[0.1, 0.2, 0.3, 0.4]]}


@pytest.fixture
def open_to_page(serving, policies):
    with serving(policies, allowed_origins=(PAGE,)) as served:
        yield served


def test_a_browser_is_told_before_it_asks_without_a_token(open_to_page):
    path, asked = "/v1/policies/cartpole/actions", {"Access_Control_Request_Method": "POST"}
    answer = open_to_page.ask("OPTIONS", path, token=None, Origin=PAGE, **asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    for origin in ("https://example.com", "https://example.org.evil.example", "null"):
        answer = open_to_page.ask("OPTIONS", path, token=None, Origin=origin, **asked)
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_and_failures_are_for_that_page_to_read(open_to_page):
    for body, token, status in ((GOOD, open_to_page.token, 200), ({}, open_to_page.token, 400), (GOOD, None, 401)):
        answer = open_to_page.ask("POST", "/v1/policies/cartpole/actions", body, token=token, Origin=PAGE)
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.headers["Vary"] == "Origin"


def test_nobody_else_is_told_of_it(open_to_page):
    own = f"http://127.0.0.1:{open_to_page.port}"
    for headers in ({}, {"Origin": own}):
        answer = open_to_page.act("cartpole", GOOD, **headers)
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
    asked = open_to_page.ask("OPTIONS", "/v1/policies", Access_Control_Request_Method="GET", Origin=own)
    assert asked.status == 405


@pytest.mark.parametrize(("token", "first"), [(True, b"HTTP/1.1 100 "), (False, b"HTTP/1.1 401 ")])
def test_who_asks_whether_to_send_is_told_when_all_but_the_body_is_right(served, token, first):
    body = b'{"observations": [[0.1, 0.2, 0.3, 0.4]]}'
    told = served.token.encode() if token else b"none-of-this-server"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/policies/cartpole/actions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (told, len(body))
        )
        assert connection.recv(1000).startswith(first)
        if token:
            connection.sendall(body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
