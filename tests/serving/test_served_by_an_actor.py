"""A server of policies as an actor: from a driver, from a task, and after it was killed."""

import os
import signal
import time

import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.scripts.serving_beside import free_port
from shoal.serving.client import PolicyClient
from shoal.serving.episode_desk import EpisodeSettings
from shoal.serving.errors import BadObservation, EpisodeNotFound, PolicyNotFound
from shoal.serving.http_server import HttpSettings
from shoal.serving.models import FunctionModel
from shoal.serving.policy_server import PolicyServer
from shoal.serving.spaces import space_form


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=2)
    yield
    shoal.shutdown()


def weights(version):
    spaces_ = spaces.Box(-10, 10, (4,), np.float32), spaces.Discrete(3)
    spec = policy_spec("a test's", *spaces_, NetworkSettings(hidden_sizes=(8,)))
    return Weights(version, spec, initial_weights(spec, version))


def rows(count):
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


class Server(PolicyServer):
    def pid(self):
        return os.getpid()


def started(*policies, **options):
    return (
        shoal.remote(Server)
        .options(num_cpus=0, **options)
        .remote(dict(zip(("walker", "runner"), policies, strict=False)))
    )


def test_drivers_and_tasks_ask_and_errors_come_back_as_they_are():
    server = started(weights(3))
    reply = shoal.get(server.compute_actions.remote(rows(5)), timeout=30)
    assert reply.actions.tolist() == Policy(weights(3)).act(rows(5), deterministic=True)[0][:, 0].tolist()

    @shoal.remote
    def ask(handle):
        return shoal.get(handle.compute_actions.remote(rows(5), policy="walker:3")).version

    assert shoal.get(ask.remote(server), timeout=30) == 3
    with pytest.raises(BadObservation) as caught:
        shoal.get(server.compute_actions.remote(rows(5)[:, :2]), timeout=30)
    assert caught.value.field == "observations.observation"
    with pytest.raises(PolicyNotFound, match="version 9 of 'walker' is unknown"):
        shoal.get(server.compute_actions.remote(rows(5), policy="walker:9"), timeout=30)
    assert shoal.get(server.swap.remote("walker", shoal.put(weights(8))), timeout=30) == 8
    assert [info.versions[0].number for info in shoal.get(server.infos.remote(), timeout=30)] == [8]
    shoal.kill(server)


def test_large_observations_are_not_copied_on_their_way_to_the_model():
    def act(columns):
        array = columns["observation"]
        while isinstance(array, np.ndarray):  # down to what the memory belongs to
            owns, array = array.flags.owndata, array.base
        return np.full((64, 1), int(owns))

    image = spaces.Box(0, 255, (100, 1000), np.uint8)
    model = FunctionModel(act, space_form(image), space_form(spaces.Discrete(2)))
    server = started(model)
    reply = shoal.get(server.compute_actions.remote(np.ones((64, 100, 1000), np.uint8)), timeout=30)
    assert reply.actions.tolist() == [0] * 64, "the memory is an array's own, not the store's"
    shoal.kill(server)


def test_a_server_that_is_killed_is_there_again_with_what_it_began_with():
    server = started(weights(3), max_restarts=-1, max_task_retries=-1)
    pid = shoal.get(server.pid.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    assert shoal.get(server.compute_actions.remote(rows(1)), timeout=30).version == 3
    assert time.monotonic() - began_s < 20
    assert shoal.get(server.pid.remote(), timeout=30) != pid
    shoal.kill(server)


def test_a_server_that_is_killed_under_a_simulator_listens_again_and_the_learner_gets_its_steps(tmp_path):
    port = free_port("127.0.0.1", 0, "a test")
    server = (
        shoal.remote(Server)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        .remote(
            {"walker": weights(3)},
            http=HttpSettings(token="a-token-for-a-test", port=port),
            journal=tmp_path / "journal",
            episodes=EpisodeSettings(policy="walker", batch_steps=8),
        )
    )
    assert shoal.get(server.renew.remote("walker", shoal.put(weights(4))), timeout=30) == 4
    assert shoal.get(server.renew.remote("walker", shoal.put(weights(4))), timeout=30) == 4  # nothing new
    with PolicyClient(f"http://127.0.0.1:{port}", token="a-token-for-a-test", timeout_s=60.0) as client:
        lost = client.start_episode()
        for row in rows(3):
            lost.act(row)
        wanted = server.take_steps.remote(5, 4, 60.0)
        os.kill(shoal.get(server.pid.remote(), timeout=30), signal.SIGKILL)
        with pytest.raises(EpisodeNotFound):
            lost.act(rows(1)[0])
        episode = client.start_episode()
        for row in rows(6):
            episode.act(row, reward=0.0)
        taken = shoal.get(wanted, timeout=60)
    assert [len(segment) for segment in taken.segments] == [5]
    assert taken.counts["steps"] == 5
    shoal.kill(server)
