"""Episodes over HTTP: a server of policies, simulators that speak to it, and somebody who takes what they did."""

import asyncio
import contextlib
import http.client
import json
import re
import threading
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings, strategies as st

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.external import packed
from shoal.rllib.rollouts.rollout import reevaluated
from shoal.serving import episode_wire, openapi, wire
from shoal.serving.async_client import AsyncPolicyClient
from shoal.serving.client import PolicyClient
from shoal.serving.episode_desk import EpisodeSettings
from shoal.serving.episode_requests import EpisodeStep, StartEpisode
from shoal.serving.errors import (
    BadObservation,
    BadRequest,
    EpisodeNotFound,
    EpisodeOver,
    OutOfStep,
    Overloaded,
    PolicyNotFound,
)
from shoal.serving.http_server import HttpSettings
from shoal.serving.policy_server import PolicyServer
from shoal.serving.spaces import ONLY

DEADLINE_S = 30.0
TOKEN = "a-token-for-simulators"
OBSERVATION, CHOICE = spaces.Box(-10, 10, (4,), np.float32), spaces.Discrete(3, start=5)


def weights(version=0, *, actions=CHOICE, observations=OBSERVATION, **network):
    spec = policy_spec("a test's", observations, actions, NetworkSettings(hidden_sizes=(8,), **network))
    return Weights(version, spec, initial_weights(spec, 3))


class Server:
    """A server on a loop of its own thread."""

    def __init__(self, loop, server, port):
        self.loop, self.server, self.port = loop, server, port
        self.url = f"http://127.0.0.1:{port}"

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    def take(self, num_steps, version=0):
        return self.run(self.server.take_steps(num_steps, version, 5.0))

    def post(self, path, body, token=TOKEN):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


@contextlib.contextmanager
def taking_episodes(made, **episodes):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start():
        learner = EpisodeSettings(**({"policy": "policy", "batch_steps": 16} | episodes))
        server = PolicyServer(
            {"policy": made}, http=HttpSettings(token=TOKEN, port=0), episodes=learner, is_alone=False
        )
        return server, await server.address()

    try:
        server = Server(loop, *asyncio.run_coroutine_threadsafe(start(), loop).result(DEADLINE_S))
        try:
            yield server
        finally:
            server.run(server.server.drain(1.0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


@pytest.fixture
def served():
    with taking_episodes(weights()) as server:
        yield server


@pytest.fixture
def client(served):
    with PolicyClient(served.url, token=TOKEN) as client:
        yield client


def observation(step):
    return np.full(4, step / 10, np.float32)


def play(client, steps, **end):
    episode = client.start_episode()
    actions = []
    for step in range(steps):
        actions.append(episode.act(observation(step)))
        episode.log_returns(0.25)
        episode.log_returns(0.25)
    return actions, episode.end(observation(steps), **(end or {"terminated": True}))


def test_an_episode_comes_to_the_learner_with_what_ppo_needs_of_it(served, client):
    actions, ended = play(client, 6, truncated=True)
    assert (ended.steps, ended.episode_return) == (6, 3.0)
    assert set(actions) <= {5, 6, 7}
    taken = served.take(6)
    batch = packed(taken.segments, weights().spec, taken.finished)
    assert batch.actions[:, 0, 0].tolist() == [action - 5 for action in actions]
    assert batch.rewards.tolist() == [[0.5]] * 6
    again = reevaluated(batch, Policy(weights()))
    for name in ("log_probs", "values", "next_values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(batch, name))
    assert [finished.episode[1:] for finished in batch.episodes] == [(3.0, 6)]


def test_what_episodes_may_hold_is_bounded_by_what_their_simulators_see():
    # A step is 4 numbers of float32 and 3 choices, and an episode may hold two of them.
    with (
        taking_episodes(weights(), max_open_bytes=2 * 2 * (4 * 4 + 3)) as served,
        PolicyClient(served.url, token=TOKEN) as client,
    ):
        for _ in range(2):
            client.start_episode()
        with pytest.raises(Overloaded, match=r"episode '.+' cannot begin: 2 are under way, and may hold 0 MB"):
            client.start_episode(timeout_s=0.2)


def test_a_recurrent_policy_remembers_within_an_episode_and_across_batches():
    made = weights(recurrent="lstm", recurrent_size=4, sequence_length=2)
    with taking_episodes(made) as served, PolicyClient(served.url, token=TOKEN) as client:
        play(client, 7, truncated=True)
        first, second = served.take(3), served.take(4)
        for taken in (first, second):
            batch = packed(taken.segments, made.spec)
            again = reevaluated(batch, Policy(made))
            for name in ("log_probs", "values", "states"):
                np.testing.assert_array_equal(getattr(again, name), getattr(batch, name))
        assert first.segments[0].last_value == second.segments[0].values[0]
        assert not packed(second.segments, made.spec).starts[0, 0]


def test_numbers_that_are_clipped_for_the_simulator_are_learned_from_as_they_were_drawn():
    box = spaces.Box(-0.01, 0.01, (2,), np.float32)
    with taking_episodes(weights(actions=box)) as served, PolicyClient(served.url, token=TOKEN) as client:
        actions, _ = play(client, 4)
        drawn = served.take(4).segments[0].actions
    assert np.abs(actions).max() <= np.float32(0.01)
    assert np.abs(drawn).max() > 0.01
    np.testing.assert_array_equal(np.clip(drawn, -0.01, 0.01).astype(np.float32), np.array(actions))


def test_nested_observations_and_masks_and_what_the_reward_comes_with():
    nested = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)})
    with taking_episodes(weights(observations=nested)) as served, PolicyClient(served.url, token=TOKEN) as client:
        episode = client.start_episode(name="mine")
        seen = {"a": np.zeros(2, np.float32), "b": 2}
        assert episode.act(seen, [False, True, False]) == 6
        assert episode.act(seen, reward=2.0) in (5, 6, 7)
        assert (episode.name, episode.num_steps, episode.version) == ("mine", 2, 0)
        episode.end(terminated=True, reward=1.0)
        (segment,) = served.take(2).segments
        assert segment.masks.tolist() == [[False, True, False], [True] * 3]
        assert segment.rewards.tolist() == [2.0, 1.0]
        assert segment.observations["b"].tolist() == [2, 2]


def test_whatever_comes_twice_is_answered_the_same_and_counts_once(served):
    start, step = {"episode": "e"}, {"step": 0, "observation": [0.1, 0.2, 0.3, 0.4]}
    end = {"step": 1, "reward": 1.0, "terminated": True}
    for path, body in (("", start), ("/e/steps", step), ("/e/end", end)):
        first, second = served.post(f"/v1/episodes{path}", body), served.post(f"/v1/episodes{path}", body)
        assert first == second
        assert first[0] == 200
    taken = served.take(1)
    assert taken.counts["duplicates"] == 3
    assert taken.finished == ((1.0, 1),)
    assert taken.waiting_steps == 0


def test_twins_that_come_at_once_get_the_same_answer_and_one_whose_sender_left_is_kept(served):
    async def twins():
        async with AsyncPolicyClient(served.url, token=TOKEN) as client:
            (episode, twin) = [await client.start_episode(name="twins") for _ in range(2)]
            for step in range(5):
                first, second = await asyncio.gather(episode.act(observation(step)), twin.act(observation(step)))
                assert first == second
                episode.log_returns(1.0)
                twin.log_returns(1.0)
            ends = await asyncio.gather(*(each.end(observation(5), truncated=True) for each in (episode, twin)))
            assert ends[0] == ends[1]
            assert (episode.name, episode.num_steps, episode.version) == ("twins", 5, 0)
            with pytest.raises(NotImplementedError):
                episode.log_action(observation(0), 1)

    asyncio.run(asyncio.wait_for(twins(), DEADLINE_S))
    taken = served.take(5)
    assert sum(map(len, taken.segments)) == 5
    assert taken.counts["duplicates"] == 7
    assert taken.finished == ((5.0, 5),)


def test_what_is_kept_of_a_step_is_no_part_of_anything_larger():
    """A view would keep all of it: a body of a request of megabytes, the states of a batch."""

    async def play_one(desk):
        await desk.start(StartEpisode(episode="e"))
        body = np.zeros(1 << 16, np.float32)
        await desk.step("e", EpisodeStep(step=0, observation={ONLY: body[:4]}))
        live = desk._table._open["e"]
        return [live.told.observation[ONLY], live.last.observation[ONLY], live.last.drawn, live.state]

    for network in ({}, {"recurrent": "gru", "recurrent_size": 3}):
        with taking_episodes(weights(**network)) as served:
            kept = served.run(play_one(served.server.episodes))
            assert [array.base is None for array in kept] == [True] * 4


def test_a_fault_in_a_step_is_logged_though_whoever_asked_has_left(served, caplog):
    async def leave():
        desk, gate = served.server.episodes, asyncio.Event()

        async def fails(request):
            await gate.wait()
            raise RuntimeError("a fault of ours")

        desk._act = fails
        await desk.start(StartEpisode(episode="e"))
        step = EpisodeStep(step=0, observation={ONLY: observation(0)})
        asking = asyncio.ensure_future(desk.step("e", step))
        await asyncio.sleep(0)
        (under_way,) = desk._under_way.values()
        asking.cancel()
        gate.set()
        await asyncio.wait([asking, under_way])

    served.run(leave())
    assert "a fault of ours" in caplog.text


def test_steps_wait_for_a_learner_that_has_all_it_can_use_and_go_on_with_newer_weights():
    bounds = {"batch_steps": 4, "max_lag": 0}
    with taking_episodes(weights(), **bounds) as served, PolicyClient(served.url, token=TOKEN) as client:
        playing = threading.Thread(target=play, args=(client, 10))
        playing.start()
        try:
            first = served.take(4)
            deadline = time.monotonic() + DEADLINE_S
            while served.server.episodes._table.may_act():
                assert time.monotonic() < deadline
            served.run(served.server.swap("policy", weights(1)))
            second = served.take(4, 1)
        finally:
            playing.join(DEADLINE_S)
        assert {*first.segments[0].versions} == {0}
        assert {*second.segments[0].versions} == {1}
        assert second.counts["dropped_steps"] == 1  # the step that was under way when the weights changed


def test_an_episode_of_which_nothing_is_heard_is_cut_and_says_so():
    with taking_episodes(weights(), silence_s=600.0) as served, PolicyClient(served.url, token=TOKEN) as client:
        episode = client.start_episode()
        for step in range(3):
            episode.act(observation(step))
        served.server.episodes._table.expire(time.monotonic() + 700.0)
        assert served.take(2).counts["cut_episodes"] == 1
        with pytest.raises(EpisodeOver, match="was cut: 600 s"):
            episode.act(observation(3))


def test_what_a_client_does_wrong_is_raised_by_name(served, client):
    with pytest.raises(PolicyNotFound, match="'nobody' does not learn from episodes"):
        client.start_episode(policy="nobody")
    with pytest.raises(BadRequest, match="no space"):
        client.start_episode(name="a b")
    episode = client.start_episode()
    with pytest.raises(NotImplementedError, match="cannot be logged"):
        episode.log_action(observation(0), 1)
    with pytest.raises(BadObservation, match="shape"):
        episode.act(np.zeros(3, np.float32))
    action = episode.act(observation(0))
    episode.log_returns(float("nan"))
    with pytest.raises(BadObservation) as refused:
        episode.act(observation(1))
    assert refused.value.field == "reward"
    assert client.start_episode(name=episode.name).act(observation(0)) == action
    with pytest.raises(OutOfStep) as other:
        client.start_episode(name=episode.name).act(observation(7))
    assert other.value.field == "observation"


STEP = {"step": 0, "observation": [0.0] * 4}
END = {"step": 0, "terminated": True}


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("", {}, 400, "episode"),
        ("", [], 400, None),
        ("", {"episode": "a/b"}, 400, "episode"),
        ("", {"episode": 3}, 400, "episode"),
        ("", {"episode": "x", "policy": "y"}, 404, "policy"),
        ("", {"episode": "x", "more": 1}, 400, "more"),
        ("/unknown/steps", STEP, 404, "episode"),
        ("/known/other", STEP, 404, None),
        ("/known/steps", {"observation": [0.0] * 4}, 400, "step"),
        ("/known/steps", STEP | {"step": -1}, 400, "step"),
        ("/known/steps", STEP | {"step": 1.5}, 400, "step"),
        ("/known/steps", STEP | {"step": 2}, 409, "step"),
        ("/known/steps", STEP | {"reward": "x"}, 400, "reward"),
        ("/known/steps", STEP | {"reward": 1.0}, 400, "reward"),
        ("/known/steps", STEP | {"reward": float("nan")}, 422, "reward"),
        ("/known/steps", STEP | {"reward": 1e300}, 422, "reward"),
        ("/known/steps", STEP | {"reward": -(10**400)}, 422, "reward"),
        ("/known/steps", STEP | {"observation": [0.0] * 3}, 422, "observation.observation"),
        ("/known/steps", STEP | {"observation": [[0.0] * 4]}, 422, "observation.observation"),
        ("/known/steps", STEP | {"observation": {"camera": [0.0]}}, 422, "observation.camera"),
        ("/known/steps", STEP | {"observation": [float("inf"), 0, 0, 0]}, 422, "observation.observation"),
        ("/known/steps", STEP | {"observation": "x"}, 400, "observation"),
        ("/known/steps", STEP | {"action_mask": [True]}, 422, "action_mask"),
        ("/known/steps", STEP | {"action_mask": [False] * 3}, 422, "action_mask"),
        ("/known/steps", STEP | {"timeout_s": -1}, 400, "timeout_s"),
        ("/known/end", {"step": 0}, 400, "terminated"),
        ("/known/end", {"step": 0, "terminated": 1}, 400, "terminated"),
        ("/known/end", {"step": 0, "truncated": True}, 400, "observation"),
        ("/known/end", END | {"step": 3}, 409, "step"),
        ("/over/steps", STEP, 409, "episode"),
        ("/over/end", END | {"step": 1}, 409, "step"),
    ],
)
def test_bad_requests_are_answered_with_the_field_that_is_wrong(served_once, path, body, status, field):
    answered, told = served_once.post(f"/v1/episodes{path}", body)
    assert (answered, told["error"]["field"]) == (status, field), told


@pytest.fixture(scope="module")
def served_once():
    with taking_episodes(weights()) as server:
        assert server.post("/v1/episodes", {"episode": "known"})[0] == 200
        assert server.post("/v1/episodes", {"episode": "over"})[0] == 200
        assert server.post("/v1/episodes/over/end", END)[0] == 200
        yield server


def test_the_door_is_that_of_other_paths_and_where_nobody_learns_that_is_told(served_once, serving, policies):
    assert served_once.post("/v1/episodes", {"episode": "x"}, token="another-token-is-wrong")[0] == 401
    with serving(policies) as other:
        answer = other.ask("POST", "/v1/episodes", {"episode": "x"})
    assert answer.status == 404
    assert "nobody learns from episodes here" in answer.json["error"]["message"]


def test_a_client_that_has_lost_its_server_is_told_that_the_episode_is_unknown(served, client):
    episode = client.start_episode()
    served.server.episodes._table._open.clear()
    with pytest.raises(EpisodeNotFound):
        episode.act(observation(0))


def test_the_program_of_the_document_runs():
    text = (Path(__file__).resolve().parents[2] / "docs" / "external.md").read_text("utf-8")
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    made = weights(observations=spaces.Box(-9, 9, (4,), np.float32), actions=spaces.Discrete(2))
    with taking_episodes(made, batch_steps=100) as served:
        exec(program, {"url": served.url, "token": TOKEN, "episodes": 2})  # noqa: S102 - what users type
        taken = served.take(8)
    assert len(taken.finished) == 2


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=6,
)
NEARLY = {
    "episode": st.sampled_from(["known", "e1", "e 2", ""]) | ANYTHING,
    "policy": st.sampled_from(["policy", "other"]) | ANYTHING,
    "step": st.integers(-1, 3) | ANYTHING,
    "reward": st.floats() | st.just(0.0) | ANYTHING,
    "observation": st.lists(st.floats(-1, 1), min_size=4, max_size=4) | ANYTHING,
    "action_mask": st.lists(st.booleans(), min_size=3, max_size=3) | ANYTHING,
    "terminated": st.booleans() | ANYTHING,
    "truncated": st.booleans() | ANYTHING,
    "timeout_s": st.floats() | st.just(5.0) | ANYTHING,
}
#: Which of these belong to a request.
PARTS = {
    "": ["episode", "policy"],
    "/steps": ["step", "reward", "observation", "action_mask", "timeout_s"],
    "/end": ["step", "reward", "observation", "terminated", "truncated", "timeout_s"],
}


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_no_body_whatever_makes_a_fault_of_the_server(served_to_anybody, data):
    path = data.draw(st.sampled_from([*PARTS]))
    fitting = st.fixed_dictionaries({}, optional={name: NEARLY[name] for name in PARTS[path]})
    body = data.draw(fitting | st.fixed_dictionaries({}, optional=NEARLY) | ANYTHING)
    name = data.draw(st.sampled_from(["/known", "/e1", "/%F0%9F", "/a%20b"])) if path else ""
    status, told = served_to_anybody.post(f"/v1/episodes{name}{path}", body)
    assert status in (200, 400, 404, 409, 422), (status, told)
    schema = "Error" if status != 200 else {"": "EpisodeStarted", "/steps": "StepReply", "/end": "EpisodeEnded"}[path]
    document = openapi.document()
    form = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.validate(told, form, jsonschema.Draft202012Validator)
    told_of = document["paths"][f"/v1/episodes{'/{name}' if path else ''}{path}"]["post"]["responses"]
    assert str(status) in told_of


@pytest.fixture(scope="module")
def served_to_anybody():
    with taking_episodes(weights(), batch_steps=100_000) as server:
        yield server


@settings(deadline=None, max_examples=60)
@given(junk=st.binary(max_size=32), begin=st.integers(0, 160), end=st.integers(0, 160))
def test_no_damaged_tensors_make_a_fault_of_the_server(served_to_anybody, junk, begin, end):
    body = episode_wire.write(EpisodeStep(step=0, observation={"observation": np.zeros(4)}))
    damaged = body[:begin] + junk + body[max(begin, end) :]
    connection = http.client.HTTPConnection("127.0.0.1", served_to_anybody.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        headers = {"Content-Type": wire.TENSOR_FORM, "Authorization": f"Bearer {TOKEN}"}
        connection.request("POST", "/v1/episodes/damaged/steps", damaged, headers)
        assert connection.getresponse().status in (200, 400, 404, 422)
