"""A policy that answers while it is trained."""

import errno
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.scripts import serving_beside, train
from shoal.scripts.command_line import UsageError
from shoal.scripts.serving_beside import (
    ServedAt,
    ServedBeside,
    address_of,
    free_port,
    spaces_for,
    wait_until_it_listens,
)

DEADLINE_S = 60.0


def test_an_address_is_a_port_with_or_without_a_host():
    assert address_of(":8000") == ("127.0.0.1", 8000)
    assert address_of("8000") == ("127.0.0.1", 8000)
    assert address_of("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("flag", ["", "localhost", ":x", ":70000", "0.0.0.0:80"])
def test_what_is_no_address_is_told(flag):
    with pytest.raises(UsageError, match="--serve"):
        address_of(flag)


def test_a_port_that_others_have_is_told():
    with pytest.raises(UsageError, match="--serve x: "):
        free_port("192.0.2.1", 0, "--serve x")
    assert free_port("127.0.0.1", 0, "--serve") > 0


def test_a_host_that_nobody_knows_is_told_in_the_words_of_whoever_looked_it_up(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UsageError, match=r"^--serve no\.invalid:80: Name or service not known$"):
        free_port("no.invalid", 80, "--serve no.invalid:80")


def test_what_can_be_no_host_is_told():
    with pytest.raises(UsageError, match=r"^--serve a\.\.b:80: 'a\.\.b' is no name of a host$"):
        free_port("a..b", 80, "--serve a..b:80")


def test_a_port_that_others_have_is_told_before_anything_starts(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as others:
        address = f"127.0.0.1:{others.getsockname()[1]}"
        assert train.main(["--env", "CartPole-v1", "--run-dir", str(tmp_path / "run"), "--serve", address]) == 2
    assert capsys.readouterr().err == f"shoal train: --serve {address}: Address already in use; 0 takes a free one\n"
    assert not (tmp_path / "run").exists()


class Late:
    """A server that fails when it begins to listen."""

    def __init__(self, error):
        self.error = error

    def address(self):
        raise self.error


def test_a_port_that_others_have_taken_since_is_told_like_one_that_they_had():
    shoal.init(engine="inline")
    try:
        taken = OSError(errno.EADDRINUSE, "error while attempting to bind on address")
        with pytest.raises(UsageError, match=r"^--serve x: Address already in use; 0 takes a free one$"):
            wait_until_it_listens(shoal.remote(Late).remote(taken), "--serve x")
        with pytest.raises(KeyError):
            wait_until_it_listens(shoal.remote(Late).remote(KeyError("a mistake")), "--serve x")
    finally:
        shoal.shutdown()


def test_the_environment_tells_what_weights_do_not_if_it_is_there_and_the_one_that_was_learned():
    cartpole = policy_spec("", spaces.Box(-9, 9, (4,), np.float32), spaces.Discrete(2), NetworkSettings())
    observations, actions = spaces_for(cartpole, "CartPole-v1")
    assert observations.high[0] == pytest.approx(4.8)
    assert (actions.kind, actions.nvec) == ("discrete", (2,))
    for env_id in ("Pendulum-v1", "nobody's"):
        assert spaces_for(cartpole, env_id) is None


def test_another_engine_serves_nobody(capsys, tmp_path):
    arguments = ["--env", "CartPole-v1", "--engine", "inline", "--serve", ":0", "--run-dir", str(tmp_path / "run")]
    assert train.main(arguments) == 2
    assert "--serve: the engine inline serves nobody" in capsys.readouterr().err


def test_a_server_that_does_not_begin_leaves_no_token_behind(tmp_path, monkeypatch):
    class Interrupted(MagicMock):
        def get(self, *_, **__):
            assert (tmp_path / "run" / "serve_token").exists()
            raise KeyboardInterrupt

    monkeypatch.setattr(serving_beside, "shoal", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        ServedBeside(Mock(), None, ServedAt("127.0.0.1", 0), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_token_of_the_users_own_is_made_once_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_beside, "shoal", MagicMock())
    at, tokens = ServedAt("127.0.0.1", 0, tmp_path / "token"), set()
    for _ in range(2):
        beside = ServedBeside(Mock(), None, at, tmp_path / "run")
        assert beside.token_file == tmp_path / "token"
        tokens.add(beside.token_file.read_text())
        beside.close()
    assert tokens == {(tmp_path / "token").read_text()}
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [place.name for place in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--token-file TOKEN", "--token-file is for requests: without --serve there are none"),
        ("--serve :0 --token-file /nowhere/token", "--token-file /nowhere/token: No such file or directory"),
        ("--serve :0 --token-file TOKEN", "can be read by others: chmod 600"),
    ],
)
def test_a_token_file_that_cannot_be_is_told_before_anything_starts(capsys, tmp_path, flags, told):
    (tmp_path / "token").write_text("x" * 40)
    (tmp_path / "token").chmod(0o644)
    flags = flags.replace("TOKEN", str(tmp_path / "token"))
    assert train.main(["--env", "CartPole-v1", "--run-dir", str(tmp_path / "run"), *flags.split()]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_newer_weights_answer_after_each_iteration_and_the_server_ends_with_the_run(tmp_path):
    run_dir, output = tmp_path / "run", tmp_path / "output"
    flags = "--env CartPole-v1 --num-workers 1 --num-envs 4 --rollout-steps 32 --total-steps 10000000 --serve :0"
    with output.open("w") as file:
        training = subprocess.Popen(
            [sys.executable, "-m", "shoal.scripts", "train", *flags.split(), "--run-dir", str(run_dir)],
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        deadline, versions = time.monotonic() + DEADLINE_S, []
        while len(set(versions)) < 3:
            assert time.monotonic() < deadline, output.read_text()
            assert training.poll() is None, output.read_text()
            if "serving at" in output.read_text():
                port = int(output.read_text().partition("serving at http://127.0.0.1:")[2].partition(",")[0])
                versions.append(_version(port, (run_dir / "serve_token").read_text().strip()))
            time.sleep(0.05)
        assert versions == sorted(versions)
        training.send_signal(signal.SIGTERM)
        assert training.wait(DEADLINE_S) == 128 + signal.SIGTERM, output.read_text()
        assert not (run_dir / "serve_token").exists()
        with pytest.raises(OSError, match="refused"):
            _version(port, "x" * 20)
    finally:
        training.kill()
        training.wait()


def _version(port, token):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps({"observations": [[0.1, 0.2, 0.3, 0.4]]})
        connection.request("POST", "/v1/policies/policy/actions", body, headers)
        return json.loads(connection.getresponse().read())["version"]
    finally:
        connection.close()
