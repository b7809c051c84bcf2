"""Parameter servers in actors, on every engine; and learners in actors of their own, where there are processes: they
wait for each other, and shards that are killed lose nothing.
"""

import asyncio
import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.core import api
from shoal.core.cluster import remove_stale
from shoal.rllib.config import ConfigError
from shoal.rllib.learner_groups.parameter_server import ParameterServer, ShardActor
from shoal.rllib.learner_groups.parameter_shard import Push, Shard, ShardSettings

SIZE = 1000


@pytest.fixture(scope="module", params=["native", "inline", pytest.param("ray", marks=pytest.mark.ray)])
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


def test_shards_together_do_what_one_would_and_versions_and_weights_are_pulled_when_newer(start):
    server = start()
    client, other = server.client(), server.client()
    assert client.versions == [-1, -1, -1]
    assert client.pull()
    assert not client.pull()
    np.testing.assert_array_equal(client.weights, weights_of(0))
    for step in range(7):
        acks = [push(client, learner, step) for learner in (1, 0)]
        assert [[ack.version for ack in of_learner] for of_learner in acks] == [[step] * 3, [step + 1] * 3]
    assert other.pull(step=7)
    assert client.pull(step=7)
    assert client.versions == [7, 7, 7]
    for each in (client, other):
        np.testing.assert_array_equal(each.weights, one_shard_after(7).weights)


def test_pushes_that_are_sent_twice_count_once_and_such_that_cannot_be_are_refused(start):
    client = start().client()
    for _ in range(3):
        push(client, 0, 0)
    with pytest.raises(ValueError, match="learner 1 pushed step 1; its next is step 0"):
        push(client, 1, 1)
    with pytest.raises(ValueError, match=r"a gradient must be of shape \(1000,\)"):
        client.push(1, 0, np.zeros(3, np.float32), rows=8, learning_rate=0.01)
    push(client, 1, 0)
    client.pull(step=1)
    np.testing.assert_array_equal(client.weights, one_shard_after(1).weights)


def test_a_state_goes_to_a_server_of_another_number_of_shards_bit_for_bit(start, tmp_path):
    server = start()
    client = server.client()
    for step in range(3):
        for learner in range(2):
            push(client, learner, step)
    state = server.arrays()
    heir = ParameterServer(weights_of(1), ShardSettings(2), num_shards=2, directory=tmp_path / "heir")
    try:
        heir.load(state)
        its = heir.client()
        for each in (client, its):
            for learner in range(2):
                push(each, learner, 3)
            each.pull(step=4)
        np.testing.assert_array_equal(client.weights, its.weights)
        assert {name: array.tolist() for name, array in server.arrays().items()} == {
            name: array.tolist() for name, array in heir.arrays().items()
        }
    finally:
        heir.close()


def test_after_a_state_was_loaded_its_weights_are_pulled_though_the_version_is_the_same(start):
    server = start()
    server.client().pull()
    server.load({**server.arrays(), "weights": weights_of(5)})
    client = server.client()
    client.pull()
    np.testing.assert_array_equal(client.weights, weights_of(5))


def test_a_pull_that_waits_too_long_says_for_whom(start):
    client = start(mode="bounded", staleness=1).client()
    for step in range(2):
        push(client, 0, step)
    with pytest.raises(TimeoutError, match=r"waited 0.05 s in vain: learner 1 has pushed 0 steps"):
        client.pull(step=2, wait_s=0.05)


def test_the_logs_of_a_server_without_a_directory_go_with_it(engine):
    server = ParameterServer(weights_of(0), ShardSettings(1))
    push(server.client(), 0, 0)
    assert list(server._directory.glob("shard.0/entries.*"))
    server.close()
    server.close()
    assert not server._directory.exists()


@pytest.mark.usefixtures("engine")
def test_a_session_that_starts_removes_the_logs_of_those_who_are_dead_and_no_others(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = ParameterServer(np.zeros(3, np.float32), ShardSettings(1))
    (logs,) = tmp_path.iterdir()
    os.utime(logs, (0.0, 0.0))
    remove_stale(str(tmp_path))
    assert logs.exists()
    (logs / "owners").write_text("999999999")
    remove_stale(str(tmp_path))
    assert not logs.exists()
    server.close()


def test_there_are_no_more_shards_than_weights(engine):
    with pytest.raises(ConfigError, match="num_shards must be from 1 to 2, the number of weights, not 3"):
        ParameterServer(np.zeros(2, np.float32), ShardSettings(1), num_shards=3)


def test_a_push_that_could_not_be_written_is_not_in_and_counts_when_it_is_sent_again(tmp_path):
    settings, push = ShardSettings(1, "asynchronous"), Push(0, 0, 1, 0.1, np.ones(3, np.float32))

    def life():
        return ShardActor(np.zeros(3, np.float32), settings, tmp_path, 64, driver_pid=os.getpid())

    async def pushed_twice(shard):
        append = shard._log.append

        def fails(entry):
            shard._log.append = append
            raise OSError("no space left")

        shard._log.append = fails
        with pytest.raises(OSError, match="no space left"):
            await shard.push(push)
        assert (await shard.status()).clocks == (0,)
        return (await shard.push(push)).version

    assert asyncio.run(pushed_twice(life())) == 1
    assert asyncio.run(life().status()).clocks == (1,)  # what was acknowledged comes back


@pytest.mark.usefixtures("engine")
def test_who_has_the_newest_weights_is_sent_none(tmp_path):
    async def asked(shard):
        return [await shard.pull(newer_than, 0, 1.0) for newer_than in (-1, 0)]

    shard = ShardActor(np.zeros(3, np.float32), ShardSettings(1), tmp_path, 64, driver_pid=os.getpid())
    first, second = asyncio.run(asked(shard))
    np.testing.assert_array_equal(api.get(first.weights), np.zeros(3))
    assert (second.version, second.weights) == (0, None)


#: Where learners are processes, which can wait for each other.
PROCESSES = ["native", pytest.param("ray", marks=pytest.mark.ray)]
WITH_PROCESSES = pytest.mark.parametrize("engine", PROCESSES, indirect=True)


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


@WITH_PROCESSES
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


@WITH_PROCESSES
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
