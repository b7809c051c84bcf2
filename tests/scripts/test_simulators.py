"""`--env external`: what is refused before anything starts, and PPO that learns from simulators in other processes."""

import json
import signal
import subprocess
import sys
import time

import pytest

import shoal
from shoal.rllib.rollouts.external import Taken
from shoal.scripts import evaluate, train
from shoal.scripts.simulators import Simulators

DEADLINE_S = 240.0
FLAGS = ["--algo", "ppo", "--env", "external", "--external-spaces", "CartPole-v1", "--serve", "127.0.0.1:0"]

#: Plays CartPole until the server has gone. A letter goes into a file for each step; "twice" sends all of it twice.
SIMULATOR = """
import os, signal, sys
from pathlib import Path
import gymnasium
from shoal.serving.client import PolicyClient
from shoal.serving.errors import EpisodeOver, ServingError

url, token, steps, how = sys.argv[1], Path(sys.argv[2]), os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY), sys.argv[4]


class Stutterer(PolicyClient):
    def _send(self, sending, patience):
        super()._send(sending, patience)
        return super()._send(sending, patience)


simulator = gymnasium.make("CartPole-v1")
simulator.reset(seed=len(how))
with (Stutterer if how == "twice" else PolicyClient)(url, token=token) as client:
    while True:
        observation, _ = simulator.reset()
        length, is_over = 0, False
        try:
            episode = client.start_episode(timeout_s=20.0)
            while not is_over:
                action = episode.act(observation)
                observation, reward, terminated, truncated, _ = simulator.step(action)
                os.write(steps, b".")
                length += 1
                episode.log_returns(reward)
                if length == 3 and os.path.exists(sys.argv[3] + ".die"):
                    os.kill(os.getpid(), signal.SIGKILL)
                is_over = terminated or truncated
            ended = episode.end(observation, terminated=terminated, truncated=truncated)
        except EpisodeOver:
            continue
        except ServingError:
            break
        assert (ended.steps, ended.episode_return) == (length, length), ended
"""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--algo ppo --env external --external-spaces CartPole-v1", "--env external needs --serve"),
        ("--algo ppo --env external --serve :0", "external_spaces must be an environment with the simulators' spaces"),
        ("--algo ppo --env external --external-spaces Nothing-v9 --serve :0", "external_spaces: "),
        ("--algo ppo --env external --external-spaces none.json --serve :0", "none.json cannot be read"),
        ("--algo appo --env external --serve :0", "appo does not learn from external simulators; ppo does"),
        ("--algo es --env external --serve :0", "es does not learn from external simulators; ppo does"),
        ("--algo a3c --env external --external-spaces CartPole-v1", "--env external: a3c does not learn from external"),
        (
            "--algo es --external-silence-s 3",
            "--external-silence-s: es does not learn from external simulators; ppo does",
        ),
        ("--algo ppo --external-spaces CartPole-v1", "external_spaces must be left at None where env is not external"),
        (" ".join([*FLAGS, "--num-workers 3"]), "num_workers must be left at 2 where env is external, not 3"),
        (" ".join([*FLAGS, "--normalize-rewards"]), "normalize_rewards must be left at False where env is external"),
        (" ".join([*FLAGS, "--eval-interval-steps 9"]), "eval_interval_steps must be left at 0 where env is external"),
        (" ".join([*FLAGS, "--external-silence-s 0"]), "external_silence_s must be greater than 0"),
        (" ".join([*FLAGS, "--record"]), "--record: external simulators play"),
        (" ".join([*FLAGS, "--engine inline"]), "--serve: the engine inline serves nobody"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line(flags, message, capsys, tmp_path):
    assert train.main([*flags.split(), "--run-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_spaces_for_which_no_policy_fits_into_memory_are_refused_in_one_line(capsys, tmp_path):
    few, many = ({"kind": "discrete", "nvec": [count]} for count in (5, 10**12))
    told = {"observation_space": few, "action_space": many}
    (tmp_path / "spaces.json").write_text(json.dumps(told))
    flags = ["--env", "external", "--external-spaces", str(tmp_path / "spaces.json"), "--serve", ":0"]
    assert train.main([*flags, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("shoal train: external_spaces: a policy for these spaces has 65,0")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Forgetful:
    """A server that was killed after it had answered that it has the newest weights, and acts with older ones."""

    def __init__(self):
        self.renewed = []

    def renew(self, policy, weights):
        self.renewed.append((policy, weights))

    def take_steps(self, num_steps, version, wait_s):
        is_up_to_date = self.renewed == [("policy", "newest")] * 2
        return Taken((), (), {}, 0, 0) if is_up_to_date else None


def test_a_server_that_has_come_back_with_older_weights_is_given_the_newest_again():
    shoal.init(engine="inline")
    try:
        server = shoal.remote(Forgetful).remote()
        looks = iter([False, False, True])  # it is given up at the third
        simulators = Simulators(server, "policy", 3, "http://nowhere", lambda: next(looks))
        simulators.publish(shoal.put("newest"), 4)
        assert simulators.take(16, 4) == Taken((), (), {}, 0, 0)
    finally:
        shoal.shutdown()


class Training:
    """`shoal train` with simulators, in processes of their own."""

    def __init__(self, folder, *flags):
        self.folder, self.run_dir, self.output = folder, folder / "run", folder / "output"
        self.processes = []
        with self.output.open("w") as file:
            command = [sys.executable, "-m", "shoal.scripts", "train", *flags]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        self.processes.append(self.process)
        self.until(lambda: "run directory:" in self.told)
        self.url = self.told.partition("serving at ")[2].partition(",")[0]

    @property
    def told(self):
        return self.output.read_text()

    def simulator(self, how):
        script = self.folder / "simulator.py"
        script.write_text(SIMULATOR)
        arguments = [self.url, str(self.run_dir / "serve_token"), str(self.steps_of(how)), how]
        self.processes.append(subprocess.Popen([sys.executable, str(script), *arguments]))
        return self.processes[-1]

    def steps_of(self, how):
        return self.folder / f"steps-{how}"

    def rows(self):
        metrics = self.run_dir / "metrics.jsonl"
        whole = metrics.read_text().rpartition("\n")[0] if metrics.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.told
            assert self.process.poll() is None, self.told
            time.sleep(0.02)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def training(tmp_path):
    made = []

    def begin(*flags):
        made.append(Training(tmp_path, *flags))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_ppo_improves_though_one_simulator_is_killed_and_one_says_all_twice_and_goes_on(training, tmp_path, capsys):
    sizes = ["--rollout-steps", "64", "--total-steps", "1000000", "--external-silence-s", "1.5"]
    run = training(*FLAGS, *sizes, "--minibatch-size", "128", "--run-dir", str(tmp_path / "run"))
    killed, twice = run.simulator("killed"), run.simulator("twice")
    run.until(lambda: len(run.rows()) >= 2)
    # In the middle of an episode, or there would be none to cut; and by itself, for it may not have begun to play.
    run.steps_of("killed").with_suffix(".die").touch()
    assert killed.wait(DEADLINE_S) == -signal.SIGKILL
    first = run.rows()[0]

    def has_improved():
        last = run.rows()[-1]
        return last["return_mean"] > 1.4 * first["return_mean"] and last["external/cut_episodes"]

    run.until(has_improved)
    twice.kill()
    twice.wait()
    run.process.send_signal(signal.SIGTERM)  # it waits for steps that nobody plays any more
    assert run.process.wait(DEADLINE_S) == 128 + signal.SIGTERM, run.told
    assert f"is saved: shoal train --resume {run.run_dir} --serve 127.0.0.1:0\n" in run.told
    last = run.rows()[-1]
    assert last["return_mean"] == last["episode_length_mean"]  # so it is where no step counts twice
    played = sum(run.steps_of(how).stat().st_size for how in ("killed", "twice"))
    assert last["steps"] == 512 * last["iteration"]
    assert last["steps"] + last["external/dropped_steps"] + last["external/waiting_steps"] == last["external/steps"]
    assert last["external/steps"] <= played
    assert last["external/duplicates"] > last["steps"] / 2
    assert last["external/lag_max"] <= 2
    assert evaluate.main([str(run.run_dir)]) == 2
    assert "external simulators played" in capsys.readouterr().err
    is_refused_in_one_line(run.run_dir, capsys)
    goes_on(training, run, last)


def is_refused_in_one_line(run_dir, capsys):
    """What the run cannot go on with."""
    serve = ["--serve", "127.0.0.1:0"]
    for flags, told in (
        (
            [*serve, "--external-spaces", "Pendulum-v1"],
            "external_spaces: 'Pendulum-v1' has observations observation (3,)",
        ),
        ([], f"the run in {run_dir}, of external simulators, needs --serve [HOST]:PORT, where the simulators act"),
        (
            [*serve, "--env", "CartPole-v1"],
            f"the run in {run_dir} learns from external simulators, not CartPole-v1: drop",
        ),
        (["--total-steps", "512"], "steps: to go on, give a larger --total-steps"),
    ):
        assert train.main(["--resume", str(run_dir), "--total-steps", "2000000", *flags]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


def goes_on(training, run, before):
    """The run that was ended is resumed, with another simulator."""
    more = ["--total-steps", str(before["steps"] + 3 * 512)]
    again = training("--resume", str(run.run_dir), "--serve", "127.0.0.1:0", *more)
    again.simulator("again")
    assert again.process.wait(DEADLINE_S) == 0, again.told
    assert "episodes that simulators were in are lost" in again.told
    assert "no evaluation: external simulators play" in again.told
    after = run.rows()[-3:]
    assert [row["steps"] - before["steps"] for row in after] == [512, 1024, 1536]
    assert [row["iteration"] - before["iteration"] for row in after] == [1, 2, 3]
    assert after[0]["external/lag_max"] == 0
