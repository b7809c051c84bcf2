"""Learners of a parameter server in actors of their own, where there are processes: they wait for each other, and
shards that are killed lose nothing.
"""

import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.core import api
from shoal.rllib.parameter_server import ParameterServer
from shoal.rllib.parameter_shard import Push, Shard, ShardSettings

SIZE = 1000


@pytest.fixture(scope="module", params=["native", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    shoal.init(
        "local", num_cpus=8, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


@pytest.fixture
def start(engine, tmp_path):
    servers = []

    def begin(learners=2, *, num_shards=3, snapshot_every=5, **settings):
        servers.append(
            ParameterServer(
                weights_of(0),
                ShardSettings(learners, **settings),
                num_shards=num_shards,
                directory=tmp_path / "logs",
                snapshot_every=snapshot_every,
            )
        )
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def weights_of(seed):
    return np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)


def gradient_of(learner, step):
    return np.random.default_rng((7, learner, step)).standard_normal(SIZE).astype(np.float32)


def one_shard_after(steps, learners=2, **settings):
    """What a single table says."""
    shard = Shard(weights_of(0), ShardSettings(learners, **settings))
    for step in range(steps):
        for learner in range(learners):
            shard.take(Push(learner, step, 8, 0.01, gradient_of(learner, step)))
    return shard


def push(client, learner, step):
    return client.push(learner, step, gradient_of(learner, step), rows=8, learning_rate=0.01)


class Pusher:
    """A learner in an actor."""

    def __init__(self, client, learner):
        self._client, self._learner = client, learner

    def run(self, steps, pause_s=0.0):
        leads = []
        for step in range(steps):
            self._client.pull(step)
            leads.append(min(self._client.versions))
            push(self._client, self._learner, step)
            time.sleep(pause_s)  # so that there are strikes in between
        return leads


@pytest.mark.parametrize("mode", ["bulk", "bounded"])
def test_learners_in_actors_wait_for_each_other(start, mode):
    server = start(mode=mode)
    pushers = [api.remote(Pusher).options(num_cpus=0).remote(server.client(), learner) for learner in range(2)]
    leads = api.get([pusher.run.remote(12) for pusher in pushers], timeout=60)
    client = server.client()
    client.pull(step=12)
    if mode == "bulk":
        assert leads == [list(range(12))] * 2
        np.testing.assert_array_equal(client.weights, one_shard_after(12).weights)
    else:
        assert all(lead[step] >= 2 * step for lead in leads for step in range(12))
        assert client.versions == [24] * 3
    for pusher in pushers:
        api.kill(pusher)


def test_shards_that_are_killed_again_and_again_lose_no_acknowledged_push_and_take_none_twice(start):
    server, steps = start(), 30
    over, killed = threading.Event(), []

    def strike():
        while len(killed) < 4 and not over.wait(0.01):
            status = server.statuses()[len(killed) % 3]
            if status.version >= 4 + 6 * len(killed):  # snapshots are at 3, 6, 9, ...
                os.kill(status.pid, signal.SIGKILL)
                killed.append(status.pid)

    striker = threading.Thread(target=strike)
    pushers = [api.remote(Pusher).options(num_cpus=0).remote(server.client(), learner) for learner in range(2)]
    striker.start()
    try:
        api.get([pusher.run.remote(steps, pause_s=0.02) for pusher in pushers], timeout=120)
    finally:
        over.set()
        striker.join(60)
    client = server.client()
    client.pull(step=steps)
    np.testing.assert_array_equal(client.weights, one_shard_after(steps).weights)
    assert [status.clocks for status in server.statuses()] == [(steps, steps)] * 3
    assert sum(status.lives - 1 for status in server.statuses()) == len(killed) == 4
    for pusher in pushers:
        api.kill(pusher)
