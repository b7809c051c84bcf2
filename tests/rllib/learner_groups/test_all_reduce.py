"""Learners that sum up their gradients among themselves: the steps of one learner, also when one of them is killed."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.core import api
from shoal.core.errors import ActorError
from shoal.rllib.learner_groups import all_reduce
from shoal.rllib.learner_groups.all_reduce import AllReduceGroup
from shoal.rllib.learner_groups.meeting_place import MeetingPlace
from shoal.rllib.learner_groups.summing_replica import WAIT_S, OneProcessError, SummingReplica
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.worker_set import WorkerLostError

BOX = spaces.Box(-1.0, 1.0, (3,))
SPEC = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(16, 8)))
SETTINGS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}
#: Of 64 numbers; the gradient has 400.
BUCKET_MB = 64 * 4 / (1 << 20)
ADAM = {"learning_rate": 3e-3, "epsilon": 1e-5, "max_grad_norm": 0.1}


@pytest.fixture(scope="module", params=["native", pytest.param("ray", marks=pytest.mark.ray)], autouse=True)
def engine(request):
    shoal.init(
        "local",
        num_cpus=8,
        engine=request.param,
        include_dashboard=False,
        object_store_memory=256 * 1024 * 1024,
        preload=["torch"] if request.param == "native" else [],  # each learner would import it
    )
    yield request.param
    shoal.shutdown()


@pytest.fixture
def group():
    groups = []

    def start(make, count=2, **settings):
        groups.append(AllReduceGroup(SPEC, make, count, learning_rate=3e-3, **settings))
        return groups[-1]

    yield start
    for each in groups:
        each.close()


def in_numpy(kind=NumpyLearner):
    return kind(SPEC, initial_weights(SPEC, 0), ppo_gradients, **ADAM)


def in_torch():
    import torch

    from shoal.rllib.learning.torch_learner import TorchLearner
    from shoal.rllib.policies.modules import ActorCritic

    torch.set_num_threads(1)  # in its own process, too
    return TorchLearner(
        ActorCritic(SPEC, 0),
        ppo_loss,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, eps=1e-5, fused=True),
        device=torch.device("cpu"),
        max_grad_norm=0.1,
    )


def learn(group, minibatches):
    asked = [group.update(minibatch, SETTINGS) for minibatch in minibatches]
    return [group.means([each]) for each in asked]


@pytest.mark.parametrize("make", [in_numpy, in_torch])
@pytest.mark.usefixtures("one_torch_thread")
def test_each_step_of_many_is_that_of_one_with_the_whole_minibatch(group, make, columns, same):
    many, one = group(make), make()
    assert {name: array.shape for name, array in one.weights(0).arrays.items()} == SPEC.array_shapes()
    for seed in range(5):
        for learner in (many, one):
            learner.set_learning_rate(3e-3 / (1 + seed))
        mine, its = (
            learner.means([learner.update(learner.to_device(columns(seed)), SETTINGS)]) for learner in (many, one)
        )
        assert mine == pytest.approx(its, rel=1e-4, abs=1e-5)
        same(many.weights(seed).arrays, one.weights(seed).arrays, 1e-5)
    same(many.optimizer_arrays(), one.optimizer_arrays(), 1e-5)
    assert many.optimizer_shapes() == one.optimizer_shapes()
    heir = group(make, 1)
    heir.load(many.weights(0).arrays, many.optimizer_arrays())
    same(heir.optimizer_arrays(), many.optimizer_arrays())
    same(heir.weights(0).arrays, many.weights(0).arrays)


@pytest.mark.parametrize("moment", ["gradients", "apply"], ids=["before the sum", "after the sum"])
def test_a_learner_that_is_killed_changes_not_a_bit(group, tmp_path, moment, same, mortal, columns):
    marker = tmp_path / "struck"
    struck, left_alone = group(partial(in_numpy, mortal(moment, marker))), group(in_numpy)
    assert learn(struck, map(columns, range(6))) == learn(left_alone, map(columns, range(6)))
    assert marker.exists()
    assert struck.counters() == {"replaced": 1}
    same(struck.weights(0).arrays, left_alone.weights(0).arrays)
    same(struck.optimizer_arrays(), left_alone.optimizer_arrays())


@pytest.mark.usefixtures("one_torch_thread")
def test_three_learners_take_the_steps_of_one_in_buckets_too(group, columns, same):
    three, one = group(in_torch, 3, bucket_mb=BUCKET_MB), in_torch()
    for seed in range(4):
        three.update(columns(seed), SETTINGS)
        one.update(one.to_device(columns(seed)), SETTINGS)
        same(three.weights(0).arrays, one.weights(0).arrays, 1e-5)


def test_neither_buckets_nor_a_learner_that_is_killed_between_two_change_a_bit(group, tmp_path, same, columns):
    marker = tmp_path / "struck"

    def make():
        learner, steps = in_torch(), []
        gradients = learner.gradients

        def struck(minibatch, settings, *, final_from):
            def tell(gradient, index):
                final_from(gradient, index)
                if len(steps) == 3 and index < 300:
                    try:
                        marker.touch(exist_ok=False)
                    except FileExistsError:
                        return
                    os.kill(os.getpid(), signal.SIGKILL)

            steps.append(0)
            return gradients(minibatch, settings, final_from=tell)

        learner.gradients = struck
        return learner

    struck, left_alone = group(make, bucket_mb=BUCKET_MB), group(in_torch)  # in buckets, and as a whole
    assert learn(struck, map(columns, range(5))) == learn(left_alone, map(columns, range(5)))
    assert marker.exists()
    assert struck.counters() == {"replaced": 1}
    same(struck.weights(0).arrays, left_alone.weights(0).arrays)
    same(struck.optimizer_arrays(), left_alone.optimizer_arrays())


def test_one_row_for_two_learners_is_a_step_too(group, columns, same):
    many, one = group(in_numpy), in_numpy()
    told = many.means([many.update(columns(0, rows=1), SETTINGS)])
    assert told == pytest.approx(one.update(one.to_device(columns(0, rows=1)), SETTINGS), rel=1e-4, abs=1e-5)
    same(many.weights(0).arrays, one.weights(0).arrays, 1e-5)


def end(actor):
    """Kill it, and wait until it is dead: on Ray a call behind the kill may still be answered."""
    api.kill(actor)
    with pytest.raises(ActorError):
        ask_again_and_again(actor)


def ask_again_and_again(actor):
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        api.get(actor.__ray_ready__.remote())


def test_when_all_learners_are_dead_it_is_told_what_to_do(group):
    many = group(in_numpy)
    for replica in many._replicas:
        end(replica)
    with pytest.raises(WorkerLostError, match=r"all 2 learners have died, .* go on from the last checkpoint"):
        many.weights(0)


def test_a_learner_that_is_dead_when_weights_are_loaded_is_replaced(group, same, columns):
    many = group(in_numpy)
    weights = {name: array + 1.0 for name, array in many.weights(0).arrays.items()}
    memory = many.optimizer_arrays()
    end(many._replicas[1])
    many.load(weights, memory)
    same(many.weights(0).arrays, weights)
    assert many.counters() == {"replaced": 1}
    learn(many, map(columns, range(1)))


class Latecomer(SummingReplica):
    """A learner that dies when it is to join the others."""

    def join(self, place):
        os.kill(os.getpid(), signal.SIGKILL)


def test_nobody_waits_for_a_learner_that_died_before_it_had_joined(group, columns):
    many = group(in_numpy)
    end(many._replicas[1])
    many._replicas[1] = api.remote(Latecomer).options(num_cpus=0).remote(in_numpy, 1, 2, driver_pid=os.getpid())
    started = time.monotonic()
    assert not many._have_met()
    assert time.monotonic() - started < WAIT_S / 2
    many._recover()
    learn(many, map(columns, range(1)))


def test_learners_meet_again_when_the_place_where_they_do_is_killed(group, tmp_path, monkeypatch, columns):
    marker = tmp_path / "struck"

    class Struck(MeetingPlace):
        async def get(self, key, wait_s):
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return await super().get(key, wait_s)

    monkeypatch.setattr(all_reduce, "MeetingPlace", Struck)
    many = group(in_numpy)
    learn(many, map(columns, range(1)))
    assert marker.exists()
    assert many.counters() == {"replaced": 0}


def test_all_go_on_from_whoever_is_furthest(group, columns):
    many = group(in_numpy)
    learn(many, map(columns, range(1)))
    state = api.get(many._replicas[0].state.remote())
    api.get(many._replicas[1].take_over.remote(replace(state, step=2)))
    assert many._recover().step == 2
    assert [api.get(replica.state.remote()).step for replica in many._replicas] == [2, 2]


def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights_alone(group, columns, same):
    many = group(in_numpy)
    learn(many, map(columns, range(1)))
    before, memory = many.weights(0).arrays, many.optimizer_arrays()
    spoilt = columns(1)
    spoilt["advantages"][0] = np.nan
    after = many.update(spoilt, SETTINGS)
    many.update(columns(2), SETTINGS)  # is refused like all that follows
    with pytest.raises(DivergedError, match="training has diverged"):
        many.means([after])
    same(many.weights(0).arrays, before)
    same(many.optimizer_arrays(), memory)
    learn(many, map(columns, range(2)))


def test_what_cannot_be_shared_is_refused():
    recurrent = policy_spec("toy", BOX, BOX, NetworkSettings(hidden_sizes=(8,), recurrent="gru"))
    with pytest.raises(ValueError, match=r"many learners cannot share a recurrent policy \(gru\)"):
        AllReduceGroup(recurrent, in_numpy, 2, learning_rate=1e-3)
    with pytest.raises(ValueError, match="there is at least 1 learner, not 0"):
        AllReduceGroup(SPEC, in_numpy, 0, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"bucket_mb must be positive, not 0\.0"):
        AllReduceGroup(SPEC, in_numpy, 2, learning_rate=1e-3, bucket_mb=0.0)
    with pytest.raises(OneProcessError, match="2 learners cannot sum up their gradients in one process"):
        SummingReplica(in_numpy, 0, 2, driver_pid=os.getpid()).join(None)


@pytest.mark.parametrize("rows", [[-1], [0, -1]])
def test_when_the_loss_raises_in_some_learners_or_all_nobody_waits_and_the_group_goes_on(group, rows, columns):
    def make():
        def loss(log_probs, entropies, values, minibatch, settings):
            if (minibatch["returns"] > 1e6).any():
                raise ArithmeticError("such returns cannot be")
            return ppo_gradients(log_probs, entropies, values, minibatch, settings)

        return NumpyLearner(SPEC, initial_weights(SPEC, 0), loss, **ADAM)

    many, spoilt = group(make), columns(0)
    spoilt["returns"][rows] = 1e9
    started = time.monotonic()
    steps = [many.update(spoilt, SETTINGS), many.update(columns(1), SETTINGS)]
    with pytest.raises(ArithmeticError, match="such returns cannot be"):
        many.means(steps)
    assert time.monotonic() - started < 30.0
    learn(many, map(columns, range(2)))
    assert many.counters() == {"replaced": 0}


def test_when_the_backward_pass_raises_between_two_buckets_nobody_waits_and_the_group_goes_on(group, columns):
    def make():
        learner = in_torch()
        gradients = learner.gradients

        def spoilt(minibatch, settings, *, final_from):
            def tell(gradient, index):
                final_from(gradient, index)
                if index < 300 and (minibatch["returns"] > 1e6).any():
                    raise ArithmeticError("such returns cannot be")

            return gradients(minibatch, settings, final_from=tell)

        learner.gradients = spoilt
        return learner

    many, spoilt = group(make, bucket_mb=BUCKET_MB), columns(0)
    learn(many, map(columns, range(1)))
    spoilt["returns"][-1] = 1e9
    started = time.monotonic()
    with pytest.raises(ArithmeticError, match="such returns cannot be"):
        many.means([many.update(spoilt, SETTINGS)])
    assert time.monotonic() - started < WAIT_S / 2
    learn(many, map(columns, range(2)))
    assert many.counters() == {"replaced": 0}
