"""Acting: the same numbers as the network that learned, and the same bits in any batch."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs.columns import ColumnWriter
from shoal.rllib.policies.distributions import draw
from shoal.rllib.policies.modules import OBSERVATIONS, ActorCritic
from shoal.rllib.policies.normalization import ObservationMoments
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def box(size, bound=1.0):
    return spaces.Box(-bound, bound, (size,), np.float32)


RAM = spaces.Box(0, 255, (6,), np.uint8)
MIXED = spaces.Dict({"gear": spaces.Discrete(3, start=1), "state": box(5), "flags": spaces.MultiBinary(2), "ram": RAM})
CAMERA = spaces.Dict({"camera": spaces.Box(0, 255, (40, 36, 3), np.uint8), "state": box(3)})
ACTIONS = spaces.Tuple((spaces.MultiDiscrete([3, 2]), box(2)))

SPECS = {
    "cartpole": (box(4), spaces.Discrete(2), {"hidden_sizes": (64, 64)}),
    "cheetah": (box(17), box(6), {"hidden_sizes": (64, 64)}),
    "pendulum": (box(3), box(1, 2.0), {"hidden_sizes": (32,)}),
    "wide": (box(8), spaces.Discrete(4), {"hidden_sizes": (100, 256, 7), "activation": "relu"}),
    "mixed": (MIXED, ACTIONS, {"hidden_sizes": (32,), "activation": "elu", "shared_value_net": True}),
    "predicted": (box(4), box(2), {"hidden_sizes": (32,), "log_std": "predicted", "squash": True}),
    "lstm": (box(4), spaces.Discrete(3), {"hidden_sizes": (32,), "recurrent": "lstm", "recurrent_size": 24}),
    "gru": (MIXED, ACTIONS, {"hidden_sizes": (32,), "recurrent": "gru", "recurrent_size": 20}),
    "shared lstm": (box(4), box(2), {"recurrent": "lstm", "recurrent_size": 20, "shared_value_net": True}),
    "nature": (CAMERA, ACTIONS, {"hidden_sizes": (32,)}),
    "impala": (CAMERA, ACTIONS, {"network": "impala_cnn", "shared_value_net": False, "recurrent": "gru"}),
}
MLPS = ("cartpole", "cheetah", "pendulum", "wide", "mixed", "predicted")


def learned(name, seed=0, normalizers=None):
    """A network whose head is not nearly zero, as after some learning, and its acting twin."""
    observations, actions, network = SPECS[name]
    spec = policy_spec("toy", observations, actions, NetworkSettings(**network))
    nets = ActorCritic(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in nets.nets.parameters():
            parameter.add_((0.1 if parameter.dim() < 4 else 0.01) * torch.randn(parameter.shape, generator=generator))
    arrays = {key: tensor.detach().numpy() for key, tensor in nets.nets.state_dict().items()}
    return nets, Policy(Weights(0, spec, arrays, normalizers or {}))


def some(policy, name, count, seed=1):
    """Observations and recurrent states."""
    space = SPECS[name][0]
    space.seed(seed)
    writer = ColumnWriter(space)
    columns = writer.allocate(count)
    for row in writer.rows(columns):
        writer.write(row, space.sample())
    states = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, policy.spec.state_size)).astype(np.float32)
    return columns, states


def values_of(policy, acted, columns, states):
    return policy.values(columns, states) if acted.values is None else acted.values


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 8, 21])
def test_acting_and_torch_agree_to_a_millionth(name, count):
    nets, policy = learned(name)
    columns, states = some(policy, name, count)
    acted = policy.step(columns, states)
    minibatch = {f"{OBSERVATIONS}{key}": torch.from_numpy(column) for key, column in columns.items()}
    if policy.spec.is_recurrent:  # the same again, so that what acting remembers is looked at too
        acted = policy.step(columns, acted.states)
        minibatch = {key: torch.cat([column, column]) for key, column in minibatch.items()}
        minibatch |= {"states": torch.from_numpy(states), "batch_sizes": torch.tensor([count, count])}
    with torch.no_grad():
        parameters, values = (rows[-count:] for rows in nets.forward(minibatch))
    # Thousands of terms in a row end near 1e-5 of their size in float32, in whichever order they are added.
    tolerance = 1e-6 if name in MLPS else 2e-5 if policy.spec.observations.images else 4e-6
    np.testing.assert_allclose(acted.parameters, parameters.numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        values_of(policy, acted, columns, states), values.numpy(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", SPECS)
def test_a_row_has_the_same_bits_whatever_batch_it_is_in(name):
    _, policy = learned(name)
    columns, states = some(policy, name, 40)
    distribution = policy.spec.actions.distribution
    noise = np.stack([draw(distribution, np.random.default_rng(i), 1)[0] for i in range(40)])

    def everything(rows):
        seen = {key: column[rows] for key, column in columns.items()}
        acted = policy.step(seen, states[rows])
        actions = distribution.sample(acted.parameters, noise[rows])
        log_probs = distribution.log_prob(acted.parameters, actions)
        return acted.parameters, values_of(policy, acted, seen, states[rows]), acted.states, actions, log_probs

    whole = everything(np.arange(40))
    rng = np.random.default_rng(2)
    for _ in range(5 if policy.spec.observations.images else 30):
        rows = rng.permutation(40)[: rng.integers(1, 20)]
        for there, here in zip(everything(rows), whole, strict=True):
            np.testing.assert_array_equal(there, here[rows])


@pytest.mark.parametrize("name", SPECS)
def test_the_critic_asked_alone_gives_what_it_gives_in_a_step(name):
    _, policy = learned(name)
    columns, states = some(policy, name, 9)
    acted = policy.step(columns, states)
    assert (acted.values is None) == (not policy.spec.is_recurrent and not policy.spec.shares_tower)
    if acted.values is not None:
        np.testing.assert_array_equal(policy.values(columns, states), acted.values)


def test_observations_pass_the_normaliser_before_both_nets_but_for_images_and_choices():
    for name in ("cartpole", "nature"):
        moments = ObservationMoments(learned(name)[1].spec.observations.normalizable_shapes)
        column = "state" if name == "nature" else "observation"
        shape = (9, 5, 3) if name == "nature" else (9, 5, 4)
        moments.update({column: np.random.default_rng(0).normal(3.0, 5.0, shape)})
        normalizers = moments.normalizers()
        assert list(normalizers) == [column]
        _, policy = learned(name)
        _, normalizing = learned(name, normalizers=normalizers)
        columns, states = some(policy, name, 9)
        changed = {**columns, column: normalizers[column](columns[column])}
        here, there = policy.step(changed, states), normalizing.step(columns, states)
        np.testing.assert_array_equal(there.parameters, here.parameters)
        np.testing.assert_array_equal(normalizing.values(columns, states), policy.values(changed, states))


def test_deterministic_actions_are_the_likeliest_and_need_no_stream():
    _, policy = learned("cartpole")
    columns, states = some(policy, "cartpole", 9)
    likeliest = policy.step(columns, states).parameters.argmax(axis=1)[:, None].tolist()
    assert policy.act(columns, deterministic=True)[0].tolist() == likeliest
    assert policy.act(columns["observation"], deterministic=True)[0].tolist() == likeliest
    with pytest.raises(ValueError, match="needs rng"):
        policy.act(columns, deterministic=False)


def test_a_bare_array_is_refused_where_there_are_several_columns():
    _, policy = learned("mixed")
    with pytest.raises(TypeError, match="takes a dict of columns: flags, gear, ram, state"):
        policy.act(np.zeros((3, 5)), deterministic=True)


def test_forbidden_actions_are_never_taken_sampled_or_not():
    _, policy = learned("lstm")
    columns, states = some(policy, "lstm", 200)
    masks = np.tile([False, True, False], (200, 1))
    for deterministic in (True, False):
        actions, after = policy.act(columns, states, masks, deterministic=deterministic, rng=np.random.default_rng(0))
        assert actions.tolist() == [[1]] * 200
        assert after.shape == states.shape


def test_sampled_actions_of_a_continuous_policy_stay_within_the_bounds():
    _, policy = learned("cheetah")
    columns, _ = some(policy, "cheetah", 30)
    actions, _ = policy.act(columns, deterministic=False, rng=np.random.default_rng(5))
    assert actions.shape == (30, 6)
    assert np.abs(actions).max() == 1.0


def test_images_have_the_same_bits_with_more_threads():
    _, policy = learned("nature")
    columns, states = some(policy, "nature", 5)
    here = policy.step(columns, states).parameters
    torch.set_num_threads(2)
    np.testing.assert_array_equal(policy.step(columns, states).parameters, here)
