"""Both clients against a real server; a sync one stands for what they share."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from shoal.serving.async_client import AsyncPolicyClient
from shoal.serving.client import PolicyClient
from shoal.serving.errors import BadObservation, BadRequest, Overloaded, PolicyNotFound, Unauthorized, Unreachable
from shoal.serving.exchange import Address
from shoal.serving.http_access import write_token

OBSERVATION = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
EVERYTHING = {
    "camera": np.ones((2, 4, 3), np.uint8), "state/0": np.zeros((2, 2)), "state/1": [5, 6], "gears": [[1, 2], [0, 1]],
    "lamps": [[0, 1], [1, 1]],
}  # fmt: skip


class Asked:
    """An asynchronous client, asked like the other."""

    def __init__(self, url: str, **arguments) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncPolicyClient(url, **arguments)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *given, **named: self._loop.run_until_complete(asyncio.wait_for(method(*given, **named), 30))

    def __enter__(self):
        self._loop.run_until_complete(self._client.__aenter__())
        return self

    def __exit__(self, *_):
        self._loop.run_until_complete(self._client.__aexit__())
        self._loop.close()


@pytest.fixture(params=[PolicyClient, Asked], ids=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def client(kind, served) -> Iterator[PolicyClient]:
    with kind(f"http://127.0.0.1:{served.port}", token=served.token, timeout_s=20.0) as client:
        yield client


def test_actions_values_and_versions_come_as_arrays(client, policies):
    reply = client.act("cartpole", OBSERVATION, want_value=True, want_log_prob=True)
    assert (reply.actions.tolist(), reply.policy, reply.version) == ([0], "cartpole", 1)
    assert (reply.value.dtype, reply.log_prob.tolist(), reply.state) == (np.float32, [-0.5], None)
    policies.swap("cartpole")
    assert client.act("cartpole:2", {"observation": OBSERVATION}).version == 2


def test_nested_spaces_and_states_come_and_go(client):
    reply = client.act("everything", EVERYTHING, state=np.zeros((2, 2), np.float32))
    assert list(reply.actions) == ["gear", "steer"]
    assert reply.actions["steer"].shape == (2, 2)
    again = client.act("everything", EVERYTHING, state=reply.state, episode_start=np.array([False, True]))
    assert again.state.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_policies_are_told_as_they_are(client, policies):
    assert client.policies() == policies.infos()


def test_errors_arrive_as_what_they_are(client, served, kind):
    with pytest.raises(BadObservation) as caught:
        client.act("cartpole", np.zeros((1, 3)))
    assert caught.value.field == "observations.observation"
    assert "shape [1, 3]; the policy takes [N, 4] of float32" in str(caught.value)
    with pytest.raises(PolicyNotFound, match="there is no policy 'nobody/x y'; there are cartpole, everything"):
        client.act("nobody/x y", OBSERVATION)
    with pytest.raises(BadRequest, match="one has two"):
        client.act("cartpole", np.zeros((2, 4)), sessions=("a", "a"))
    with kind(f"http://127.0.0.1:{served.port}", token="wrong") as stranger, pytest.raises(Unauthorized):
        stranger.act("cartpole", OBSERVATION)


def test_a_full_queue_is_tried_again_when_it_said(client, policies):
    refusals = [Overloaded("full", retry_after_s=0.02)] * 2

    def refuse(request):
        if refusals:
            raise refusals.pop()

    policies.before_act = refuse
    assert client.act("cartpole", OBSERVATION, sessions=("a",)).actions.tolist() == [0]
    assert refusals == []
    policies.before_act = lambda request: (_ for _ in ()).throw(Overloaded("full", retry_after_s=60.0))
    with pytest.raises(Overloaded):  # later than the call has time
        client.act("cartpole", OBSERVATION, timeout_s=1.0)


def test_the_server_learns_how_long_an_answer_is_wanted(client, policies):
    times = []
    policies.before_act = lambda request: times.append(request.timeout_s)
    client.act("cartpole", OBSERVATION, timeout_s=3.0)
    client.act("cartpole", OBSERVATION)
    assert 2.0 < times[0] <= 3.0
    assert 19.0 < times[1] <= 20.0


def test_nobody_there_is_told_with_the_address_when_the_time_is_up(kind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with kind(url, token="x", timeout_s=0.1) as client:
            with pytest.raises(Unreachable, match=f"{url} did not answer"):
                client.act("cartpole", OBSERVATION)
            assert not client.is_ready()


def test_a_server_that_comes_back_is_found_again(kind, serving, policies):
    with serving(policies) as served:
        port = served.port
        client = kind(f"http://127.0.0.1:{port}", token=served.token, timeout_s=20.0)
        with client:
            assert client.act("cartpole", OBSERVATION).version == 1
            assert client.is_ready()
            with contextlib.ExitStack() as second:
                served.run(served.server.close())
                assert not client.is_ready()
                comes_back = threading.Timer(0.15, lambda: second.enter_context(serving(policies, port=port)))
                comes_back.start()
                assert client.act("cartpole", OBSERVATION, sessions=("a",)).version == 1
                comes_back.join(30)


class Hangup(threading.Thread):
    """A server that reads each request and hangs up without an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.requests = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(10)
                with connection:
                    self.requests += bool(connection.recv(65536))


def test_what_may_have_been_acted_on_is_not_sent_twice_where_the_server_remembers(kind):
    server = Hangup()
    server.start()
    try:
        with kind(f"http://127.0.0.1:{server.listener.getsockname()[1]}", token="x", timeout_s=0.5) as client:
            with pytest.raises(Unreachable, match="sessions may be a step ahead"):
                client.act("cartpole", OBSERVATION, sessions=("a",))
            assert server.requests == 1
            with pytest.raises(Unreachable):
                client.act("cartpole", OBSERVATION)
            assert server.requests > 2
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        server.join(30)


def test_something_else_that_answers_is_named(kind):
    refusal = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"

    class Proxy(Hangup):
        def run(self) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = self.listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(refusal)

    server = Proxy()
    server.start()
    try:
        with (
            kind(f"http://127.0.0.1:{server.listener.getsockname()[1]}", token="x", timeout_s=0.2) as client,
            pytest.raises(Unreachable, match="something that is no policy server answered 502"),
        ):
            client.act("cartpole", OBSERVATION)
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        server.join(30)


def test_connections_are_used_again_and_may_be_shared_by_threads(served):
    with PolicyClient(f"http://127.0.0.1:{served.port}", token=served.token) as client:
        for _ in range(3):
            client.act("cartpole", OBSERVATION)
        assert len(client._idle) == 1
        threads = [threading.Thread(target=client.act, args=("cartpole", OBSERVATION)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert 1 <= len(client._idle) <= 8
    assert client._idle == []


def test_the_token_may_be_in_a_file(served, tmp_path):
    write_token(tmp_path / "token", served.token)
    with PolicyClient(f"http://127.0.0.1:{served.port}/", token=tmp_path / "token") as client:
        assert client.act("cartpole", OBSERVATION).version == 1


def test_a_token_file_is_read_anew_when_the_server_has_another_token(kind, served, tmp_path):
    write_token(tmp_path / "token", "that-of-the-server-before")
    with kind(f"http://127.0.0.1:{served.port}", token=tmp_path / "token") as client:
        with pytest.raises(Unauthorized):
            client.act("cartpole", OBSERVATION)
        write_token(tmp_path / "token", served.token)
        assert client.act("cartpole", OBSERVATION).version == 1
        assert client.policies()
        write_token(tmp_path / "token", "that-of-another-server")
        assert client.policies(), "while the token is right nobody looks"
        (tmp_path / "token").unlink()
        assert client.act("cartpole", OBSERVATION).version == 1


def test_a_wrong_token_stays_wrong_where_its_file_has_gone(kind, served, tmp_path):
    write_token(tmp_path / "token", "that-of-the-server-before")
    with kind(f"http://127.0.0.1:{served.port}", token=tmp_path / "token") as client:
        (tmp_path / "token").unlink()
        with pytest.raises(Unauthorized):
            client.act("cartpole", OBSERVATION)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://box", Address(False, "box", 80, "")),
        ("https://box:8443/policies/", Address(True, "box", 8443, "/policies")),
        ("http://[::1]:8000", Address(False, "::1", 8000, "")),
    ],
)
def test_urls_lead_to_servers(url, address):
    assert Address.of(url) == address
    assert Address.of(str(address)) == address


@pytest.mark.parametrize(
    "url", ["", "box:8000", "ftp://box", "http://", "http://box/?x", "http://box:port", "http://box#x"]
)
def test_what_leads_nowhere_is_refused(url):
    with pytest.raises(ValueError, match=r"no address of a server|Port|port"):
        PolicyClient(url, token="x")


def test_the_client_needs_neither_the_core_nor_torch_nor_gymnasium():
    code = (
        "import sys; from shoal.serving.client import PolicyClient; PolicyClient('http://x', token='y')\n"
        "heavy = ('aiohttp', 'torch', 'gymnasium', 'asyncio', 'zmq', 'cloudpickle', 'psutil')\n"
        "core = ('shoal.core.api', 'shoal.core.runtime', 'shoal.rllib', 'shoal.envs')\n"
        "print([name for name in heavy + core if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
