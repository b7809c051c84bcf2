"""Which cluster an address means, and what answers there. No Ray is needed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from shoal.core.engines.ray_cluster import addresses
from shoal.core.errors import ClusterConnectionError

SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Somebody who listens on a port of this machine and answers one caller."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                link.settimeout(10)
                answer(link)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("address", "environ", "meant"),
    [
        (None, {}, None),
        ("auto", {}, "auto"),
        ("local", {}, "local"),
        ("head:6379", {}, "head:6379"),
        ("10.1.2.3:7000", {}, "10.1.2.3:7000"),
        ("[fd00::1]:6379", {}, "[fd00::1]:6379"),
        (None, {"RAY_ADDRESS": "there:1"}, "there:1"),
        ("auto", {"RAY_ADDRESS": "there:1"}, "there:1"),
        (None, {"RAY_ADDRESS": ""}, None),
        ("local", {"RAY_ADDRESS": "there:1"}, "local"),
        ("here:2", {"RAY_ADDRESS": "there:1"}, "here:2"),
    ],
)
def test_an_address_means_what_it_means_to_ray(address, environ, meant):
    assert addresses.resolved(address, environ) == meant


@pytest.mark.parametrize(
    ("address", "environ", "error", "text"),
    [
        (6379, {}, TypeError, "address is a text"),
        ("head", {}, ValueError, "address='head' is not the address of a Ray cluster.*6379"),
        ("", {}, ValueError, "address='' is not the address"),
        ("head:", {}, ValueError, "is not the address"),
        ("http://head:6379", {}, ValueError, "is not the address"),
        (None, {"RAY_ADDRESS": "nonsense"}, ValueError, "RAY_ADDRESS='nonsense' is not the address"),
        ("ray://head:10001", {}, ValueError, r"Ray Client's.*ray job submit.*address='auto'"),
        ("head:10001", {}, ValueError, "10001 is Ray Client's port.*6379"),
        ("head:8265", {}, ValueError, "8265 is the dashboard's.*6379"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write_instead(address, environ, error, text):
    with pytest.raises(error, match=text) as refused:
        addresses.resolved(address, environ)
    assert "\n" not in str(refused.value)


def test_the_cluster_of_this_machine_is_the_one_that_ray_start_has_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert addresses.recorded(None) is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert addresses.recorded(None) == "10.0.0.1:6379"
    assert addresses.recorded(str(tmp_path)) is None


def test_a_server_that_speaks_as_rays_do_is_let_pass():
    heard = []

    def answer(link: socket.socket) -> None:
        heard.append(link.recv(100))
        link.sendall(SETTINGS[:3])
        link.sendall(SETTINGS[3:])

    with server(answer) as address:
        addresses.knock(address)
    assert heard[0].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def test_of_an_encrypted_cluster_it_is_enough_that_somebody_listens():
    with server(lambda link: None) as address:
        addresses.knock(address, is_encrypted=True)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""])
def test_another_server_is_told_apart(words):
    def answer(link: socket.socket) -> None:
        link.recv(100)
        link.sendall(words)

    with server(answer) as address, pytest.raises(ClusterConnectionError, match=f"answers at {address}.*no Ray|6379"):
        addresses.knock(address)


def test_a_port_that_nobody_listens_at_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began_s = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"at 127.0.0.1:{port} \(Connection refused\): is `ray start --head`"):
        addresses.knock(f"127.0.0.1:{port}")
    assert time.monotonic() - began_s < 3


def test_a_server_that_says_nothing_is_not_waited_for_long():
    silence = threading.Event()
    with server(lambda link: silence.wait(10) and None) as address:
        with pytest.raises(ClusterConnectionError, match=r"within 0\.3 s"):
            addresses.knock(address, timeout_s=0.3)
        silence.set()


def test_a_name_that_nobody_knows_and_a_port_that_cannot_be_are_told():
    with pytest.raises(ClusterConnectionError, match="the name is not known"):
        addresses.knock("no-such-host.invalid:6379")
    with pytest.raises(ClusterConnectionError, match="99999"):
        addresses.knock("127.0.0.1:99999")


def test_a_driver_needs_a_node_on_its_machine(monkeypatch):
    found = [SimpleNamespace(info={"name": "bash"})]
    looks = []

    def processes(_):
        looks.append(0)
        return [*found, *([SimpleNamespace(info={"name": "raylet"})] if len(looks) == 3 else [])]

    monkeypatch.setattr(addresses.psutil, "process_iter", processes)
    addresses.check_is_node("head:6379")
    with pytest.raises(ClusterConnectionError, match=r"not one of the Ray cluster at head:6379.*ray start"):
        addresses.check_is_node("head:6379", patience_s=0.3)
    assert len(looks) > 4
