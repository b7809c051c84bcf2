"""The learner on a GPU against the same on the CPU; `make test-gpu` runs this, where torch finds one."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig, ppo_loss
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.minibatches import minibatches
from shoal.rllib.learning.torch_learner import TorchLearner
from shoal.rllib.policies import devices
from shoal.rllib.policies.devices import resolve_device
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.torch_policy import TorchPolicies

pytestmark = pytest.mark.gpu

FLAT = spaces.Box(-1.0, 1.0, (4,))
PIXELS = spaces.Box(0, 255, (4, 36, 36), "uint8")
SETTINGS = {"clip_range": 0.2, "entropy_coef": 0.01, "value_coef": 0.5}
#: observations, network; the actions are three choices
POLICIES = {"mlp": (FLAT, {}), "cnn": (PIXELS, {"network": "nature_cnn", "hidden_sizes": (), "shared_value_net": True})}


@pytest.fixture(scope="module", autouse=True)
def gpu():
    assert torch.cuda.is_available(), "torch finds no GPU"
    assert resolve_device("auto").type == "cuda"
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # else convolutions round their inputs to 10 bits
    yield
    torch.backends.cudnn.allow_tf32 = before


def learner_of(name, device, precision="float32", **settings):
    observations, network = POLICIES[name]
    spec = policy_spec(
        "toy", observations, spaces.Discrete(3), NetworkSettings(**{"hidden_sizes": (64, 64), **network})
    )
    return TorchLearner(
        ActorCritic(spec, 1, precision),
        ppo_loss,
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, eps=1e-5, fused=True),
        device=torch.device(device),
        max_grad_norm=0.5,
        **settings,
    )


def columns_for(name, count=160, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, *POLICIES[name][0].shape)
    numbers = {each: rng.standard_normal(count) for each in ("advantages", "returns", "values")}
    return {
        "observations/observation": rng.integers(256, size=shape).astype(np.uint8)
        if name == "cnn"
        else rng.standard_normal(shape).astype(np.float32),
        "actions": rng.integers(3, size=(count, 1)),
        "log_probs": np.full(count, -np.log(3.0), np.float32),
        **{each: array.astype(np.float32) for each, array in numbers.items()},
    }


def two_epochs(learner, name):
    """Metrics of six steps, of 64, 64 and 32 rows twice, as they come."""
    rows = learner.to_device(columns_for(name))
    shuffle = np.random.default_rng(5)
    return [learner.update(each, SETTINGS) for _ in range(2) for each in minibatches(rows, 64, shuffle)]


def assert_they_learned_the_same(mine, its, start, tolerance):
    before = start.weights(0).arrays
    moved = {name: array - before[name] for name, array in its.weights(0).arrays.items()}
    for name, array in mine.weights(0).arrays.items():
        distance = np.linalg.norm(array - before[name] - moved[name])
        assert distance <= tolerance * np.linalg.norm(moved[name]) + 1e-7, name


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-2), ({"compiled_rows": 64}, 1e-2), ({"precision": "bfloat16", "compiled_rows": 64}, 5e-2)],
    ids=["float32", "compiled", "compiled in bfloat16"],
)
def test_a_gpu_learns_what_the_cpu_learns(name, settings, tolerance):
    near, far = learner_of(name, "cpu"), learner_of(name, "cuda", **settings)
    expected, told = near.means(two_epochs(near, name)), far.means(two_epochs(far, name))
    for metric in ("policy_loss", "value_loss", "entropy", "grad_norm"):
        assert told[metric] == pytest.approx(expected[metric], rel=tolerance, abs=tolerance), metric
    if "precision" not in settings:  # Adam's first steps have one size, however small and inexact a gradient is
        assert_they_learned_the_same(far, near, learner_of(name, "cpu"), tolerance)


@pytest.mark.parametrize("settings", [{}, {"compiled_rows": 64}], ids=["float32", "compiled"])
def test_between_the_first_row_and_the_metrics_the_driver_waits_for_nothing(settings):
    learner = learner_of("mlp", "cuda", **settings)
    for _ in range(3):  # what is made once: memory, handles of libraries, programs, graphs
        learner.means(two_epochs(learner, "mlp"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        reported = two_epochs(learner, "mlp")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.means(reported)["grad_norm"] > 0.0


def test_a_bad_gradient_is_told_with_the_metrics_and_the_weights_are_those_before_it():
    far, near = learner_of("mlp", "cuda"), learner_of("mlp", "cuda")
    good, bad = columns_for("mlp", 64), columns_for("mlp", 64, seed=1)
    bad["returns"][3] = np.nan
    near.means([near.update(near.to_device(good), SETTINGS)])
    reported = [far.update(far.to_device(columns), SETTINGS) for columns in (good, bad, good)]
    with pytest.raises(DivergedError, match="norm is nan at a loss of nan"):
        far.means(reported)
    mine, its = far.weights(0).arrays, near.weights(0).arrays
    assert all(np.allclose(mine[name], its[name], rtol=1e-5, atol=1e-7) for name in mine)
    assert far.means([far.update(far.to_device(good), SETTINGS)])["value_loss"] > 0.0


def test_what_is_moved_arrives_as_it_was():
    for array in (
        np.arange(100_000),
        np.zeros((3, 0), np.float32),
        np.array([True, False]),
        np.ones((4, 36), np.uint8),
    ):
        there = devices.moved(torch.from_numpy(array), torch.device("cuda"))
        assert there.device.type == "cuda"
        np.testing.assert_array_equal(there.cpu().numpy(), array)


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_training_on_a_gpu_goes_as_on_the_cpu_and_a_resumed_run_as_one_that_was_not_stopped(recurrent):
    shoal.init(num_cpus=3)
    try:
        config = {"num_workers": 1, "num_envs": 4, "rollout_steps": 32, "num_epochs": 2, "minibatch_size": 64}
        config |= {"hidden_sizes": (16,), "recurrent": recurrent}
        near, far = (PPO(PPOConfig(**config, device=device, learner="torch")) for device in ("cpu", "cuda"))
        expected, told = near.step(), far.step()
        for metric in ("policy_loss", "value_loss", "entropy", "grad_norm"):
            its = expected[f"learner/{metric}"]
            assert told[f"learner/{metric}"] == pytest.approx(its, rel=1e-3, abs=1e-4), metric
        heir = PPO(PPOConfig(**config, device="cuda", learner="torch"))
        heir.restore(far.checkpoint())
        expected, told = far.step(), heir.step()
        assert told["learner/value_loss"] == pytest.approx(expected["learner/value_loss"], rel=1e-3)
        for algorithm in (near, far, heir):
            algorithm.close()
    finally:
        shoal.shutdown()


@pytest.mark.parametrize("name", POLICIES)
def test_acting_on_a_gpu_agrees_with_acting_in_numpy(name):
    learner = learner_of(name, "cpu")
    weights = learner.weights(0)
    rows = {"observation": columns_for(name)["observations/observation"]}
    states = np.zeros((160, 0), np.float32)
    acted, ours = TorchPolicies("cuda")(weights).step(rows, states), Policy(weights)
    np.testing.assert_allclose(acted.parameters, ours.step(rows, states).parameters, atol=1e-4)
    np.testing.assert_allclose(acted.values, ours.values(rows), atol=1e-4)


def test_inference_actors_on_a_gpu_play_the_steps_of_an_iteration():
    shoal.init(num_cpus=2)
    try:
        config = PPOConfig(
            num_envs=4, rollout_steps=32, minibatch_size=32, inference="actor", inference_device="cuda", env_groups=2
        )
        algorithm = PPO(config)
        try:
            for _ in range(2):
                row = algorithm.step()
            assert row["steps"] == 2 * 4 * 32
            assert row["inference/restarts"] == 0
        finally:
            algorithm.close()
    finally:
        shoal.shutdown()
