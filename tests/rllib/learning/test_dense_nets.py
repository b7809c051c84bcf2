"""Nets in numpy against their torch twins: what they give, and every gradient."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.rllib.learning.dense_nets import DenseNets
from shoal.rllib.policies.modules import OBSERVATIONS, ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BOX = spaces.Box(-1.0, 1.0, (3,))
MIXED = spaces.Dict({"body": BOX, "gear": spaces.Discrete(4, start=-1), "lamps": spaces.MultiBinary(2)})


def twins(observations=BOX, actions=BOX, seed=0, **network):
    """The same weights in both, far from where they start."""
    settings = NetworkSettings(**{"hidden_sizes": (8, 5), **network})
    policy = ActorCritic(policy_spec("toy", observations, actions, settings), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.nets.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    nets = DenseNets(policy.spec)
    for name, array in nets.named(nets.weights).items():
        array[...] = policy.nets.state_dict()[name]
    return policy, nets


def rows(space, count, seed=0):
    """Columns [count, ...] of a space."""
    space.seed(seed)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {name: np.stack([each[name] for each in drawn]) for name in space.spaces}
    return {"observation": np.stack(drawn)}


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("observations", "actions", "network"),
    [
        (BOX, BOX, {}),
        (MIXED, spaces.Discrete(4), {"hidden_sizes": (6,)}),
        (BOX, spaces.MultiDiscrete([2, 3]), {"hidden_sizes": (7, 6, 5)}),
        (BOX, BOX, {"log_std": "predicted"}),
        (BOX, spaces.Tuple((spaces.Discrete(3), BOX)), {}),
    ],
)
def test_both_nets_and_their_gradients_are_torchs(activation, shared, observations, actions, network):
    policy, nets = twins(observations, actions, activation=activation, shared_value_net=shared, **network)
    rng = np.random.default_rng(0)
    for count in (20, 20, 7, 1):  # a pass must leave nothing behind for the next
        columns = rows(observations, count, count)
        parameters, values = nets.forward(policy.spec.observations.flat(columns))
        minibatch = {f"{OBSERVATIONS}{name}": torch.from_numpy(column) for name, column in columns.items()}
        theirs, their_values = policy.forward(minibatch)
        np.testing.assert_allclose(parameters, theirs.detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(values, their_values.detach(), rtol=1e-5, atol=1e-5)

        by_parameters = rng.standard_normal(parameters.shape).astype(np.float32)
        by_values = rng.standard_normal(values.shape).astype(np.float32)
        nets.backward(by_parameters, by_values)
        policy.nets.zero_grad()
        loss = (theirs * torch.from_numpy(by_parameters)).sum() + (their_values * torch.from_numpy(by_values)).sum()
        loss.backward()
        mine = nets.named(nets.gradient)
        assert mine.keys() == {name for name, _ in policy.nets.named_parameters()}
        for name, parameter in policy.nets.named_parameters():
            np.testing.assert_allclose(mine[name], parameter.grad, rtol=1e-4, atol=3e-5, err_msg=name)


def test_a_relu_has_no_slope_at_its_kink():
    policy, nets = twins(activation="relu", hidden_sizes=(2,), shared_value_net=True)
    nets.weights[:] = 1.0
    columns = {"observation": np.array([[1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], np.float32)}  # inner sums 0 and 4
    nets.forward(policy.spec.observations.flat(columns))
    nets.backward(np.ones((2, 6), np.float32), np.ones(2, np.float32))
    np.testing.assert_array_equal(nets.named(nets.gradient)["policy.hidden.0.bias"], [4.0, 4.0])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [BOX, spaces.Discrete(4)])
def test_weights_by_name_are_the_flat_vector(actions, shared):
    _, nets = twins(actions=actions, shared_value_net=shared)
    named = nets.named(nets.weights)
    assert sum(array.size for array in named.values()) == nets.weights.size
    before = nets.weights.copy()
    for name in named:
        named[name] += 1.0
    assert np.array_equal(nets.weights, before + 1.0)  # each exactly once


def test_a_vector_in_the_order_of_the_names_is_the_same_as_one_in_the_nets_own():
    policy, nets = twins()
    ordered = nets.in_order(nets.weights)
    assert list(nets.named(nets.weights)) == list(policy.spec.array_shapes())
    assert np.array_equal(ordered, np.concatenate([array.ravel() for array in nets.named(nets.weights).values()]))
    other = np.zeros_like(nets.weights)
    nets.take_in_order(ordered, other)
    assert np.array_equal(other, nets.weights)
