"""A compiled loss, and one in bfloat16, are the same within a tolerance that is named. Figures are of PPO's loss."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.algorithms.ppo import ppo_loss
from shoal.rllib.config import ConfigError
from shoal.rllib.learning import compilation
from shoal.rllib.learning.compilation import compiled
from shoal.rllib.policies.distributions import draw
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

CPU = torch.device("cpu")
FLAT = spaces.Box(-1.0, 1.0, (4,))
PIXELS = spaces.Box(0, 255, (4, 36, 36), "uint8")
MIXED = spaces.Dict({"numbers": FLAT, "choices": spaces.MultiDiscrete([3, 4])})
SETTINGS = {"clip_range": 0.2, "entropy_coef": 0.01, "value_coef": 0.5}

#: observations, actions, network
POLICIES = {
    "mlp": (FLAT, spaces.Discrete(2), {}),
    "cnn": (PIXELS, spaces.Discrete(6), {"network": "nature_cnn", "hidden_sizes": (), "shared_value_net": True}),
    "lstm": (FLAT, spaces.Discrete(2), {"recurrent": "lstm", "recurrent_size": 32}),
    "gru": (FLAT, spaces.Box(-1.0, 1.0, (2,)), {"recurrent": "gru", "recurrent_size": 32}),
    "choices": (FLAT, spaces.MultiDiscrete([2, 5]), {}),
    "squashed": (FLAT, spaces.Box(-1.0, 1.0, (2,)), {"squash": True, "log_std": "predicted"}),
    "mixed": (MIXED, spaces.Dict({"a": spaces.MultiDiscrete([3, 2]), "b": spaces.Box(-1.0, 1.0, (2,))}), {}),
}


def policy_of(name, precision="float32"):
    observations, actions, network = POLICIES[name]
    settings = NetworkSettings(**{"hidden_sizes": (64, 64), **network})
    return ActorCritic(policy_spec("toy", observations, actions, settings), 1, precision)


def minibatch_for(policy, count, seed=0):
    """Random rows; of a recurrent policy four pieces of equal length, the last one step shorter."""
    rng = np.random.default_rng(seed)
    distribution = policy.spec.actions.distribution
    columns = {}
    for column in policy.spec.observations.columns:
        shape = (count, *column.shape)
        if column.kind == "choices":
            rows = rng.integers(3, size=shape)
        else:
            rows = rng.integers(256, size=shape).astype(np.uint8) if len(shape) == 4 else rng.standard_normal(shape)
        columns[f"observations/{column.name}"] = rows if rows.dtype != np.float64 else rows.astype(np.float32)
    parameters = rng.standard_normal((count, distribution.num_parameters)).astype(np.float32)
    columns["actions"] = distribution.sample(parameters, draw(distribution, rng, count))
    columns |= {name: rng.standard_normal(count).astype(np.float32) for name in ("advantages", "returns", "values")}
    minibatch = {name: torch.from_numpy(column) for name, column in columns.items()}
    if policy.spec.is_recurrent:
        minibatch["states"] = torch.zeros(4, policy.spec.state_size)
        minibatch["batch_sizes"] = torch.tensor([4] * (count // 4))
    with torch.no_grad():
        log_probs = policy.evaluate_actions(minibatch)[0]
    noise = torch.from_numpy(rng.standard_normal(count).astype(np.float32))
    return {**minibatch, "log_probs": log_probs + 0.2 * noise}


def gradient(policy, loss, minibatch, settings=SETTINGS):
    """The loss, its metrics, and all gradients in one row."""
    policy.nets.zero_grad()
    value, metrics = loss(policy, minibatch, settings)
    value.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in policy.nets.parameters()])
    return value.item(), {name: metric.item() for name, metric in metrics.items()}, gradients


def relative_distance(mine, its):
    return ((mine - its).norm() / its.norm()).item()


@pytest.mark.parametrize("name", POLICIES)
def test_in_bfloat16_the_loss_differs_by_less_than_a_hundredth_and_the_gradient_is_float32(name):
    policy = policy_of(name)
    minibatch = minibatch_for(policy, 64)
    loss, metrics, exact = gradient(policy, ppo_loss, minibatch)
    its_loss, its_metrics, rounded = gradient(policy_of(name, "bfloat16"), ppo_loss, minibatch)
    assert rounded.dtype == torch.float32
    # Behind convolutions of noise many rectifiers are at their corner.
    assert 1e-5 < relative_distance(rounded, exact) < (0.1 if name == "cnn" else 0.03)
    assert its_loss == pytest.approx(loss, abs=1e-2)
    for metric in set(metrics) - {"clip_fraction"}:  # a row at the edge of the range counts or does not
        assert its_metrics[metric] == pytest.approx(metrics[metric], abs=1e-2), metric


def test_values_far_from_one_are_as_exact_in_bfloat16_as_the_layers_before_the_head():
    policies = policy_of("mlp"), policy_of("mlp", "bfloat16")
    minibatch = minibatch_for(policies[0], 64)
    with torch.no_grad():
        for policy in policies:
            policy.nets["value"]["head"].bias.fill_(500.0)
        exact, rounded = (policy.evaluate_actions(minibatch)[2] for policy in policies)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05  # two neighbours of 500 in bfloat16 are 2 apart


@pytest.mark.parametrize(("name", "precision"), [("mlp", "float32"), ("cnn", "bfloat16")])
def test_compiled_the_gradient_is_that_of_the_loss_as_it_is_written(name, precision, can_compile):
    if not can_compile:
        with pytest.raises(ConfigError, match=r"compile: torch\.compile does not work on cpu"):
            compiled(ppo_loss, CPU, 64)
        return
    policy = policy_of(name, precision)
    minibatch = minibatch_for(policy, 64)
    fast = compiled(ppo_loss, CPU, 64)
    tolerance = 1e-5 if precision == "float32" else 2e-2
    for settings in (SETTINGS, {**SETTINGS, "clip_range": 0.1}):  # the second time nothing is compiled
        loss, metrics, expected = gradient(policy, ppo_loss, minibatch, settings)
        its_loss, its_metrics, gradients = gradient(policy, fast, minibatch, settings)
        assert relative_distance(gradients, expected) < tolerance
        assert its_loss == pytest.approx(loss, abs=tolerance)
        assert its_metrics["approx_kl"] == pytest.approx(metrics["approx_kl"], abs=tolerance)


@pytest.fixture
def programs(monkeypatch):
    """What torch.compile made, one entry each; they run as they are written, for making them fast takes seconds."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, mode="default", **rest: real(function, **rest, backend=backend)
    )
    monkeypatch.setattr(compilation, "_try_to_compile", lambda device: None)
    torch.compiler.reset()
    return made


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in {"lstm", "gru"}])
def test_every_policy_without_memory_is_compiled_whole_and_once_while_settings_and_weights_change(programs, name):
    policy = policy_of(name)
    fast = compiled(ppo_loss, CPU, 16)
    optimizer = torch.optim.Adam(policy.nets.parameters(), fused=True)
    for step in range(4):
        settings = {**SETTINGS, "clip_range": 0.2 - 0.01 * step, "dual_clip": 3.0, "value_clip_range": 0.5}
        minibatch = minibatch_for(policy_of(name), 16, seed=step)  # `policy` has done nothing yet that it remembers
        its_loss, its_metrics, gradients = gradient(policy, fast, minibatch, settings)
        loss, metrics, expected = gradient(policy, ppo_loss, minibatch, settings)
        assert its_loss == pytest.approx(loss, rel=1e-5)
        assert its_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
        optimizer.step()
    assert len(programs) == 1


def test_a_minibatch_of_another_size_is_computed_as_it_is_written(programs):
    policy = policy_of("mlp")
    fast = compiled(ppo_loss, CPU, 16)
    for count in (16, 5, 9, 16):
        minibatch = minibatch_for(policy, count)
        loss, _, expected = gradient(policy, ppo_loss, minibatch)
        its_loss, _, gradients = gradient(policy, fast, minibatch)
        assert its_loss == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    assert len(programs) == 1


def test_without_a_compiler_compilation_is_refused_in_one_line_before_training(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(ConfigError, match=r"compile: torch\.compile does not work on cpu: InvalidCxx") as caught:
        compiled(ppo_loss, CPU, 16)
    assert "\n" not in str(caught.value)
