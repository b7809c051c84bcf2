"""The driver's side of inference actors: who asks whom, what is counted, and which devices are refused."""

import math

import pytest

import shoal
from shoal.rllib.config import ConfigError
from shoal.rllib.inference.inference_actors import InferenceActors
from shoal.rllib.inference.inference_client import Exchange, InStore


@pytest.fixture
def begun(monkeypatch):
    """Begins a session with these GPUs, none of which torch finds."""

    def begin(engine, gpus=0):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(str(90 + gpu) for gpu in range(gpus)))
        shoal.init(engine=engine, num_cpus=2, num_gpus=gpus)

    yield begin
    shoal.shutdown()


def exchange(actor, lives, **counts):
    return Exchange(
        actor, frozenset(lives), **{"requests": 0, "batch_rows": 0, "asked_again": 0, "waited_s": 0.0, **counts}
    )


def test_workers_are_shared_out_among_the_actors(begun):
    begun("inline")
    actors = InferenceActors(2, num_rows=4)
    assert [actors.of(worker)[1] for worker in range(5)] == [0, 1, 0, 1, 0]
    assert actors.of(0)[0] is actors.of(2)[0] is not actors.of(1)[0]
    assert isinstance(actors.weights_of("ref"), InStore)


def test_without_actors_workers_act_by_themselves_and_nothing_is_told():
    actors = InferenceActors(0, num_rows=4)
    assert actors.of(3) is None
    assert actors.weights_of("ref") == "ref"
    actors.note(None, 1.0)
    assert actors.metrics() == {}


def test_each_life_that_has_answered_but_an_actors_first_is_a_restart(begun):
    begun("inline")
    actors = InferenceActors(2, num_rows=4)
    metrics = actors.metrics()
    assert metrics.pop("inference/restarts") == metrics.pop("inference/asked_again") == 0
    assert all(math.isnan(number) for number in metrics.values())
    actors.note(exchange(0, {7}, requests=10, batch_rows=30, waited_s=0.5), 1.0)
    actors.note(exchange(1, {8}, requests=10, batch_rows=10, waited_s=0.5), 1.0)
    actors.note(exchange(0, {7, 9}, requests=20, batch_rows=40, asked_again=2, waited_s=2.0), 2.0)
    actors.note(exchange(0, {9, 11}), 1.0)
    assert actors.metrics() == {
        "inference/restarts": 2,
        "inference/asked_again": 2,
        "inference/batch_rows": 2.0,
        "inference/waiting": 0.6,
    }


def test_a_gpu_that_the_session_has_not_got_is_refused_in_one_line(begun):
    begun("inline")
    with pytest.raises(
        ConfigError, match=r"^inference_device must be cpu or auto in a session without GPUs, not 'cuda'$"
    ):
        InferenceActors(1, num_rows=4, device="cuda")
    InferenceActors(1, num_rows=4, device="auto")


def test_a_gpu_that_torch_cannot_use_is_refused_in_one_line_and_nobody_is_left_behind(begun):
    begun("native", gpus=1)
    with pytest.raises(ConfigError, match=r"^inference_device: device 'cuda' cannot be used") as refused:
        InferenceActors(1, num_rows=4, device="cuda")
    assert "\n" not in str(refused.value)
    shoal.get(shoal.remote(num_gpus=1)(lambda: None).remote(), timeout=20)
