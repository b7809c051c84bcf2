import os

import pytest

from shoal.serving import http_access
from shoal.serving.errors import BadRequest, Forbidden, Unauthorized
from shoal.serving.http_access import Door, host_name, read_token, served_hosts, write_token

TOKEN = "a" * 20


@pytest.fixture
def door() -> Door:
    return Door(TOKEN, served_hosts("127.0.0.1", ["Box.example"]), ["https://page.example/"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:9", "LOCALHOST", "[::1]:8000", "box.example:80"]
)
def test_its_own_names_are_served_at_any_port(door, host):
    for _ in range(2):  # the second time it is known
        door.check_origin(host, None)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.0.0.2", "localhost@evil.example",
     "evil.example/localhost", "[::1", "evil.example#localhost", "localhost\\@x", " "],
)  # fmt: skip
def test_other_names_are_not(door, host):
    with pytest.raises(Forbidden) as caught:
        door.check_origin(host, None)
    assert caught.value.field == "Host"


@pytest.mark.parametrize(
    ("origin", "is_served"),
    [
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("HTTP://LOCALHOST:8000", True),
        ("https://page.example", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://evil.example", False),
        ("https://page.example.evil", False),
        ("null", False),
        ("", False),
        ("file://localhost:8000", False),
    ],
)
def test_pages_are_served_if_they_are_its_own_or_allowed(door, origin, is_served):
    if is_served:
        door.check_origin("localhost:8000", origin)
    else:
        with pytest.raises(Forbidden) as caught:
            door.check_origin("localhost:8000", origin)
        assert caught.value.field == "Origin"


@pytest.mark.parametrize(
    "authorization",
    [None, "", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[1:]}", "Bearer \xe9"],
)
def test_only_the_token_opens(door, authorization):
    door.check_token(f"Bearer {TOKEN}")
    door.check_token(f"bearer {TOKEN}")
    with pytest.raises(Unauthorized) as caught:
        door.check_token(authorization)
    assert caught.value.field == "Authorization"
    assert TOKEN not in str(caught.value)


def test_a_server_at_all_addresses_must_be_told_its_names():
    for bound in ("0.0.0.0", "::"):
        with pytest.raises(ValueError, match="--allow-host"):
            served_hosts(bound, [])
        assert "box" in served_hosts(bound, ["box"])
    assert served_hosts("192.0.2.1", []) == {"192.0.2.1"}
    assert served_hosts("box.example", []) == {"box.example"}
    assert "localhost" in served_hosts("127.0.0.1", [])


def test_the_known_hosts_stay_few(door):
    for port in range(1000):
        door.check_origin(f"localhost:{port}", None)
    assert len(door._known) <= 64


def test_a_token_is_kept_where_only_its_owner_reads(tmp_path):
    path = tmp_path / "token"
    for token in (http_access.make_token(), http_access.make_token()):
        write_token(path, token)
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_token(path) == token
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]
    path.chmod(0o640)
    with pytest.raises(ValueError, match=f"can be read by others: chmod 600 {path}"):
        read_token(path)


@pytest.mark.parametrize("text", [b"", b"short", b"a b" * 10, "ä".encode() * 20, b"\xf3" * 20])
def test_what_is_no_token_is_refused(tmp_path, text):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_bytes(text)
    os.chmod(path, 0o600)
    with pytest.raises(ValueError, match=f"{path} holds no token"):
        read_token(path)


def test_a_folder_is_no_token_and_its_permissions_are_not_the_matter(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(ValueError, match=f"^{tmp_path} is a folder"):
        read_token(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "token", 0o600)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'token'} is no regular file"):
        read_token(tmp_path / "token")


def test_lengths_are_digits():
    assert http_access.content_length("12") == 12
    assert http_access.content_length(None) is None
    for header in ("-1", "+1", "1_0", "\u0661", "9" * 30, "", "0x1"):
        with pytest.raises(BadRequest):
            http_access.content_length(header)


def test_a_host_is_read_without_its_port():
    assert [host_name(host) for host in ("a:1", "[::1]:1", "A", "a:x:y", "[")] == ["a", "::1", "a", "a", ""]
