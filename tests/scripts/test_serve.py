"""`shoal serve`: what is refused before anything is started; and a server for real, followed, killed and stopped."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import PolicySpec
from shoal.rllib.policies.spaces import ActionSpec, InputColumn, ObservationSpec
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.scripts import serve

DEADLINE_S = 60.0
SPEC = PolicySpec(ObservationSpec((InputColumn("observation", "numbers", (4,)),)), ActionSpec((True,), (2,), (0,)))


def save(run_dir: Path, steps: int) -> Path:
    arrays = {"policy": initial_weights(SPEC, steps)}
    counters = {"iteration": steps, "steps": steps}
    told = Checkpoint("ppo", {"env": "CartPole-v1"}, counters, arrays, {"policy_spec": SPEC.to_dict()})
    return checkpoints.save(told, checkpoints.place_for(run_dir, steps))


@pytest.fixture
def run_dir(tmp_path):
    save(tmp_path / "run", 1)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "RUN_DIR is missing"),
        (["RUN", "RUN"], "has no name: of several policies each needs one, as in walker="),
        (["a=RUN", "a=RUN"], "two policies are called 'a'"),
        (["a/b=RUN"], "is no NAME=RUN_DIR"),
        (["nowhere"], "nowhere is no directory"),
        (["RUN", "--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["RUN", "--slo-ms", "0"], "--slo-ms must be greater than 0, not 0.0"),
        (["RUN", "--max-batch-rows", "-3"], "--max-batch-rows must be greater than 0, not -3"),
        (["RUN", "--host", "0.0.0.0"], "is reached by any name: say by which (--allow-host"),
        (["RUN", "--allow-origin", "example.org"], "--allow-origin 'example.org' is no origin, as https:"),
        (["RUN", "--allow-origin", "https://a.org/page"], "--allow-origin 'https://a.org/page' is no origin"),
        (["RUN", "--allow-host", "a.org:80"], "--allow-host 'a.org:80' is no name without port, as example.org is"),
        (["RUN", "--allow-host", "http://a.org"], "--allow-host 'http://a.org' is no name"),
        (["RUN", "--allow-host", "a b"], "--allow-host 'a b' is no name"),
        (["RUN", "--allow-host", "*.a.org"], "--allow-host '*.a.org' is no name"),
        (["RUN", "--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: "),
        (["RUN", "--token-file", "/nowhere/token"], "--token-file /nowhere/token: No such file or directory"),
        (["RUN/checkpoints/step_000000001", "--follow"], "is a checkpoint; give the run directory that it is in"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_is_started(arguments, complaint, run_dir, capsys):
    assert serve.main([each.replace("RUN", str(run_dir)) for each in arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert complaint in told


def test_of_two_that_begin_at_once_at_one_port_the_loser_says_so_in_one_line(run_dir, capfd, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as winner:
        port = winner.getsockname()[1]
        assert serve.main([str(run_dir), "--port", str(port)]) == 2
        monkeypatch.setattr(serve, "free_port", lambda host, port, flags: port)  # it was free when they looked
        assert serve.main([str(run_dir), "--port", str(port)]) == 2
    told = capfd.readouterr().err.splitlines()
    assert told == [f"shoal serve: --host 127.0.0.1 --port {port}: Address already in use; 0 takes a free one"] * 2


def test_a_token_that_others_can_read_is_refused(run_dir, tmp_path, capsys):
    (tmp_path / "token").write_text("x" * 40)
    (tmp_path / "token").chmod(0o644)
    assert serve.main([str(run_dir), "--token-file", str(tmp_path / "token")]) == 2
    assert "can be read by others" in capsys.readouterr().err


class Served:
    """A server in a process of its own, and somebody who asks it."""

    def __init__(self, output, *arguments):
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shoal.scripts", "serve", *map(str, arguments)], stdout=file, stderr=file
            )
        self.until(lambda: "token" in self.said)
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)", self.said)[1])

    @property
    def said(self) -> str:
        return self._output.read_text()

    def act(self, token, policy="policy"):
        """(status, answer)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            body = json.dumps({"observations": [[0.1, 0.2, 0.3, 0.4]]})
            connection.request("POST", f"/v1/policies/{policy}/actions", body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass  # it is being started again
            time.sleep(0.05)
        pytest.fail(f"it did not come; the server said {self.said!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_told_to_leave_has_done_its_work_whoever_tells_it(run_dir, tmp_path, number):
    served = Served(tmp_path / "output", run_dir, "--port", "0")
    try:
        served.process.send_signal(number)
        assert served.process.wait(DEADLINE_S) == 0
        assert served.said.endswith("shoal serve: leaving\n")
    finally:
        served.process.kill()
        served.process.wait()


def test_a_server_follows_its_run_comes_back_when_it_is_killed_and_leaves_in_peace(run_dir, tmp_path):
    token_file = tmp_path / "token"
    served = Served(tmp_path / "output", run_dir, "--follow", "--port", "0", "--token-file", token_file)
    try:
        token = token_file.read_text().strip()
        assert token not in served.said
        assert served.act(token)[1]["version"] == 1
        assert served.act("guessed")[0] == 401
        save(run_dir, 5)
        served.until(lambda: served.act(token)[1].get("version") == 5)
        [actor] = [
            child for child in psutil.Process(served.process.pid).children(recursive=True)
            if any(each.laddr.port == served.port for each in child.net_connections("tcp"))
        ]  # fmt: skip
        os.kill(actor.pid, signal.SIGKILL)
        served.until(lambda: served.act(token)[1].get("version") == 5 and not actor.is_running())
        served.process.terminate()
        assert served.process.wait(DEADLINE_S) == 0
        assert "leaving" in served.said
    finally:
        served.process.kill()
        served.process.wait()
